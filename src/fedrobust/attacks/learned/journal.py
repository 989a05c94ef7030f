"""What the simulation has answered so far, on disk: a killed training plays no round twice.

A training asks its environments the same questions in the same order whenever it begins with the
same seed. So nothing of the learner is kept; it begins anew, and as long as it asks what was asked
before, is told what was answered then. Only the learner's own steps are repeated.
"""

import base64
import json
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from fedrobust.attacks.learned.encoding import Observation
from fedrobust.typing import Vector

JOURNALS = "learning-*.jsonl"
"""Their names."""
MOST = 1 << 28
"""Bytes of a journal, which large observations fill; what comes after that is played twice."""
_FOLDER: ContextVar[Path | None] = ContextVar("folder", default=None)


@dataclass(frozen=True)
class Answer:
    """What an environment says: what is seen in ``round``, after ``rounds`` simulated ones."""

    observation: Observation
    harm: float
    round: int
    rounds: int


class Journal:
    """Questions and answers in their order, of all environments of one training.

    One line each, flushed at once: a kill cuts off the last line at most. Where another question is
    asked than then, what was answered from there on is of no use, and is overwritten.
    """

    def __init__(self, path: Path) -> None:
        """Go on with what is in ``path``, if it is there."""
        self._path, self._size = path, 0
        path.touch()
        self._file: IO[bytes] = path.open("rb")
        self._recalls = True

    def recall(self, question: bytes) -> Answer | None:
        """What was answered, if this is the question that was asked here; else None from now on."""
        if not self._recalls:
            return None
        line = self._file.readline()
        answer = _read(line, question)
        if answer is None:
            self._file.close()
            os.truncate(self._path, self._size)
            self._file, self._recalls = self._path.open("ab"), False
        else:
            self._size += len(line)
        return answer

    def note(self, question: bytes, answer: Answer) -> None:
        """Keep an answer that was not recalled."""
        line = _written(question, answer)
        self._size += len(line)
        if self._size <= MOST:
            self._file.write(line)
            self._file.flush()

    def close(self) -> None:
        """Nothing more is asked."""
        self._file.close()


@contextmanager
def journals_in(folder: Path) -> Iterator[None]:
    """Within, trainings keep their journals in ``folder``."""
    token = _FOLDER.set(folder)
    try:
        yield
    finally:
        _FOLDER.reset(token)


@contextmanager
def journal(round: int, seed: int, parameters: Vector) -> Iterator[Journal | None]:
    """That of a training that begins in ``round`` at ``parameters``; None without a folder."""
    folder = _FOLDER.get()
    if folder is None:
        yield None
        return
    begun = zlib.crc32(parameters.detach().cpu().numpy().tobytes(), seed)
    kept = Journal(folder / JOURNALS.replace("*", f"{round}-{begun:08x}"))
    try:
        yield kept
    finally:
        kept.close()


def _written(question: bytes, answer: Answer) -> bytes:
    content = {
        "asked": _text(question),
        "seen": _text(answer.observation.tobytes()),
        "harm": answer.harm,
        "round": answer.round,
        "rounds": answer.rounds,
    }
    return json.dumps(content).encode() + b"\n"


def _read(line: bytes, question: bytes) -> Answer | None:
    """The answer of a line; None where it was cut off, or answers another question."""
    if not line.endswith(b"\n"):
        return None
    content = json.loads(line)
    if content["asked"] != _text(question):
        return None
    seen = np.frombuffer(base64.b64decode(content["seen"]), dtype=np.float32).copy()
    return Answer(seen, content["harm"], content["round"], content["rounds"])


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode()
