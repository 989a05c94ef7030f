"""The signs of gradient masking: each a question with a figure, an interval and a threshold.

Plain PGD in float32 on raw logits can be fooled: by logits so large that the cross-entropy has no
gradient left, by layers that let none through, by noise. What it misses, others find, and how much
they find is what tells. (Athalye, Carlini and Wagner, "Obfuscated gradients give a false sense of
security", ICML 2018, lists such signs; Carlini et al., "On evaluating adversarial robustness",
2019.)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from scipy.stats import norm

from fedrobust.evaluation.intervals import SIDES, Share, difference
from fedrobust.typing import Labels, Mask

Verdict: TypeAlias = Literal["genuine", "masked", "inconclusive"]

OVERSTATED = "the claim is overstated"
AT_CHANCE = "one answer beats the model"
_NO_MASKING = {OVERSTATED: "too high", AT_CHANCE: "at chance"}
"""Signs against a claim that are none of masking, and what they say."""
LIMITS = {
    "rescaled PGD beats plain PGD": 0.05,
    "Square beats plain PGD": 0.10,
    "noise beats plain PGD": 0.05,
    "one step beats plain PGD": 0.05,
    "transfer beats plain PGD": 0.05,
    "the gradient is 0": 0.20,
    "more steps take more": 0.05,
    "restarts take more": 0.10,
    "the battery beats plain PGD": 0.15,
    "survives the largest ball": 0.05,
    OVERSTATED: 1 / 3,
    AT_CHANCE: 0.0,
}
"""The most of each sign that an honest model shows; docs/calibration.md says on which models."""

_MASKED = float(norm.ppf(0.9975))
"""Standard errors of a floor: ten signs share 2.5 %."""


@dataclass(frozen=True)
class Indicator:
    """One test: a share of examples with its 95 % interval, and the ``floor`` that it lies above.

    ``floor`` is the lower end at 99.75 %, so that ten signs together call an honest model that lies
    on all of its limits masked in 2.5 % of audits.
    """

    name: str
    value: float
    low: float
    high: float
    floor: float

    @property
    def limit(self) -> float:
        """The most that an honest model shows."""
        return LIMITS[self.name]

    @property
    def beyond(self) -> bool | None:
        """Whether the floor lies above the limit; None where the limit lies within."""
        if self.floor > self.limit:
            return True
        return False if self.high <= self.limit else None

    @property
    def word(self) -> str:
        """What the sign says. A claim that is too high is no masking, and not true either."""
        if self.beyond is None:
            return "unsure"
        return _NO_MASKING.get(self.name, "masked") if self.beyond else "fine"

    def __str__(self) -> str:
        figure = f"{100 * self.value:.1f} % ({100 * self.low:.1f} to {100 * self.high:.1f})"
        return f"{self.word:8} {self.name}: {figure}, limit {100 * self.limit:.3g} %"


def share(name: str, shows: Mask, among: Mask | None = None) -> Indicator:
    """The sign ``name`` where ``shows`` [b], of all or of those ``among``, by Wilson's interval."""
    total = len(shows) if among is None else int(among.sum())
    if not total:
        return Indicator(name, 0.0, 0.0, 0.0, 0.0)
    found = Share(int(shows.sum()), total)
    return Indicator(name, found.value, found.low, found.high, found.interval(_MASKED)[0])


def lead(name: str, ours: Mask, plain: Mask) -> Indicator:
    """By how much more examples one attack fells than plain PGD does, of the same [b].

    (b − c)/n for the b that it alone fells and the c that plain PGD alone fells, with the interval
    of :func:`~fedrobust.evaluation.intervals.difference`.
    """
    n, b, c = len(ours), int((ours & ~plain).sum()), int((plain & ~ours).sum())
    low, high = difference(b, c, n, SIDES)
    floor, _ = difference(b, c, n, _MASKED)
    return Indicator(name, (b - c) / n, low, high, floor)


def at_chance(correct: Mask, y: Labels) -> Indicator:
    """By how much one answer to everything, the commonest label, beats the model; 0 for less.

    With examples of one class alone there is no chance to beat.
    """
    common = torch.mode(y).values
    if bool((y == common).all()):
        return Indicator(AT_CHANCE, 0.0, 0.0, 0.0, 0.0)
    found = lead(AT_CHANCE, y == common, correct)
    low, high, floor = (max(0.0, end) for end in (found.low, found.high, found.floor))
    return Indicator(AT_CHANCE, max(0.0, found.value), low, high, floor)


def verdict(signs: Sequence[Indicator], steady: bool) -> Verdict:
    """``masked`` on any sign, ``genuine`` where none can be, else ``inconclusive``.

    A claim that is too high without any masking is ``inconclusive``: the model hides nothing, and
    the claim does not hold. So is one about a model that is right no more often than one answer to
    everything: its labels may be of another order than those it was trained on. A randomised model
    is never called genuine: what one draw shows, another may not.
    """
    if any(sign.beyond for sign in signs if sign.name not in _NO_MASKING):
        return "masked"
    if steady and all(sign.beyond is False for sign in signs):
        return "genuine"
    return "inconclusive"
