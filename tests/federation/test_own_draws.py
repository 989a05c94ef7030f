"""What a user's own attack draws, from whatever generator, is the run's."""

import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fedrobust.attacks import Budgeted, Jittered, Optimized
from fedrobust.config.component import component
from fedrobust.experiment import Experiment
from fedrobust.federation.round import run_round
from fedrobust.federation.round_log import RoundLog
from fedrobust.federation.state import FederationState
from fedrobust.federation.threat import View
from fedrobust.runs.prepare import Prepared, prepare

SIMPLE: dict[str, Any] = {
    "objective": {"name": "erm"},
    "client": {"batch_size": 8, "batches": 1, "optimizer": {"name": "sgd", "lr": 0.1}},
    "aggregator": {"name": "mean"},
}
Make = Callable[..., Experiment]


def ready_for(tiny: Make, attack: Any, **changes: Any) -> Prepared:
    return prepare(tiny(**SIMPLE | {"attack": attack} | changes))


def play(ready: Prepared, rounds: int = 1, **more: Any) -> tuple[FederationState, RoundLog]:
    state = ready.federation.start(ready.start, ready.streams)
    for _ in range(rounds):
        state, log = run_round(state, ready.federation, ready.streams, **more)
    return state, log


def draws() -> float:
    """One number from each global generator."""
    return random.random() + float(np.random.rand()) + float(torch.rand(()))


class Drawing:
    """Draws from the global generators wherever it may."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def init(self) -> list[float]:
        return [draws()]

    def poison(self, x: Tensor, y: Tensor, classes: int) -> Any:
        self.seen.append(draws())
        return x + 0.1 * torch.rand(x.shape), y[torch.randperm(len(y))]

    def craft(self, state: Any, view: View, rng: Any) -> Any:
        return view.own + state[0] + 0.1 * torch.randn(view.own.shape), [*state, draws()]


@component
class Searched:
    """The same with a number to search."""

    scale: float = 1.0

    def craft(self, state: Any, view: View, rng: Any) -> Any:
        return -self.scale * view.own + draws() * torch.randn(view.own.shape), state


@pytest.fixture
def generators() -> Iterator[Callable[[int], None]]:
    """Seeds every global generator; afterwards they are as they were."""
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()

    def seed(value: int) -> None:
        random.seed(value)
        np.random.seed(value)
        torch.manual_seed(value)

    yield seed
    random.setstate(before[0])
    np.random.set_state(before[1])
    torch.set_rng_state(before[2])


def where() -> tuple[Any, ...]:
    python, numpy, torch_ = random.getstate(), np.random.get_state(), torch.get_rng_state()
    return python, numpy[1].tolist(), numpy[2], torch_.tolist()  # type: ignore[index,union-attr]


KNOWS = {"rule": True, "clients": True}
DRAWING: dict[str, Callable[[], Any]] = {
    "plain": Drawing,
    "budgeted": lambda: Budgeted(Searched(), 3.0),
    "jittered": lambda: Jittered(Drawing(), 0.1),
    "optimized": lambda: Optimized(Searched(), grid=2, refine=0),
}


@pytest.mark.slow
@pytest.mark.parametrize("attack", DRAWING.values(), ids=DRAWING)
@pytest.mark.parametrize("colluders", [True, False])
def test_what_an_own_attack_draws_is_the_runs(
    attack: Any, colluders: bool, tiny: Make, generators: Callable[[int], None]
) -> None:
    """Whatever the global generators were, which stay as they were; another seed, another run."""
    if not colluders and isinstance(attack(), Optimized):
        pytest.skip("needs colluders")
    ends = []
    for noise, seed in ((1, 0), (2, 0), (1, 5)):
        threat = KNOWS | {"colluders": colluders}
        ready = ready_for(tiny, attack(), threat=threat, seed=seed)
        generators(noise)
        before = where()
        state, _ = play(ready, 3)
        assert where() == before
        ends.append(state)
    assert torch.equal(ends[0].parameters, ends[1].parameters)
    assert ends[0].attack == ends[1].attack
    assert not torch.equal(ends[0].parameters, ends[2].parameters)


def test_poison_draws_anew_for_each_client_and_round(
    tiny: Make, generators: Callable[[int], None]
) -> None:
    seen = []
    for noise in (1, 2):
        attack = Drawing()
        ready = ready_for(tiny, attack)
        generators(noise)
        play(ready, 3)
        seen.append(attack.seen)
    assert seen[0] == seen[1]
    assert len(set(seen[0])) == len(seen[0]) == 6


def test_a_resumed_run_draws_the_same(tiny: Make, generators: Callable[[int], None]) -> None:
    straight, _ = play(ready_for(tiny, Drawing()), 3)
    state, _ = play(ready_for(tiny, Drawing()), 2)
    fresh = ready_for(tiny, Drawing())
    generators(3)
    again, _ = run_round(state.clone(), fresh.federation, fresh.streams)
    assert torch.equal(again.parameters, straight.parameters)
