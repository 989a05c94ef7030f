"""The signs of gradient masking, each with a figure, an interval and a threshold.

Plain PGD in float32 on raw logits can be fooled by logits so large that the cross-entropy has no
gradient left, by layers that let no gradient through, or by noise. Other attacks find what plain
PGD misses. How much more they find is a sign of masking. (Athalye, Carlini and Wagner, "Obfuscated
gradients give a false sense of security", ICML 2018, lists such signs; Carlini et al., "On
evaluating adversarial robustness", 2019.)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch

from fedrobust.evaluation.intervals import SIDES, Share, difference
from fedrobust.typing import Labels, Mask

Verdict: TypeAlias = Literal["genuine", "masked", "inconclusive"]

OVERSTATED = "the claim is overstated"
AT_CHANCE = "one answer beats the model"
BATTERY = "the battery beats plain PGD"
_NO_MASKING = {OVERSTATED: "too high", AT_CHANCE: "at chance", BATTERY: "too high"}
"""Signs that contradict a claim but do not show masking, and their words."""
LIMITS = {
    "rescaled PGD beats plain PGD": 0.05,
    "Square beats plain PGD": 0.10,
    "noise beats plain PGD": 0.05,
    "one step beats plain PGD": 0.05,
    "transfer beats plain PGD": 0.05,
    "the gradient is 0": 0.20,
    "more steps take more": 0.05,
    "restarts take more": 0.10,
    BATTERY: 0.15,
    "survives the largest ball": 0.05,
    OVERSTATED: 1 / 3,
    AT_CHANCE: 0.0,
}
"""The largest value of each sign on an honest model; docs/calibration.md names the models."""

_MASKED = 2.807033768343811
"""The distance of a floor in standard errors, for 0.25 %: up to ten signs share 2.5 %. It is the
normal distribution's 99.75 % point."""


@dataclass(frozen=True)
class Indicator:
    """One sign: a share of examples with its 95 % interval, and a ``floor`` below it.

    ``floor`` is the lower end at 99.75 %. If an honest model lies exactly on the limits of all nine
    signs of masking, less than 2.5 % of its audits therefore call it masked.
    """

    name: str
    value: float
    low: float
    high: float
    floor: float

    @property
    def limit(self) -> float:
        """The largest value of this sign on an honest model."""
        return LIMITS[self.name]

    @property
    def beyond(self) -> bool | None:
        """Whether the floor lies above the limit; None where the limit is within the interval."""
        if self.floor > self.limit:
            return True
        return False if self.high <= self.limit else None

    @property
    def of_masking(self) -> bool:
        """Whether this sign can show masking."""
        return self.name not in _NO_MASKING

    @property
    def word(self) -> str:
        """The sign's result in a word. A claim that is too high is wrong, but is not masking."""
        if self.beyond is None:
            return "unsure"
        return _NO_MASKING.get(self.name, "masked") if self.beyond else "fine"


def share(name: str, shows: Mask, among: Mask | None = None) -> Indicator:
    """Return the sign ``name``: the share of ``shows`` [b] in all, or in ``among``.

    The interval is Wilson's.
    """
    total = len(shows) if among is None else int(among.sum())
    if not total:
        return Indicator(name, 0.0, 0.0, 0.0, 0.0)
    found = Share(int(shows.sum()), total)
    return Indicator(name, found.value, found.low, found.high, found.interval(_MASKED)[0])


def lead(name: str, ours: Mask, plain: Mask) -> Indicator:
    """Return how many more of the same examples [b] one attack takes than plain PGD, as a share.

    It is (b − c)/n for the b examples that only this attack takes and the c that only plain PGD
    takes, with the interval of :func:`~fedrobust.evaluation.intervals.difference`.
    """
    n, b, c = len(ours), int((ours & ~plain).sum()), int((plain & ~ours).sum())
    low, high = difference(b, c, n, SIDES)
    floor, _ = difference(b, c, n, _MASKED)
    return Indicator(name, (b - c) / n, low, high, floor)


def at_chance(correct: Mask, y: Labels) -> Indicator:
    """Return by how much the constant answer with the commonest label beats the model, at least 0.

    With examples of only one class the result is 0.
    """
    common = torch.mode(y).values
    if bool((y == common).all()):
        return Indicator(AT_CHANCE, 0.0, 0.0, 0.0, 0.0)
    found = lead(AT_CHANCE, y == common, correct)
    low, high, floor = (max(0.0, end) for end in (found.low, found.high, found.floor))
    return Indicator(AT_CHANCE, max(0.0, found.value), low, high, floor)


def verdict(signs: Sequence[Indicator], steady: bool) -> Verdict:
    """Return ``masked`` on any sign, ``genuine`` if no sign is possible, else ``inconclusive``.

    A claim that is too high without any masking is ``inconclusive``: the model hides nothing, but
    the claim does not hold. The battery alone, with no single attack that stands out, shows no more
    than this: of half-trained robust networks it takes up to 25 points more than plain PGD. A model
    that is right no more often than a constant answer is
    ``inconclusive`` too: its labels may have another order than those it was trained on. A
    randomised model is never called genuine, since another draw may show something else.
    """
    if any(sign.beyond for sign in signs if sign.name not in _NO_MASKING):
        return "masked"
    if steady and all(sign.beyond is False for sign in signs):
        return "genuine"
    return "inconclusive"
