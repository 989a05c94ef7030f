"""Where the time of a run goes."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Literal

from fedrobust.records.reading import shaped
from fedrobust.records.schema import run as schema
from fedrobust.typing import Json


@dataclass
class Times:
    """The seconds that each part of a run took. ``evaluations`` are without their ``audits``."""

    rounds: float = 0.0
    evaluations: float = 0.0
    audits: float = 0.0

    @contextmanager
    def spent_on(self, part: Literal["rounds", "evaluations", "audits"]) -> Iterator[None]:
        """Add the time that is spent within to a part of the run."""
        start = time.monotonic()
        yield
        setattr(self, part, getattr(self, part) + time.monotonic() - start)

    @classmethod
    def stored(cls, content: Json) -> "Times":
        """Return the times in a checkpoint; one of an earlier version has none.

        Raises: ``ValueError`` that names what is wrong.
        """
        if "times" not in content:
            return cls()
        found = shaped(schema.Times, content["times"])
        return cls(*(part.seconds for part in (found.rounds, found.evaluations, found.audits)))

    def record(self) -> Json:
        """Return this as summary.json and a checkpoint hold it."""
        return {part: {"seconds": round(spent, 3)} for part, spent in asdict(self).items()}
