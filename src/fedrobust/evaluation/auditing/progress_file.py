"""The journal of an audit: a file of finished work, so that an interrupted audit can go on."""

import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fedrobust.compute.trial import same
from fedrobust.digest import digest
from fedrobust.errors import RecordError, RecordWarning, WriteError
from fedrobust.files import appending, written
from fedrobust.records.reading import parsed, text_of

_ROUNDING = 1e-3


@dataclass(frozen=True)
class About:
    """What an audit is about: a digest, and the logits of a few examples.

    The logits show differences that a digest of weights does not, such as a temperature that a
    module keeps as a number. A randomised model has no logits here.
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
        """Describe an audit by its models, tensors, settings (by ``repr``) and our version."""
        settings = (version("fedrobust"), *settings)
        return cls(_fingerprint(models, tensors, settings), None if said is None else said.cpu())

    def to_json(self) -> dict[str, Any]:
        """Return this as JSON, with the logits as texts, since JSON has no infinite numbers."""
        said = None if self.said is None else [[repr(v) for v in r] for r in self.said.tolist()]
        return {"digest": self.digest, "said": said}

    def matches(self, stored: object) -> bool:
        """Whether ``stored`` came from :meth:`to_json` of the same audit, up to rounding."""
        if not isinstance(stored, dict) or stored.get("digest") != self.digest:
            return False
        said = stored.get("said")
        if said is None or self.said is None:
            return said is None and self.said is None
        try:
            other = torch.tensor([[float(v) for v in row] for row in said], dtype=torch.float64)
        except (TypeError, ValueError):  # not what to_json gives
            return False
        return same(self.said.double(), other, _ROUNDING)


class ProgressFile:
    """Results by name, one JSON line each. Without a path nothing is stored.

    The work of a last line that a kill cut off is done again. Every line but the first holds a
    digest of itself, so that no other damage is taken for a result.

    Raises: ``RecordError`` where the file was written for another audit than ``about``, or cannot
    be read or written.
    """

    def __init__(self, path: Path | None, about: About) -> None:
        self._path, self._known = path, dict[str, Any]()
        self._size: int | None = None
        if path is None:
            return
        lines = self._lines(path) if path.exists() else []
        head = lines[0] if lines else {"audit of": about.to_json()}
        if not about.matches(head.get("audit of")):
            raise RecordError(
                f"{path} belongs to an audit of another model, of other examples or with other "
                "settings; name another place, or remove it"
            )
        for number, line in enumerate(lines[1:], start=2):
            if line != _sealed(line.get("name"), line.get("found")):
                raise RecordError(
                    f"{path}, line {number}, cannot be read: it is not as it was written; remove "
                    "that line, and its work is done again"
                )
            self._known[line["name"]] = line["found"]
        text = "".join(json.dumps(line) + "\n" for line in [head, *lines[1:]])
        written(path, text)
        self._size = len(text.encode())

    def recall(self, name: str, work: Callable[[], Any]) -> Any:
        """Return the JSON value of ``name`` from the file; if it is not there, do ``work``."""
        if name not in self._known:
            self.keep(name, work())
        return self._known[name]

    def known(self, name: str) -> Any:
        """Return the JSON value of ``name``; None where there is none yet."""
        return self._known.get(name)

    def keep(self, name: str, found: Any) -> None:
        """Write the JSON value of ``name`` to the file."""
        self._known[name] = found
        self._append(_sealed(name, found))

    @staticmethod
    def _lines(path: Path) -> list[dict[str, Any]]:
        text = text_of(path, then="remove it")
        whole = text.split("\n")[:-1]  # a kill cuts off the last line
        found = []
        for number, line in enumerate(whole, start=1):
            try:
                value = parsed(line)
                if not isinstance(value, dict):
                    raise ValueError("it is no journal")
            except (ValueError, RecursionError) as error:
                where = f"{path}, line {number},"
                cure = "that line, and its work is done again" if number > 1 else "the file"
                raise RecordError(f"{where} cannot be read: {error}; remove {cure}") from error
            found.append(value)
        return found

    def _append(self, line: dict[str, Any]) -> None:
        """Append one line. If that fails, warn once, and go on without a journal."""
        if self._path is None or self._size is None:
            return
        text = (json.dumps(line) + "\n").encode()
        try:
            with appending(self._path, self._size) as file:
                file.write(text)
            self._size += len(text)
        except WriteError as error:
            self._size = None
            told = f"{error}; the audit goes on, but after a kill it would begin anew from there"
            warnings.warn(told, RecordWarning, stacklevel=2)


def _sealed(name: object, found: object) -> dict[str, Any]:
    """Return a line of the journal, with a digest of its content."""
    seal = digest(json.dumps([name, found]), length=16)
    return {"name": name, "found": found, "seal": seal}


def _fingerprint(
    models: Sequence[nn.Module], tensors: Sequence[Tensor], settings: tuple[object, ...]
) -> str:
    parts: list[str | Tensor] = [repr(settings)]
    for model in models:
        parts.append(repr(model))
        for name, tensor in model.state_dict().items():
            parts += [name, *_parts(tensor)]
    return digest(*parts, *(part for tensor in tensors for part in _parts(tensor)))


def _parts(tensor: object) -> tuple[str | Tensor, ...]:
    if isinstance(tensor, Tensor):
        return f"{tensor.dtype} {list(tensor.shape)}", tensor
    return (repr(tensor),)  # a module may keep anything as extra state
