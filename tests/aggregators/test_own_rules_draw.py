"""What a user's own rule draws, from whatever generator, is the run's."""

import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fedrobust.aggregators import (
    Bucketing,
    Median,
    NearestNeighborMixing,
)
from fedrobust.attacks import Requirements
from fedrobust.experiment import Experiment
from fedrobust.federation.round import run_round
from fedrobust.federation.threat import View
from fedrobust.runs.prepare import Prepared, prepare

BY_HAND: dict[str, Any] = {
    "objective": {"name": "erm"},
    "client": {"batch_size": 8, "batches": 1, "optimizer": {"name": "sgd", "lr": 0.1}},
    "attack": {"name": "sign-flip"},
}


@pytest.fixture
def seed() -> Iterator[Callable[[int], None]]:
    """Seeds every global generator; afterwards they are as they were."""
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()

    def to(value: int) -> None:
        random.seed(value)
        np.random.seed(value)
        torch.manual_seed(value)

    yield to
    random.setstate(before[0])
    np.random.set_state(before[1])
    torch.set_rng_state(before[2])


def where() -> tuple[Any, ...]:
    numpy: Any = np.random.get_state()
    return random.getstate(), numpy[1].tolist(), numpy[2], torch.get_rng_state().tolist()


def noisy(rows: Tensor) -> Tensor:
    """A rule that draws from every global generator."""
    return rows.mean(dim=0) * random.random() * np.random.rand() + 0.1 * torch.rand(rows.shape[1])


RULES: dict[str, Any] = {
    "plain": noisy,
    "in buckets": Bucketing(2, noisy),
    "mixed": NearestNeighborMixing(1, noisy),
}


@pytest.mark.slow
@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_what_an_own_rule_draws_is_the_runs(
    rule: Any, tiny: Callable[..., Experiment], seed: Callable[[int], None]
) -> None:
    """Each round anew; the global generators stay as they are; another seed is another run."""
    ends = []
    for noise, run in ((1, 0), (2, 0), (1, 3)):
        ready = prepare(tiny(**BY_HAND | {"aggregator": rule, "seed": run}))
        seed(noise)
        before = where()
        ends.append(played(ready, 3))
        assert where() == before
    assert torch.equal(ends[0], ends[1])
    assert not torch.equal(ends[0], ends[2])
    resumed = prepare(tiny(**BY_HAND | {"aggregator": rule}))
    state = resumed.federation.start(resumed.start)
    for noise in (7, 8, 9):
        seed(noise)
        state, _ = run_round(state.clone(), resumed.federation, resumed.streams)
    assert torch.equal(state.parameters, ends[0])


def played(ready: Prepared, rounds: int) -> Tensor:
    state = ready.federation.start(ready.start)
    for _ in range(rounds):
        state, _ = run_round(state, ready.federation, ready.streams)
    return state.parameters


def test_the_rule_of_a_view_draws_the_same_each_time(
    tiny: Callable[..., Experiment], seed: Callable[[int], None]
) -> None:
    answers: list[Tensor] = []

    class Asking:
        requires = Requirements(knowledge={"rule"})

        def craft(self, state: Any, view: View, rng: Any) -> Any:
            assert view.rule is not None
            ones = torch.ones(3, len(view.parameters))
            answers.extend(view.rule(ones) for _ in range(2))
            return view.own, state

    def guess(rows: Tensor) -> Tensor:
        return torch.rand(rows.shape[1])

    asking = {"aggregator": guess, "attack": Asking(), "threat": {"rule": True}}
    ready = prepare(tiny(**BY_HAND | asking))
    for noise in (1, 2):
        seed(noise)
        played(ready, 2)
    assert len(answers) == 8
    assert all(torch.equal(answers[0], answer) for answer in answers)
    _, log = run_round(ready.federation.start(ready.start), ready.federation, ready.streams)
    assert log.outcome.vector is not None
    assert not torch.equal(log.outcome.vector, answers[0])  # which nobody can foresee


def test_fedrobusts_own_rules_ask_no_global_generator(
    tiny: Callable[..., Experiment], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor do they pay for it: setting one costs more than a simulated round's rule."""
    monkeypatch.setattr("fedrobust.compute.own_draws.drawing", None)
    for rule in (Median(), Bucketing(2, Median())):
        ready = prepare(tiny(**BY_HAND | {"aggregator": rule}))
        assert not ready.federation.own_rule
        played(ready, 1)
