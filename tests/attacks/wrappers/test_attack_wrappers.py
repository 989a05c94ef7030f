"""Jittered and Optimized: what they add to an attack, and what they leave to it."""

import math
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from crafting import BENIGN, OWN, VIEW, Quadratic, normal, rows_of, seeded, view_of
from torch import Tensor

from fedrobust.aggregators import Krum, Mean, Median, MultiKrum, TrimmedMean
from fedrobust.attacks import (
    ALittleIsEnough,
    Budgeted,
    GaussianNoise,
    InnerProduct,
    Jittered,
    LabelFlip,
    Learned,
    LocalModelPoisoning,
    Mimic,
    MinMax,
    Optimized,
    Poisons,
    SignFlip,
    ZeroUpdate,
    estimates,
)
from fedrobust.data import Split
from fedrobust.errors import ConfigError
from fedrobust.federation.attack import Requirements, Truth, account, requirements
from fedrobust.federation.threat import View
from fedrobust.typing import Updates


@dataclass(frozen=True)
class Counting:
    """A user's own attack with a state that it changes in place."""

    strength: float
    steps: int = 3
    name: str = "counting"

    def init(self) -> list[float]:
        return []

    def craft(self, state: Any, view: View, rng: torch.Generator) -> tuple[Updates, Any]:
        state.append(self.strength)
        return self.strength * torch.ones_like(view.own), state


def test_jitter_is_as_long_as_its_share_of_the_row_and_new_for_each() -> None:
    view = view_of(normal(5, 400))
    plain = rows_of(InnerProduct(epsilon=2.0), view)
    noise = rows_of(Jittered(InnerProduct(epsilon=2.0), radius=0.25), view) - plain
    torch.testing.assert_close(noise.norm(dim=1), 0.25 * plain.norm(dim=1))
    assert torch.corrcoef(noise).triu(1).abs().max() < 0.2
    assert noise.mean(dim=1).abs().max() < 0.2 * noise.std()
    assert torch.equal(rows_of(Jittered(ZeroUpdate(), radius=0.1), view), torch.zeros(5, 400))


def test_jitter_points_everywhere() -> None:
    own = torch.ones(20_000, 2, dtype=torch.float64)
    noise = rows_of(Jittered(SignFlip(), radius=1.0), view_of(own)) + own
    angles = torch.atan2(noise[:, 1], noise[:, 0])
    counts = torch.histc(angles, bins=8, min=-math.pi, max=math.pi)
    assert (counts - 2500).abs().max() < 200


def test_a_wrapper_requires_what_it_wraps_requires() -> None:
    for inner in (ALittleIsEnough(k="max"), Mimic(), ZeroUpdate(), LocalModelPoisoning("krum")):
        mine, its = requirements(Jittered(inner, radius=0.1)), requirements(inner)
        assert mine == replace(its, poisons_data=False)
    own = Optimized(Counting(1.0))
    assert own.init() == []
    asked = own.requires
    assert asked.knowledge == {"colluders", "rule", "clients"}
    assert (asked.min_colluders, asked.uses_honest_updates) == (2, True)
    krum = Optimized(LocalModelPoisoning("krum"), parameter="b", low=2.0)
    assert krum.requires.min_colluders == 3
    assert Jittered(own, radius=0.1).requires.knowledge == asked.knowledge


def test_a_wrapper_poisons_where_what_it_wraps_does() -> None:
    x, y = torch.rand(3, 2), torch.tensor([0, 1, 2])
    for wrapped, expected in [(LabelFlip(), [3, 2, 1]), (SignFlip(), [0, 1, 2])]:
        attack = Jittered(wrapped, radius=0.1)
        assert isinstance(attack, Poisons)
        assert attack.poison(x, y, 4)[1].tolist() == expected
    assert Optimized(SignFlip()).poison(x, y, 4)[1].tolist() == [0, 1, 2]


def test_poisoned_training_gives_no_budget() -> None:
    """The update of a client that trains on poisoned data may be a thousand times too long."""
    for attack in (LabelFlip(), Jittered(LabelFlip(), radius=0.1)):
        with pytest.raises(ValueError, match=r"poisons the data .* no honest update"):
            Budgeted(attack, budget=1.0)


def test_a_learned_attack_has_its_budget_in_its_encoding() -> None:
    class Own:
        requires = Requirements(simulates=True)

        def craft(self, state: None, view: View, rng: Any) -> tuple[Tensor, None]:
            return view.own, None

    for attack in (Learned(), Jittered(Learned(), radius=0.1), Own()):
        with pytest.raises(ValueError, match="simulates the federation without this budget"):
            Budgeted(attack, budget=1.0)


def test_wrappers_are_closed_under_wrapping() -> None:
    attack = Jittered(Optimized(Counting(-1.0), low=1.0, high=8.0), radius=0.5)
    view = view_of(OWN, BENIGN, rule=Mean())
    rows, state = attack.craft(attack.init(), view, seeded())
    assert state == [-8.0]
    assert torch.unique(rows, dim=0).shape == (3, 3)


SEEN = view_of(normal(3, 20), normal(10, 20, seed=1) + 0.5)


