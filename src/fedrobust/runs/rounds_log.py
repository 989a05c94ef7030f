"""The log of a run's rounds, with one JSON line per round. New lines are only appended.

A run of many rounds has a long log, so no checkpoint holds it. Two files have the same content,
``rounds.jsonl`` for readers and ``checkpoint.rounds.jsonl``. If one is damaged, it is made again
from the other. The checkpoint stores their length and their digest at the time it was written.
Rounds beyond that length, which a kill left, are played again.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fedrobust.errors import RecordError, WriteError
from fedrobust.files import appending, atomically, opened
from fedrobust.records.plain import plain_json
from fedrobust.records.reading import present
from fedrobust.typing import Json

KEPT, SHOWN = "checkpoint.rounds.jsonl", "rounds.jsonl"
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Extent:
    """The number of rounds in a log, the bytes of their lines, and the digest of these bytes."""

    rounds: int = 0
    size: int = 0
    sha256: str = hashlib.sha256().hexdigest()

    def plain(self) -> Json:
        """Return this as a checkpoint holds it."""
        return asdict(self)


class RoundsLog:
    """The rounds that were played. Some of them may still wait to be written."""

    def __init__(self) -> None:
        self.extent = Extent()
        self._digest = hashlib.sha256()
        self._waiting: list[Json] = []
        self._older: bytes | None = None

    @classmethod
    def found(cls, folder: Path, extent: Extent) -> "RoundsLog":
        """Find the log in ``folder`` that a checkpoint describes. Nothing is changed.

        Raises: ``RecordError`` where neither file holds it.
        """
        log = cls()
        digests = [_digest(folder / name, extent) for name in (KEPT, SHOWN)]
        digest = next((found for found in digests if found is not None), None)
        if digest is None:
            raise RecordError(
                f"{folder / SHOWN} and {KEPT} beside it are both missing, or do not match the "
                "checkpoint: put a copy of one of them back, or start again in a new --out"
            )
        log.extent, log._digest = extent, digest
        return log

    @classmethod
    def older(cls, lines: Sequence[Json]) -> "RoundsLog":
        """Make the log of a checkpoint of an earlier version, which held all lines itself."""
        log = cls()
        log._older = as_lines(lines).encode()
        log._digest.update(log._older)
        log.extent = Extent(len(lines), len(log._older), log._digest.hexdigest())
        return log

    @property
    def of_older_checkpoint(self) -> bool:
        """Whether the checkpoint is of an earlier version, which held all lines itself."""
        return self._older is not None

    def add(self, line: Json) -> None:
        """Add the line of one more round."""
        self._waiting.append(line)

    def write(self, folder: Path, aside: Callable[[str], str]) -> list[str]:
        """Write the waiting lines to the disk. Raises: ``WriteError``; the lines then still wait.

        A file that somebody has changed meanwhile is made again as by :meth:`repair`. Returns a
        text about each such file.
        """
        said: list[str] = []
        if not self._waiting:
            return said
        text = as_lines(self._waiting).encode()
        try:
            self._append(folder, text)
        except WriteError:
            if any(_digest(folder / name, self.extent) is None for name in (KEPT, SHOWN)):
                said = self.repair(folder, False, aside)
            self._append(folder, text)
        self._digest.update(text)
        rounds, size = self.extent.rounds + len(self._waiting), self.extent.size + len(text)
        self.extent = Extent(rounds, size, self._digest.hexdigest())
        self._waiting.clear()
        return said

    def _append(self, folder: Path, text: bytes) -> None:
        for name in (KEPT, SHOWN):
            with appending(folder / name, self.extent.size) as file:
                file.write(text)

    def repair(self, folder: Path, ended: bool, aside: Callable[[str], str]) -> list[str]:
        """Make both files match the checkpoint, and return a text about each that was made again.

        ``aside`` gives a damaged file another name, and returns that name. A run that has ``ended``
        cannot have been killed amid a line, so anything after its last line is damage too.

        Raises: ``WriteError``.
        """
        said: list[str] = []
        content = self._content(folder)
        for name, other in ((KEPT, SHOWN), (SHOWN, KEPT)):
            path = folder / name
            if not content and not present(path):
                continue
            there = _beginning(path, len(content) + 1)
            if there is not None and there[: len(content)] == content:
                if len(there) == len(content):
                    continue
                if not ended:
                    with appending(path, len(content)):
                        continue
            source = "checkpoint.pt" if self._older is not None else other
            # Earlier versions wrote the log after the checkpoint, so a kill cut it off.
            begun = self._older is not None and there is not None and _is_start(there, content)
            if present(path) and not begun:
                said.append(
                    f"{name} is made again from {source}, and the old one kept as {aside(name)}: "
                    "it does not hold what the checkpoint does"
                )
            elif ended and name == SHOWN:
                said.append(f"{name} was cut off or missing, and is made again from {source}")
            atomically(path, lambda file: file.write(content))
        return said

    def _content(self, folder: Path) -> bytes:
        """Return the lines that the checkpoint describes."""
        if self._older is not None:
            return self._older
        for name in (KEPT, SHOWN):
            if _digest(folder / name, self.extent) is not None:
                return _beginning(folder / name, self.extent.size) or b""
        raise WriteError(f"{folder / KEPT} and {SHOWN} beside it were changed by somebody else")


def _is_start(there: bytes, content: bytes) -> bool:
    return content.startswith(there) and (not there or there.endswith(b"\n"))


def _beginning(path: Path, size: int) -> bytes | None:
    """Return the first ``size`` bytes of a file, or all; None where it cannot be read."""
    try:
        with opened(path) as file:
            return file.read(size)
    except OSError:
        return None


def _digest(path: Path, extent: Extent) -> Any:
    """Return a digest of the lines of ``extent``; None where ``path`` does not hold them."""
    found, left = hashlib.sha256(), extent.size
    if left:
        try:
            with opened(path) as file:
                while left and (part := file.read(min(left, _CHUNK))):
                    found.update(part)
                    left -= len(part)
        except OSError:
            return None
    return found if not left and found.hexdigest() == extent.sha256 else None


def as_lines(lines: Sequence[Json]) -> str:
    """Return one JSON object per line. Numbers that are not finite become null."""
    return "".join(f"{_as_line(line)}\n" for line in lines)


def _as_line(line: Json) -> str:
    try:
        return json.dumps(line, allow_nan=False)  # works nearly always; faster than a check first
    except (TypeError, ValueError):
        return json.dumps(plain_json(line, "")[0], allow_nan=False)
