"""Settings that are allowed, but may be a mistake, are noted."""

from collections.abc import Callable
from typing import Any

import pytest

from fedrobust import Experiment
from fedrobust.aggregators import Bucketing, Krum, NearestNeighborMixing, TrimmedMean
from fedrobust.attacks import SignFlip
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
    found = prepare(tiny(malicious=2, attack=SignFlip(scale=1.0), aggregator=rule)).notes
    told = [n for n in found if "tolerates f" in n]
    assert told == ([f"2 clients are malicious, but {who} tolerates f = 1"] if who else [])


@pytest.mark.parametrize(("steps", "told"), [(3, True), (4, False)])
def test_an_attack_that_cannot_cross_its_ball_is_noted(
    steps: int, told: bool, tiny: Callable[..., Experiment]
) -> None:
    """Robust accuracy under it would look too high."""
    attack = {"name": "pgd", "norm": "linf", "eps": 0.1, "step_size": 0.025, "steps": steps}
    found = prepare(tiny(evaluation={"every": 1, "samples": 10, "attack": attack})).notes
    assert any("goes at most 3 × 0.025 = 0.075 in a ball of 0.1" in n for n in found) == told
