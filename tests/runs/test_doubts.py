"""Settings that are allowed, but may be a mistake, are noted."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from fedrobust import Experiment
from fedrobust.aggregators import Bucketing, Krum, Mean, NearestNeighborMixing, TrimmedMean
from fedrobust.attacks import Budgeted, Delayed, Learned, SignFlip, ZeroUpdate
from fedrobust.federation.attack import Requirements
from fedrobust.runs.prepare import prepare


@pytest.mark.parametrize(
    ("rule", "who"),
    [
        (Krum(f=1), "the rule"),
        (Krum(f=2), None),
        (Bucketing(s=1, rule=Krum(f=1)), "krum inside it"),
        (NearestNeighborMixing(f=2, rule=TrimmedMean(f=1)), "trimmed-mean inside it"),
        (NearestNeighborMixing(f=2, rule=TrimmedMean(f=2)), None),
    ],
)
def test_more_malicious_clients_than_any_part_of_the_rule_tolerates_are_noted(
    rule: Any, who: str | None, tiny: Callable[..., Experiment]
) -> None:
    found = prepare(tiny(malicious=2, attack=SignFlip(scale=1.0), aggregator=rule)).doubts
    told = [n for n in found if "tolerates f" in n]
    assert told == ([f"2 clients are malicious, but {who} tolerates f = 1"] if who else [])


@pytest.mark.parametrize(("steps", "told"), [(3, True), (4, False)])
def test_an_attack_that_cannot_cross_its_ball_is_noted(
    steps: int, told: bool, tiny: Callable[..., Experiment]
) -> None:
    """Robust accuracy under it would look too high."""
    attack = {"name": "pgd", "norm": "linf", "eps": 0.1, "step_size": 0.025, "steps": steps}
    found = prepare(tiny(evaluation={"every": 1, "samples": 10, "attack": attack})).doubts
    assert any("goes at most 3 × 0.025 = 0.075 in a ball of 0.1" in n for n in found) == told


class Waits:
    requires = Requirements(first_round=3, latest_start=21)

    def craft(self, state: Any, view: Any, rng: Any) -> tuple[Any, Any]:
        return view.own, state


class StillLater(Waits):
    """As a wrapper that begins later than what it wraps, and says no more than that."""

    requires = replace(Waits.requires, first_round=40)


@pytest.mark.parametrize(
    ("attack", "rounds", "note"),
    [
        (Delayed(ZeroUpdate(), start=100), 100, "acts from round 100: this leaves it 1 of the 100"),
        (Delayed(ZeroUpdate(), start=91), 100, None),  # a tenth
        (Delayed(ZeroUpdate(), start=92), 100, "acts from round 92: this leaves it 9 of the 100"),
        (Learned(observe=20), 15, "may wait until round 21 before it acts, and the run ends with"),
        (Learned(observe=20), 21, "may wait until round 21: this leaves it 1 of the 21 rounds"),
        (Learned(observe=20), 30, None),
        (Budgeted(Waits(), budget=1.0), 15, "may wait until round 21 before it acts, and the run"),
        (Budgeted(Waits(), budget=0.9), 15, None),  # it cuts honest rows too
        (StillLater(), 41, "acts from round 40: this leaves it 2 of the 41 rounds"),
        (Learned(observe={"epochs": 3}), 15, None),  # how many rounds these are is not known yet
    ],
)
def test_an_attack_that_acts_in_few_rounds_or_perhaps_never_is_noted(
    attack: Any, rounds: int, note: str | None, tiny: Callable[..., Experiment]
) -> None:
    made = tiny(
        malicious=2, attack=attack, rounds=rounds, aggregator=Mean(), threat={"clients": True}
    )
    told = [n for n in prepare(made).doubts if n.startswith("the attack")]
    assert len(told) == (note is not None)
    assert not note or note in told[0]