def harm(rule: Any, rows: Tensor, objective: str = "distance") -> float:
    assert SEEN.benign is not None
    mean = SEEN.benign.mean(dim=0)
    answer = rule(torch.cat([rows, SEEN.benign]))
    if objective == "distance":
        return math.dist(answer.tolist(), mean.tolist())
    return -math.fsum((answer * mean).tolist()) / math.hypot(*mean.tolist())


@pytest.mark.parametrize("objective", ["distance", "direction"])
@pytest.mark.parametrize("rule", [Median(), TrimmedMean(f=3), Krum(f=3), MultiKrum(f=3)])
@pytest.mark.parametrize("inner", [ALittleIsEnough(k=-1.0), InnerProduct(epsilon=1.0), SignFlip()])
def test_no_value_of_the_grid_does_more_harm(inner: Any, rule: Any, objective: Any) -> None:
    view = replace(SEEN, rule=rule)
    attack = Optimized(inner, objective=objective)
    found = harm(rule, rows_of(attack, view), objective)
    field = "k" if hasattr(inner, "k") else "epsilon" if hasattr(inner, "epsilon") else "scale"
    for step in range(9):
        value = math.copysign(10 ** (-2 + step / 2), getattr(inner, field))
        tried = harm(rule, rows_of(replace(inner, **{field: value}), view), objective)
        assert tried <= found + 1e-12


def test_the_mean_is_hit_as_hard_as_allowed_and_krum_where_it_looks() -> None:
    rows = rows_of(Optimized(InnerProduct(epsilon=1.0), high=7.0), replace(SEEN, rule=Mean()))
    torch.testing.assert_close(rows, rows_of(InnerProduct(epsilon=7.0), SEEN))
    rows = rows_of(Optimized(InnerProduct(epsilon=1.0)), replace(SEEN, rule=Krum(f=3)))
    assert SEEN.benign is not None
    assert torch.equal(Krum(f=3)(torch.cat([rows, SEEN.benign])), rows[0])


def test_golden_section_finds_a_peak_between_the_values_of_the_grid() -> None:
    """A rule that answers with t·exp(-t), t the first entry: the peak is at t = 1."""

    def peaked(rows: Tensor) -> Tensor:
        return rows[0] * torch.exp(-rows[0, 0])

    view = view_of(OWN, torch.zeros(4, 3, dtype=torch.float64), rule=peaked)
    values = []
    for refine in (0, 4, 8, 30):
        attack = Optimized(Counting(2.0), low=0.03, high=50.0, grid=7, refine=refine)
        values.append(abs(float(rows_of(attack, view)[0, 0]) - 1))
    assert values[0] > 0.1
    assert values[1] < 0.1
    assert values[2] < 0.02
    assert values[3] < 1e-6


@pytest.mark.parametrize(("grid", "refine"), [(2, 0), (2, 1), (5, 2), (9, 7)])
def test_each_value_costs_one_call_of_the_rule(grid: int, refine: int) -> None:
    calls: list[int] = []

    def rule(rows: Tensor) -> Tensor:
        calls.append(len(rows))
        return rows.mean(dim=0)

    attack = Optimized(SignFlip(), grid=grid, refine=refine)
    rows_of(attack, replace(SEEN, rule=rule))
    assert calls == [13] * (grid + refine)


def test_all_values_see_the_same_draws() -> None:
    own = view_of(normal(3, 20), normal(10, 20, seed=1), rule=Mean())
    rows = rows_of(Optimized(GaussianNoise(scale=1.0), high=10.0), own, seed=5)
    torch.testing.assert_close(rows, rows_of(GaussianNoise(scale=10.0), own, seed=5))


def test_the_state_is_that_of_the_value_played() -> None:
    view = view_of(OWN, BENIGN, rule=Median())
    attack, before = Optimized(Counting(-1.0), low=0.1, high=30.0), [7.0]
    rows, after = attack.craft(before, view, seeded())
    assert before == [7.0]
    assert after == [7.0, float(rows[0, 0])]


def test_rows_that_overflow_are_not_played() -> None:
    huge = view_of(1e35 * OWN.float(), 1e35 * BENIGN.float(), rule=Mean())
    rows = rows_of(Optimized(SignFlip(), low=1e-3, high=1e30), huge)
    assert torch.isfinite(rows).all()


def test_benign_rows_that_are_not_seen_are_simulated() -> None:
    """The colluders' own first; then draws with their mean and their unbiased deviation."""
    own = normal(4, 30_000) * 2 + 3
    rows = estimates.expected_benign(view_of(own), 4 + 9, seeded())
    assert rows.shape == (9, 30_000)
    assert torch.equal(rows[:4], own)
    deviation, mean = torch.std_mean(own, dim=0, correction=1)
    z = (rows[4:] - mean) / deviation
    assert float(z.mean()) == pytest.approx(0, abs=0.02)
    assert float(z.std()) == pytest.approx(1, abs=0.02)
    assert torch.equal(estimates.expected_benign(view_of(own), 6, seeded()), own[:2])
    assert torch.equal(estimates.expected_benign(view_of(own), 3, seeded()), own[:1])
    assert torch.equal(estimates.expected_benign(SEEN, 99, seeded()), estimates.honest(SEEN))

    counts = []

    def rule(rows: Tensor) -> Tensor:
        counts.append(len(rows))
        return rows.mean(dim=0)

    rows_of(Optimized(SignFlip(), grid=2, refine=0), view_of(OWN, rule=rule, clients=11))
    assert counts == [11, 11]


