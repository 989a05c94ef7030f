"""An attack that is held back is nobody's before its round, and the same as ever from there on."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from crafting import OWN, rows_of, seeded, view_of
from demo import demo_config

from fedrobust.attacks import (
    ALittleIsEnough,
    Budgeted,
    Delayed,
    Distillation,
    Jittered,
    LabelFlip,
    Learned,
    Mimic,
    Shrink,
    ZeroUpdate,
)
from fedrobust.config.component import from_config
from fedrobust.errors import ConfigError
from fedrobust.experiment import Experiment
from fedrobust.federation.attack import Requirements, requirements
from fedrobust.federation.round import run_round
from fedrobust.runs.prepare import Prepared, prepare

SETTINGS: dict[str, Any] = {
    "objective": {"name": "erm"},
    "client": {"batch_size": 16, "batches": 1, "optimizer": {"name": "sgd", "lr": 0.1}},
    "malicious": 4,
}


@pytest.fixture(scope="module")
def ready() -> Prepared:
    return prepare(from_config(Experiment, demo_config(**SETTINGS)))


@pytest.mark.slow
def test_its_rounds_are_honest_before_the_start_and_the_inner_attacks_after(
    ready: Prepared,
) -> None:
    """In a federation, against one that is honest in round 3 and switches by hand in round 4."""
    held_back = replace(ready.federation, attack=Delayed(Shrink(scale=3.0), start=4))
    honest = replace(ready.federation, attack=None, malicious=frozenset())
    at_once = replace(ready.federation, attack=Shrink(scale=3.0))
    state, by_hand = held_back.start(ready.start), honest.start(ready.start)
    for number in range(1, 7):
        state, _ = run_round(state, held_back, ready.streams)
        plays = honest if number < 4 else at_once
        by_hand, _ = run_round(by_hand, plays, ready.streams)
        assert torch.equal(state.parameters, by_hand.parameters), number
    wrong, _ = run_round(held_back.start(ready.start), at_once, ready.streams)
    right, _ = run_round(held_back.start(ready.start), honest, ready.streams)
    assert not torch.equal(wrong.parameters, right.parameters), "shrink did nothing"


def test_the_inner_attacks_own_rounds_begin_at_the_start() -> None:
    attack = Delayed(Mimic(warmup=2), start=3)
    state, rng = attack.init(), seeded()
    benign = torch.randn(5, 3, generator=rng, dtype=torch.float64)
    for number, seen in ((1, 0), (2, 0), (3, 1), (4, 2)):
        view = view_of(OWN, benign, round=number)
        rows, state = attack.craft(state, view, rng)
        assert (state or {}).get("rounds", 0) == seen
        assert torch.equal(rows, OWN) == (number < 3)


def test_it_asks_for_honest_updates_only_where_they_are_sent() -> None:
    assert Delayed(ZeroUpdate(), start=2).requires.uses_honest_updates
    assert not Delayed(ZeroUpdate(), start=1).requires.uses_honest_updates
    assert Delayed(Shrink(), start=1).requires.uses_honest_updates
    within = ALittleIsEnough(k="max")
    assert Delayed(within, start=9).requires.knowledge == within.requires.knowledge
    assert not rows_of(Delayed(ZeroUpdate(), start=1)).any()
    assert torch.equal(rows_of(Delayed(ZeroUpdate(), start=2)), OWN)


@pytest.mark.parametrize("start", [0, -1, 1.5])
def test_a_start_is_a_round(start: Any) -> None:
    with pytest.raises(ValueError, match="start"):
        Delayed(Shrink(), start=start)


@pytest.mark.parametrize(
    ("inner", "field"),
    [(Learned(), "wait"), (Distillation(), "start"), (Delayed(Shrink(), start=2), "start")],
    ids=["learned", "distillation", "delayed"],
)
def test_what_has_a_start_of_its_own_is_delayed_by_that(inner: Any, field: str) -> None:
    """A learned attack takes the rounds that it has not met for such that it was not drawn in."""
    for attack in (inner, Jittered(inner, radius=2.0)):
        with pytest.raises(ValueError, match=f"has its own start: set its {field}"):
            Delayed(attack, start=5)


def test_what_poisons_data_cannot_be_held_back(tiny: Callable[..., Experiment]) -> None:
    with pytest.raises(ValueError, match="label-flip poisons the data of every round"):
        Delayed(LabelFlip(), start=2)
    flips = {"name": "jittered", "radius": 1.0, "attack": {"name": "label-flip"}}
    with pytest.raises(ConfigError, match="attack: jittered poisons the data of every round"):
        tiny(malicious=1, attack={"name": "delayed", "start": 2, "attack": flips})


@pytest.mark.parametrize(
    ("attack", "begins"),
    [
        (Shrink(), 1),
        (Delayed(Shrink(), start=7), 7),
        (Distillation(start=9), 9),
        (Budgeted(Delayed(Shrink(), start=7), budget=1.0), 7),
        (Budgeted(Delayed(Shrink(), start=7), budget=0.9), 1),
        (Jittered(Delayed(Shrink(), start=7), radius=0.1), 1),
        (Learned(wait=10, observe=5), 13),
        (Learned(wait=10, observe=1), 12),
        (Learned(wait=10, observe=0), 11),
        (Learned(wait=10, observe=5, threshold=0.0), 16),
        (Learned(wait=10, observe=5, inversion=None, data="own"), 16),
    ],
    ids=str,
)
def test_a_run_that_ends_before_its_attack_begins_says_so_before_it_starts(
    attack: Any, begins: int, tiny: Callable[..., Experiment]
) -> None:
    assert requirements(attack).first_round == begins
    threat = {"clients": True}
    for rounds in (begins, begins - 1):
        settings = SETTINGS | {"attack": attack, "rounds": max(rounds, 1), "threat": threat}
        notes = prepare(tiny(**settings)).doubts
        never = f"the attack cannot act before round {begins}, and the run ends with round {rounds}"
        assert (f"{never}: nobody attacks" in notes) == (1 <= rounds < begins)


def test_a_users_own_attack_may_declare_its_first_round(tiny: Callable[..., Experiment]) -> None:
    class Own:
        requires = Requirements(first_round=5)

        def craft(self, state: None, view: Any, rng: Any) -> tuple[torch.Tensor, None]:
            return view.own, None

    notes = prepare(tiny(**SETTINGS | {"attack": Own(), "rounds": 4})).doubts
    assert (
        "the attack cannot act before round 5, and the run ends with round 4: nobody attacks"
        in (notes)
    )


def test_an_own_attack_that_cannot_say_what_it_requires_is_named() -> None:
    class Failing:
        @property
        def requires(self) -> Requirements:
            raise KeyError("boom")

        def craft(self, state: None, view: Any, rng: Any) -> tuple[torch.Tensor, None]:
            return view.own, None

    with pytest.raises(ValueError, match="the attack, asked what it needs, failed: KeyError"):
        Delayed(Failing(), start=3)
