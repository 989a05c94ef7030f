"""A journal of the simulation's answers on disk, so that a killed training can go on.

With the same seed, a training asks its environments the same questions in the same order. So
nothing of the learner is stored. After a kill the learner begins anew, and as long as it asks the
same questions as before, it gets the stored answers. The learner repeats its own steps, but the
simulated rounds are not played again, except for the rounds of the episodes that were not finished.
"""

import base64
import json
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from torch import Tensor

from fedrobust.digest import digest
from fedrobust.errors import RecordWarning, WriteError
from fedrobust.files import appending, opened, reason
from fedrobust.typing import Floats

JOURNALS = "learning-*.jsonl"
"""The file names of the journals."""
MOST = 1 << 28
"""The most bytes of a journal; answers beyond that are simulated again after a kill."""


@dataclass(frozen=True)
class Answer:
    """An answer of an environment: what is seen in ``round``, after ``rounds`` simulated rounds."""

    observation: Floats
    harm: float
    round: int
    rounds: int


class RolloutCache:
    """The questions and answers of all environments of one training, in their order.

    Each is one line, flushed at once, so a kill cuts off at most the last line. From the first line
    on that is damaged, or answers another question, the journal is useless and is written anew.
    Where it cannot be written, the training goes on without it.

    Warns: ``RecordWarning``, once, where it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        """Open the journal at ``path`` and read it if it exists."""
        self._path, self._size = path, 0
        self._began, self.earlier = time.monotonic(), 0.0
        self._writing = ExitStack()
        self._file: IO[bytes] | None = None
        self._kept = _opened(path)
        self._recalls = True

    def recall(self, question: bytes) -> Answer | None:
        """Return the stored answer if it is to this question; otherwise None, from now on."""
        if not self._recalls:
            return None
        line = self._kept.readline() if self._kept is not None else b""
        found = _read(line, question)
        if found is not None:
            answer, self.earlier = found
            self._size += len(line)
            return answer
        if self._kept is not None:
            self._kept.close()
        self._recalls = False
        try:
            self._file = self._writing.enter_context(appending(self._path, self._size))
        except WriteError as error:
            self._lose(error)
        return None

    def note(self, question: bytes, answer: Answer) -> None:
        """Store an answer that was not recalled."""
        line = _written(question, answer, self.earlier + time.monotonic() - self._began)
        self._size += len(line)
        if self._file is None or self._size > MOST:
            return
        try:
            self._file.write(line)
            self._file.flush()
        except OSError as error:
            self._lose(error)

    def close(self) -> None:
        """Close the files: no more questions follow."""
        if self._kept is not None:
            self._kept.close()
        try:
            self._writing.close()  # this writes what could not be written before
        except WriteError as error:
            self._lose(error)

    def _lose(self, error: Exception) -> None:
        """Go on without a journal and warn, with the reason ``error``."""
        self._file = None
        with suppress(WriteError):
            self._writing.close()
        warnings.warn(
            f"cannot write {self._path}: {reason(error)}; the attacker's training goes on, but "
            "it would begin anew after a kill",
            RecordWarning,
            stacklevel=2,
        )


def _opened(path: Path) -> IO[bytes] | None:
    """Open the journal for reading; None where it does not exist or cannot be read."""
    try:
        return opened(path)
    except OSError:
        return None


@contextmanager
def journal(
    folder: Path | None, round: int, told: Sequence[object]
) -> Iterator[RolloutCache | None]:
    """Open the journal in ``folder`` for the training in ``round``; None without a folder.

    ``told`` is everything that its answers depend on: tensors, and objects that print the same in
    every process.
    """
    if folder is None:
        yield None
        return
    kept = RolloutCache(folder / JOURNALS.replace("*", f"{round}-{_digest(told)}"))
    try:
        yield kept
    finally:
        kept.close()


def _digest(told: Sequence[object]) -> str:
    parts: list[str | Tensor] = []
    for value in told:
        if isinstance(value, Tensor):
            plain = value.numpy(force=True)
            parts += [f"{plain.dtype}{plain.shape}", value, "|"]
        else:
            parts += [repr(value), "|"]
    return digest(*parts, length=16)


def _written(question: bytes, answer: Answer, seconds: float) -> bytes:
    content = {
        "asked": _asked(question),
        "seen": base64.b64encode(answer.observation.tobytes()).decode(),
        "harm": answer.harm,
        "round": answer.round,
        "rounds": answer.rounds,
        "seconds": round(seconds, 3),
    }
    return json.dumps(content | {"seal": _seal(content)}).encode() + b"\n"


def _seal(content: dict[str, object]) -> str:
    """Return a checksum that reveals a damaged line; it does not cover the time."""
    told = {key: value for key, value in content.items() if key != "seconds"}
    return digest(json.dumps(told), length=16)


def _read(line: bytes, question: bytes) -> tuple[Answer, float] | None:
    """Return a line's answer and time; None where it is damaged or answers another question."""
    if not line.endswith(b"\n"):
        return None
    try:
        content = json.loads(line)
        if content["asked"] != _asked(question) or content.pop("seal") != _seal(content):
            return None
        seen = np.frombuffer(base64.b64decode(content["seen"]), dtype=np.float32).copy()
        answer = Answer(seen, content["harm"], content["round"], content["rounds"])
        return answer, float(content["seconds"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _asked(question: bytes) -> str:
    return digest(question, length=32)
