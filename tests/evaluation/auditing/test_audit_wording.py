"""An audit in words: what was tried, what was found and what it means, whichever way it goes."""

import pytest

from fedrobust.evaluation.auditing import wording
from fedrobust.evaluation.auditing.indicators import (
    AT_CHANCE,
    BATTERY,
    LIMITS,
    OVERSTATED,
    Indicator,
)


def sign(name: str, value: float, half: float = 0.03) -> Indicator:
    return Indicator(name, value, value - half, value + half, value - 1.4 * half)


def told(one: Indicator, claimed: float = 0.5) -> str:
    return " ".join(" ".join(wording.lines(one, claimed)).split())


def test_every_sign_has_its_words() -> None:
    assert wording.CHECKS.keys() == LIMITS.keys()
    assert len({check.title for check in wording.CHECKS.values()}) == len(LIMITS)


def test_an_attack_that_finds_less_is_told_as_such() -> None:
    """Not as "noise beats plain PGD: -28.6 %", which a reader takes for the opposite."""
    assert told(sign("noise beats plain PGD", -0.286)) == (
        "passed Ten random points of the ball: 28.6 points fewer broken than by plain PGD (-31.6 "
        "to -25.6); allowed: +5 points. Random points find no more than plain PGD."
    )
    assert told(sign("noise beats plain PGD", 0.286)) == (
        "masked Ten random points of the ball: 28.6 points more broken than by plain PGD (+25.6 "
        "to +31.6); allowed: +5 points. Even random points find what plain PGD misses: the "
        "gradient misleads."
    )
    assert "as many broken as by plain PGD" in told(sign("noise beats plain PGD", 0.0))
    little = told(sign("noise beats plain PGD", 0.015))
    assert "1.5 points more broken" in little
    assert little.endswith("Honest models show as much.")


@pytest.mark.parametrize("name", LIMITS)
def test_each_result_has_its_own_meaning(name: str) -> None:
    check = wording.CHECKS[name]
    low, high = sign(name, -1.0 if check.paired else 0.0, 0.0), sign(name, 1.0, 0.0)
    limit = sign(name, LIMITS[name], 0.02)
    assert wording.meaning(low, 0.5) == check.passed
    assert wording.meaning(high, 0.5) == check.failed
    assert "more examples must decide" in wording.meaning(limit, 0.5)
    assert told(low).startswith("passed ")
    words = {OVERSTATED: "too high ", BATTERY: "too high ", AT_CHANCE: "at chance "}
    assert told(high).startswith(words.get(name, "masked "))
    assert told(limit).startswith("unsure ")
    for one in (low, high, limit):
        assert all(len(line) <= 96 for line in wording.lines(one, 0.5))
        assert "{}" not in told(one)


@pytest.mark.parametrize("name", LIMITS)
def test_a_check_of_a_model_that_claims_nothing_has_passed_nothing(name: str) -> None:
    """But what a check finds, and what more examples must decide, is told as ever."""
    low, high = sign(name, 0.0, 0.0), sign(name, 1.0, 0.0)
    own = name in ("the gradient is 0", AT_CHANCE)  # these do not need examples that withstand PGD
    said = told(low, claimed=0.0)
    assert said.startswith("passed " if own else "no claim ")
    assert said.endswith(
        wording.CHECKS[name].passed
        if own
        else "The model claims no robustness: plain PGD left no example that could be refuted."
    )
    assert told(high, claimed=0.0) == told(high)
    limit = sign(name, LIMITS[name], 0.02)
    assert told(limit, claimed=0.0) == told(limit)


def test_the_settings_are_words() -> None:
    given: dict[str, str | float | int] = {
        "eps": 8 / 255,
        "norm": "linf",
        "budget": "quick",
        "claim": "PGD 40 x 0.01, restarts 1",
        "surrogates": 0,
        "examples": 1000,
        "one answer": 0.1028,
        "batch_size": 256,
        "seed": 0,
    }
    assert wording.settings(given) == (
        "1,000 test examples; eps 0.03137 in linf; budget quick; claim PGD 40 x 0.01, restarts 1; "
        "surrogates 0; seed 0; 10.3 % have the commonest label"
    )
    assert wording.settings({"budget": "full"}) == "budget full"  # records of earlier versions
