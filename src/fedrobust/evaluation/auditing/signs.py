"""The signs of gradient masking: each a question with a figure, an interval and a threshold.

Plain PGD in float32 on raw logits can be fooled: by logits so large that the cross-entropy has no
gradient left, by layers that let none through, by noise. What it misses, others find, and how much
they find is what tells. (Athalye, Carlini and Wagner, "Obfuscated gradients give a false sense of
security", ICML 2018, lists such signs; Carlini et al., "On evaluating adversarial robustness",
2019.)
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from fedrobust.evaluation.auditing.result import Share
from fedrobust.typing import Mask

Verdict: TypeAlias = Literal["genuine", "masked", "inconclusive"]

LIMITS = {
    "rescaled PGD beats plain PGD": 0.05,
    "Square beats plain PGD": 0.10,
    "noise beats plain PGD": 0.05,
    "one step beats plain PGD": 0.05,
    "transfer beats plain PGD": 0.10,
    "the gradient is 0": 0.20,
    "more steps take more": 0.05,
    "restarts take more": 0.10,
    "the battery beats plain PGD": 0.20,
    "survives the largest ball": 0.05,
}
"""How much of each sign is masking."""


@dataclass(frozen=True)
class Sign:
    """One test: a share of the examples with its 95 % interval; above ``limit`` it is masking."""

    name: str
    value: float
    low: float
    high: float

    @property
    def limit(self) -> float:
        """The most that an honest model shows."""
        return LIMITS[self.name]

    @property
    def masked(self) -> bool | None:
        """Whether the whole interval lies above the limit; None where the limit lies within."""
        if self.low > self.limit:
            return True
        return False if self.high <= self.limit else None

    def __str__(self) -> str:
        word = {True: "masked", False: "fine", None: "unsure"}[self.masked]
        figure = f"{100 * self.value:.1f} % ({100 * self.low:.1f} to {100 * self.high:.1f})"
        return f"{word:8} {self.name}: {figure}, limit {100 * self.limit:g} %"


def share(name: str, shows: Mask) -> Sign:
    """The sign ``name`` where ``shows`` [b], with Wilson's interval."""
    found = Share(int(shows.sum()), len(shows))
    return Sign(name, found.value, found.low, found.high)


def lead(name: str, ours: Mask, plain: Mask) -> Sign:
    """By how much more examples one attack fells than plain PGD does, of the same [b].

    (b − c)/n for the b that it alone fells and the c that plain PGD alone fells, with the interval
    of Agresti and Min, "Simple improved confidence intervals for comparing matched proportions",
    Statistics in Medicine 2005: half an example is added to each of the four cells.
    """
    n, b, c = len(ours), int((ours & ~plain).sum()), int((plain & ~ours).sum())
    m, up, down = n + 2, b + 0.5, c + 0.5
    middle = (up - down) / m
    half = 1.959964 * math.sqrt((up + down) - (up - down) ** 2 / m) / m
    return Sign(name, (b - c) / n, middle - half, middle + half)


def verdict(signs: Sequence[Sign], steady: bool) -> Verdict:
    """``masked`` on any sign, ``genuine`` where none can be, else ``inconclusive``.

    A randomised model is never called genuine: what one draw shows, another may not.
    """
    if any(sign.masked for sign in signs):
        return "masked"
    if steady and all(sign.masked is False for sign in signs):
        return "genuine"
    return "inconclusive"
