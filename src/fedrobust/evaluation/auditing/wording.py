"""An audit in words: of each check what was tried, what was found, and what it means.

The names of the signs, which stored audits hold, are statements that a model fails. A reader who
sees such a name beside a good result reads it backwards. These words say what happened.
"""

import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from fedrobust.evaluation.auditing.indicators import AT_CHANCE, BATTERY, OVERSTATED, Indicator

RESULTS = {
    "fine": "passed",
    "masked": "masked",
    "unsure": "unsure",
    "too high": "too high",
    "at chance": "at chance",
}
"""The word for each result of a check, by the word of the record."""
SHARES = {
    "clean": "Accuracy on clean examples",
    "claimed": "The claim: accuracy under plain PGD",
    "robust": "Robust: accuracy under all attacks",
}
_NO_CLAIM = "no claim"
_NOTHING = "The model claims no robustness: plain PGD left no example that could be refuted."
_UNSURE = "The interval contains what is allowed: more examples must decide."
_WITHIN = "Honest models show as much."
_WIDTH = 96
_TOLD = ("examples", "eps", "norm", "batch_size", "seed", "one answer")
"""The settings that have words of their own, or that change no result."""


@dataclass(frozen=True)
class Check:
    """The words of one check. ``paired`` says that it compares an attack with plain PGD.

    ``refutes``: it is about examples that plain PGD left standing. Where plain PGD left none, no
    result of it is worth anything.
    """

    title: str
    tried: str
    passed: str
    failed: str
    found: str
    paired: bool = False
    refutes: bool = True


def _compared(title: str, tried: str, passed: str, failed: str) -> Check:
    return Check(title, tried, passed, failed, "", paired=True)


CHECKS: Mapping[str, Check] = {
    "rescaled PGD beats plain PGD": _compared(
        "rescaled logits",
        "PGD on logits scaled such that the loss has a gradient",
        "Scaled logits do not help PGD.",
        "Large logits leave the loss without a gradient, so plain PGD has nothing to follow.",
    ),
    "Square beats plain PGD": _compared(
        "search without gradients",
        "Square, a random search that sees the answers only",
        "A search without gradients finds no more than plain PGD.",
        "A search without gradients finds what plain PGD misses: the gradient misleads.",
    ),
    "noise beats plain PGD": _compared(
        "random points",
        "ten random points of the ball",
        "Random points find no more than plain PGD.",
        "Even random points find what plain PGD misses: the gradient misleads.",
    ),
    "one step beats plain PGD": _compared(
        "one step",
        "one step along the gradient instead of many",
        "One step finds no more than many.",
        "One step does better than many: going on along the gradient leads back.",
    ),
    "transfer beats plain PGD": _compared(
        "other networks",
        "adversarial examples made on other networks",
        "Examples from other networks break no more than plain PGD.",
        "The gradients of other networks are a better guide than the model's own.",
    ),
    "the gradient is 0": Check(
        "gradient at the image",
        "the gradient of the loss at each clean example",
        "Plain PGD has a direction to go in.",
        "Plain PGD has no direction to go in.",
        "no direction on {} of the examples",
        refutes=False,
    ),
    "more steps take more": Check(
        "more steps",
        "plain PGD with 400 steps on what withstands 100",
        "100 steps find nearly all that plain PGD can find.",
        "Plain PGD needs more steps than it was given.",
        "a further {} of the examples broken",
    ),
    "restarts take more": Check(
        "more starts",
        "plain PGD from 40 random starts on what withstands one",
        "One start finds nearly all that plain PGD can find.",
        "Plain PGD ends in another place from each start: the loss is rough.",
        "a further {} of the examples broken",
    ),
    BATTERY: Check(
        "all other attacks",
        "every other attack on what withstands plain PGD of 100 steps",
        "Plain PGD finds nearly all that can be found.",
        "Plain PGD misses much of what can be found.",
        "a further {} of the examples broken",
    ),
    "survives the largest ball": Check(
        "the largest ball",
        "plain PGD in a ball that holds every image",
        "Plain PGD works on this model.",
        "No model can withstand this, so plain PGD does not work on this model.",
        "{} of the examples still stand",
    ),
    AT_CHANCE: Check(
        "one answer to everything",
        "the commonest label as the answer to everything",
        "The model does better than one answer.",
        "Labels or pixels may not be those that the model was trained on.",
        "right on {} more of the examples than the model",
        refutes=False,
    ),
    OVERSTATED: Check(
        "size of the claim",
        "all attacks on the examples that the claim counts",
        "The claim is less than a third too high. Quote the robust figure.",
        "The claim does not hold. If all other checks passed, its attack was merely too weak.",
        "{} of them broken",
    ),
}
"""The words of every check, by the name of its sign."""


def found(sign: Indicator) -> str:
    """Say what a check found, with its 95 % interval.

    An example is ``7.0 points fewer broken than by plain PGD (-9.3 to -4.6)``. Points are
    percentage points of all examples.
    """
    check = CHECKS[sign.name]
    low, high = sorted((100 * sign.low, 100 * sign.high))
    if not check.paired:
        return f"{check.found.format(f'{100 * sign.value:.1f} %')} ({low:.1f} to {high:.1f})"
    size = f"{abs(100 * sign.value):.1f}"
    way = "fewer" if sign.value < 0 else "more"
    if size == "0.0":
        return f"as many broken as by plain PGD ({low:+.1f} to {high:+.1f})"
    return f"{size} points {way} broken than by plain PGD ({low:+.1f} to {high:+.1f})"


def allowed(sign: Indicator) -> str:
    """Say up to where an honest model may go."""
    limit = f"{100 * sign.limit:.3g}"
    return f"+{limit} points" if CHECKS[sign.name].paired else f"{limit} %"


def result(sign: Indicator, claimed: float) -> str:
    """Return the word for the result of a check of a model with this ``claimed`` accuracy."""
    if not claimed and sign.word == "fine" and CHECKS[sign.name].refutes:
        return _NO_CLAIM
    return RESULTS[sign.word]


def meaning(sign: Indicator, claimed: float) -> str:
    """Say what the result of a check means."""
    if sign.word == "unsure":
        return _UNSURE
    if result(sign, claimed) == _NO_CLAIM:
        return _NOTHING
    check = CHECKS[sign.name]
    if sign.word != "fine":
        return check.failed
    return _WITHIN if check.paired and sign.value > 0 else check.passed


def lines(sign: Indicator, claimed: float) -> Iterator[str]:
    """Yield the lines of a check for a terminal: its result, what was tried and found, meaning."""
    tried, means = CHECKS[sign.name].tried, meaning(sign, claimed)
    text = f"{tried[:1].upper()}{tried[1:]}: {found(sign)}; allowed: {allowed(sign)}. {means}"
    first = f"  {result(sign, claimed):9} "
    yield from textwrap.wrap(text, _WIDTH, initial_indent=first, subsequent_indent=" " * len(first))


def settings(given: Mapping[str, str | float | int]) -> str:
    """Return the settings of an audit in one line of words."""
    told = [
        f"{given['examples']:,} test examples" if "examples" in given else "",
        f"eps {given['eps']:.4g} in {given['norm']}" if {"eps", "norm"} <= given.keys() else "",
        *(f"{name} {value}" for name, value in given.items() if name not in _TOLD),
        f"seed {given['seed']}" if "seed" in given else "",
    ]
    if isinstance(common := given.get("one answer"), float):
        told.append(f"{100 * common:.1f} % have the commonest label")
    return "; ".join(filter(None, told))
