"""What an audit has done so far, in a file: an interrupted one goes on where it stopped."""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fedrobust.errors import RecordError


class Journal:
    """Results by name, one JSON line each; without a path they are only passed through.

    Raises: ``RecordError`` where the file was written for anything else than ``subject``, or cannot
    be read or written. A last line that a kill cut off is done again.
    """

    def __init__(self, path: Path | None, subject: str) -> None:
        self._path, self._known = path, {}
        if path is None:
            return
        lines = self._lines(path) if path.exists() else []
        if lines and lines[0] != {"audit of": subject}:
            raise RecordError(
                f"{path} belongs to an audit of another model, of other examples or with other "
                "settings; name another place, or remove it"
            )
        self._known = {line["name"]: line["found"] for line in lines[1:]}
        self._write([{"audit of": subject}, *lines[1:]])

    def recall(self, name: str, work: Callable[[], Any]) -> Any:
        """What ``work`` gives, a JSON value: done now, unless it stands in the file."""
        if name not in self._known:
            self._known[name] = work()
            if self._path is not None:
                self._append({"name": name, "found": self._known[name]})
        return self._known[name]

    def _lines(self, path: Path) -> list[dict[str, Any]]:
        try:
            texts = path.read_text(encoding="utf-8").splitlines()
            whole = texts if path.read_bytes().endswith(b"\n") else texts[:-1]
            return [json.loads(text) for text in whole]
        except (OSError, UnicodeDecodeError, ValueError) as error:
            raise RecordError(f"{path} cannot be read: {error}; remove it") from error

    def _write(self, lines: Sequence[dict[str, Any]]) -> None:
        assert self._path is not None
        text = "".join(json.dumps(line) + "\n" for line in lines)
        partial = self._path.with_name(self._path.name + ".part")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            partial.write_text(text, encoding="utf-8")
            partial.replace(self._path)
        except OSError as error:
            raise RecordError(f"cannot write {self._path}: {error}") from error

    def _append(self, line: dict[str, Any]) -> None:
        assert self._path is not None
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise RecordError(f"cannot write {self._path}: {error}") from error


def fingerprint(models: Sequence[nn.Module], tensors: Sequence[Tensor], *settings: object) -> str:
    """A digest of models, by what they hold, of tensors, and of settings that have a ``repr``."""
    digest = hashlib.sha256(repr(settings).encode())
    for model in models:
        digest.update(repr(model).encode())
        for name, tensor in model.state_dict().items():
            digest.update(name.encode())
            _feed(digest, tensor)
    for tensor in tensors:
        _feed(digest, tensor)
    return digest.hexdigest()


def _feed(digest: Any, tensor: object) -> None:
    if isinstance(tensor, Tensor):
        plain = tensor.detach().cpu().contiguous()
        digest.update(f"{plain.dtype} {list(plain.shape)}".encode())
        digest.update(plain.view(-1).view(torch.uint8).numpy().tobytes())
    else:  # a module may keep anything as extra state
        digest.update(repr(tensor).encode())
