"""A number from 0 to 1 that may change from round to round."""

from itertools import pairwise
from typing import Annotated

from pydantic import AfterValidator, Discriminator, Tag

from fedrobust.config.component import component
from fedrobust.config.scalars import Count, Fraction


@component
class Phase:
    """One phase of a schedule: ``value`` up to round ``until``, included; the last has no end."""

    value: Fraction
    until: Count | None = None


def _phases(given: float | tuple[Phase, ...]) -> float | tuple[Phase, ...]:
    if isinstance(given, tuple):
        ends = [phase.until for phase in given]
        bounded = [end for end in ends[:-1] if end is not None]
        rising = all(a < b for a, b in pairwise(bounded))
        if not ends or ends[-1] is not None or len(bounded) < len(ends) - 1 or not rising:
            raise ValueError(
                "every phase but the last needs an until, ascending; the last phase has none"
            )
    return given


def _form(given: object) -> str:
    return "schedule" if isinstance(given, list | tuple) else "number"


ByRound = Annotated[
    Annotated[Fraction, Tag("number")] | Annotated[tuple[Phase, ...], Tag("schedule")],
    Discriminator(_form),
    AfterValidator(_phases),
]
"""A number, or a schedule: ``[{value: 0.1, until: 200}, {value: 0.8}]`` means 0.1 in rounds 1 to
200 and 0.8 from 201 on."""


def in_round(value: float | tuple[Phase, ...], round: int) -> float:
    """Return the number in ``round``, which counts from 1."""
    if not isinstance(value, tuple):
        return value
    return next(p.value for p in value if p.until is None or round <= p.until)