def test_what_it_lacks_is_named() -> None:
    attack = Optimized(SignFlip())
    with pytest.raises(ValueError, match="attack optimized needs the rule, which its view"):
        rows_of(attack, replace(VIEW, clients=9))
    with pytest.raises(ValueError, match="attack optimized needs the number of clients, which"):
        rows_of(attack, replace(VIEW, rule=Mean()))
    assert torch.equal(rows_of(attack, view_of(OWN[:1], rule=Mean(), clients=9)), OWN[:1])
    with pytest.raises(ConfigError, match=r"on the 5 rows that it expects.*Krum.*threat.clients"):
        rows_of(attack, replace(VIEW, rule=Krum(f=3), clients=5))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"attack": MinMax()},
            "set parameter to the real number of min-max to search",
        ),
        ({"attack": Mimic()}, "real number of mimic to search; it has none"),
        ({"attack": LocalModelPoisoning("krum")}, "it has b, threshold"),
        ({"attack": SignFlip(), "parameter": "k"}, "no real number 'k' to search; it has: scale"),
        ({"attack": Mimic(), "parameter": "warmup"}, "no real number 'warmup'.*it has: none"),
        ({"attack": ALittleIsEnough(k="max")}, "must be a number that is not 0.*it is 'max'"),
        ({"attack": ALittleIsEnough(k=0.0)}, "must be a number that is not 0"),
        ({"attack": SignFlip(), "low": 2.0, "high": 1.0}, "low must be below high"),
        (
            {"attack": LocalModelPoisoning("median"), "parameter": "b", "low": 0.5},
            "greater than 1",
        ),
        ({"attack": SignFlip(), "grid": 1}, "greater than or equal to 2"),
    ],
)
def test_a_search_that_makes_no_sense_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Optimized(**fields)


def test_a_users_own_attack_needs_fields_to_search() -> None:
    class Plain:
        name = "plain"

        def craft(self, state: Any, view: View, rng: torch.Generator) -> tuple[Updates, Any]:
            return view.own, state

    assert torch.equal(rows_of(Jittered(Plain(), radius=1e-9)).round(decimals=5), OWN)
    with pytest.raises(ConfigError, match="is not a dataclass"):
        Optimized(Plain())


@pytest.mark.slow
def test_does_more_harm_than_the_attack_it_wraps() -> None:
    toy = Quadratic()
    for rule in (Median(), Krum(f=3), MultiKrum(f=3)):
        fixed = toy.error(rule, InnerProduct(epsilon=3.0), knows=("benign",))
        tuned = Optimized(InnerProduct(epsilon=3.0), refine=3)
        assert toy.error(rule, tuned, knows=("benign", "rule")) >= 0.95 * fixed
    for knows in (("benign", "rule"), ("clients", "rule")):
        assert toy.error(MultiKrum(f=3), tuned, knows=knows) > 2 * toy.error(MultiKrum(f=3), None)


def test_a_budget_cuts_what_is_too_long_and_nothing_else() -> None:
    """Each row against its own honest update: one is cut, one is within, one is not finite."""

    class Given:
        requires = Requirements(knowledge={"benign"}, min_colluders=3)

        def craft(self, state: int, view: View, rng: torch.Generator) -> tuple[Tensor, int]:
            rows = torch.stack([10 * OWN[1], OWN[0] / 2, torch.full((3,), torch.inf).double()])
            return rows, (state or 0) + 1

        def report(self, state: int, truth: Truth) -> dict[str, int]:
            return {"played": state, "classes": truth.classes}

        def pictures(self, state: int, truth: Truth) -> dict[str, int]:
            return {"shown": state}

    attack = Budgeted(Given(), budget=1.5)
    rows, state = attack.craft(None, VIEW, seeded())
    torch.testing.assert_close(rows[0], 1.5 * OWN[0].norm() * OWN[1] / OWN[1].norm())
    assert torch.equal(rows[1], OWN[0] / 2)
    assert rows[2].isinf().all()
    asked = attack.requires
    assert (asked.knowledge, asked.min_colluders) == (frozenset({"benign"}), 3)
    assert asked.uses_honest_updates
    some = Split(torch.zeros(1, 1), torch.zeros(1, dtype=torch.long))
    truth = Truth(some, some, 3)
    for wrapper in (attack, Jittered(Given(), radius=0.1)):
        assert account(wrapper, "report", state, truth) == {"played": 1, "classes": 3}
        assert account(wrapper, "pictures", state, truth) == {"shown": 1}
    idle = view_of(torch.zeros(2, 3, dtype=torch.float64))
    assert not rows_of(Budgeted(GaussianNoise(scale=1.0), budget=5.0), idle).any()
