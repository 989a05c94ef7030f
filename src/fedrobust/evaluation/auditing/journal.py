"""What an audit has done so far, in a file: an interrupted one goes on where it stopped."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fedrobust.errors import RecordError
from fedrobust.evaluation.auditing.subject import same

_ROUNDING = 1e-3


@dataclass(frozen=True)
class About:
    """What an audit is of: a digest, and the logits of a few examples.

    Logits tell apart what a digest of weights cannot, such as the temperature that a module keeps
    as a number. There are none of a randomised model.
    """

    digest: str
    said: Tensor | None

    @classmethod
    def of(
        cls,
        models: Sequence[nn.Module],
        tensors: Sequence[Tensor],
        said: Tensor | None,
        *settings: object,
    ) -> "About":
        """Models by what they hold, tensors, settings that have a ``repr``, and our version."""
        settings = (version("fedrobust"), *settings)
        return cls(_fingerprint(models, tensors, settings), None if said is None else said.cpu())

    def to_json(self) -> dict[str, Any]:
        """As JSON has it, which has no infinite numbers: these are texts."""
        said = None if self.said is None else [[repr(v) for v in r] for r in self.said.tolist()]
        return {"digest": self.digest, "said": said}

    def matches(self, stored: object) -> bool:
        """Whether ``stored`` is what :meth:`to_json` gave for the same audit, but for rounding."""
        if not isinstance(stored, dict) or stored.get("digest") != self.digest:
            return False
        said = stored.get("said")
        if said is None or self.said is None:
            return said is None and self.said is None
        other = torch.tensor([[float(v) for v in row] for row in said], dtype=torch.float64)
        return same(self.said.double(), other, _ROUNDING)


class Journal:
    """Results by name, one JSON line each; without a path they are only passed through.

    Raises: ``RecordError`` where the file was written for anything else than ``about``, or cannot
    be read or written. A last line that a kill cut off is done again.
    """

    def __init__(self, path: Path | None, about: About) -> None:
        self._path, self._known = path, {}
        if path is None:
            return
        lines = self._lines(path) if path.exists() else []
        head = (
            lines[0] if lines else {"audit of": about.to_json(), "threads": torch.get_num_threads()}
        )
        if not about.matches(head.get("audit of")):
            raise RecordError(
                f"{path} belongs to an audit of another model, of other examples or with other "
                "settings; name another place, or remove it"
            )
        self._known = {line["name"]: line["found"] for line in lines[1:]}
        self._write([head, *lines[1:]])

    def recall(self, name: str, work: Callable[[], Any]) -> Any:
        """What ``work`` gives, a JSON value: done now, unless it stands in the file."""
        if name not in self._known:
            self._known[name] = work()
            if self._path is not None:
                self._append({"name": name, "found": self._known[name]})
        return self._known[name]

    @classmethod
    def threads(cls, path: Path) -> int | None:
        """The threads that the audit in ``path`` began with; None where none has begun."""
        lines = cls._lines(path) if path.exists() else []
        found = lines[0].get("threads") if lines else None
        return found if isinstance(found, int) else None

    @staticmethod
    def _lines(path: Path) -> list[dict[str, Any]]:
        try:
            texts = path.read_text(encoding="utf-8").splitlines()
            whole = texts if path.read_bytes().endswith(b"\n") else texts[:-1]
            lines = [json.loads(text) for text in whole]
            if not all(isinstance(line, dict) for line in lines):
                raise ValueError("it is no journal")
            return lines
        except (OSError, UnicodeDecodeError, ValueError) as error:
            raise RecordError(f"{path} cannot be read: {error}; remove it") from error

    def _write(self, lines: Sequence[dict[str, Any]]) -> None:
        assert self._path is not None
        write_whole(self._path, "".join(json.dumps(line) + "\n" for line in lines))

    def _append(self, line: dict[str, Any]) -> None:
        assert self._path is not None
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise RecordError(f"cannot write {self._path}: {error}") from error


def write_whole(path: Path, text: str) -> None:
    """All of ``text``, or nothing where a kill comes between. Raises: ``RecordError``."""
    partial = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise RecordError(f"cannot write {path}: {error}") from error


def _fingerprint(
    models: Sequence[nn.Module], tensors: Sequence[Tensor], settings: tuple[object, ...]
) -> str:
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
