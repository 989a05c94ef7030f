"""What the simulation has answered so far, on disk, so that a killed training need not ask again.

A training asks its environments the same questions in the same order whenever it begins with the
same seed. So nothing of the learner is kept; it begins anew, and as long as it asks what was asked
before, is told what was answered then. Its own steps are repeated, the simulated rounds are not,
but for those of the episodes that were under way.
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
"""Their names."""
MOST = 1 << 28
"""Bytes of a journal, which large observations fill; what comes after that is played again."""


@dataclass(frozen=True)
class Answer:
    """What an environment says: what is seen in ``round``, after ``rounds`` simulated ones."""

    observation: Floats
    harm: float
    round: int
    rounds: int


class RolloutCache:
    """Questions and answers in their order, of all environments of one training.

    One line each, flushed at once: a kill cuts off the last line at most. From the first line on
    that is damaged, or answers another question than is asked, a journal is of no use, and is
    written anew. Where it cannot be written, a training goes on without it.

    Warns: ``RecordWarning``, once, when it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        """Go on with what is in ``path``, if it is there."""
        self._path, self._size = path, 0
        self._began, self.earlier = time.monotonic(), 0.0
        self._writing = ExitStack()
        self._file: IO[bytes] | None = None
        self._kept = _opened(path)
        self._recalls = True

    def recall(self, question: bytes) -> Answer | None:
        """What was answered, if this is the question that was asked here; else None from now on."""
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
        """Keep an answer that was not recalled."""
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
        """Nothing more is asked."""
        if self._kept is not None:
            self._kept.close()
        try:
            self._writing.close()  # which writes what could not be written before
        except WriteError as error:
            self._lose(error)

    def _lose(self, error: Exception) -> None:
        """Go on without a journal. ``error`` says why."""
        self._file = None
        with suppress(WriteError):
            self._writing.close()
        warnings.warn(
            f"cannot write {self._path}: {reason(error)}; the attacker's training goes on, but "
            "after a kill it would begin anew",
            RecordWarning,
            stacklevel=2,
        )


def _opened(path: Path) -> IO[bytes] | None:
    """What was kept before; None where there is nothing, or nothing that can be read."""
    try:
        return opened(path)
    except OSError:
        return None


@contextmanager
def journal(
    folder: Path | None, round: int, told: Sequence[object]
) -> Iterator[RolloutCache | None]:
    """The journal in ``folder`` of the training in ``round``; None without a folder.

    ``told`` is all that its answers depend on: tensors, and what prints the same in every process.
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
    """What tells a line with a bit turned over from what was written; the time is no part of it."""
    told = {key: value for key, value in content.items() if key != "seconds"}
    return digest(json.dumps(told), length=16)


def _read(line: bytes, question: bytes) -> tuple[Answer, float] | None:
    """What a line answers, and when; None where it is damaged, or answers another question."""
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
