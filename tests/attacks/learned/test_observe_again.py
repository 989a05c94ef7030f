"""Observing again: the pool grows while it acts, and the next training has what is new."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from ring import Spy, experiment, known_after, learned, watched

from fedrobust.attacks.learned import Learned, stage_one, stage_two
from fedrobust.attacks.learned.attacker_state import AttackerState
from fedrobust.errors import ConfigError
from fedrobust.federation.round import run_round
from fedrobust.runs.prepare import Prepared, prepare

pytestmark = pytest.mark.slow

AGAIN: dict[str, Any] = {
    "observe": 2,
    "threshold": 0.0,
    "relearn": 6,
    "observe_again": 2,
    "training": {"algorithm": "constant", "steps": 9},
    "inversion": {"iterations": 5},
    "horizon": 3,
}
"""It trains in round 3, and in round 9 again; rounds 7 and 8 are the two before."""
MEDIAN = {"aggregator": {"name": "median"}}


def course(rounds: int, **changes: Any) -> tuple[list[int], list[AttackerState], Prepared]:
    """The rounds in which honest updates were sent, and what was known after each round."""
    ready, sent = prepare(experiment(**changes)), list[bool]()
    attack = ready.federation.attack

    class Watched(Spy):
        """The attack itself, watched."""

        requires = attack.requires  # type: ignore[union-attr]

        def init(self) -> Any:
            return attack.init()  # type: ignore[union-attr]

        def craft(self, state: Any, view: Any, rng: Any) -> Any:
            rows, state = attack.craft(state, view, rng)  # type: ignore[union-attr]
            sent.append(torch.equal(rows, view.own))
            return rows, state

    federation = replace(ready.federation, attack=Watched())
    state, known = federation.start(ready.start), list[AttackerState]()
    for _ in range(rounds):
        state, _ = run_round(state, federation, ready.streams, backend=ready.backend)
        known.append(AttackerState.of(state.attack))
    return [number for number, honest in enumerate(sent, 1) if honest], known, ready


@pytest.mark.parametrize(
    ("changes", "honest"), [({}, [1, 2]), (MEDIAN, [1, 2, 7, 8])], ids=["mean", "median"]
)
def test_it_observes_before_it_trains_again_and_acts_where_its_part_can_be_subtracted(
    changes: dict[str, Any], honest: list[int]
) -> None:
    found, known, _ = course(10, **learned(**AGAIN), **changes)
    assert found == honest
    pools = [0 if now.y is None else len(now.y) for now in known]
    assert pools == [0, 16, 32, 32, 32, 32, 32, 48, 64, 64]
    assert [now.trained for now in known] == [0, 0, *[3] * 6, 9, 9]
    assert known[-1].observed == 4
    assert len(known[-1].matching) == 4
    assert not known[-1].troubles


@pytest.mark.parametrize(
    ("changes", "whether"),
    [
        ({}, True),
        (MEDIAN, False),
        ({"aggregator": {"name": "trimmed-mean", "f": 1}}, False),
        ({"threat": {"clients": True}}, False),
        ({"threat": {"clients": 6, "rule": True}}, False),
    ],
    ids=["mean", "median", "trimmed mean", "unknown rule", "lower bound"],
)
def test_it_goes_on_only_where_it_knows_that_the_step_is_a_mean(
    changes: dict[str, Any], whether: bool
) -> None:
    assert stage_one.separable(watched(1, **changes).view) == whether


def test_the_second_training_is_on_the_grown_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its simulated clients hold what was reconstructed last; without it they cannot."""
    held: list[Any] = []
    found = stage_two.task_for

    def spied(known: AttackerState, *rest: Any) -> Any:
        task = found(known, *rest)
        held.append((task.federation.local, known.pool))
        return task

    monkeypatch.setattr(stage_two, "task_for", spied)
    known_after(9, **learned(**AGAIN, data="learned"))
    (_, before), (local, grown) = held
    assert len(grown) == 2 * len(before) == 64
    assert torch.equal(grown.x[:32], before.x)
    used = local.data.x[torch.cat(local.clients)]
    newest = grown.x[32:]
    assert (torch.cdist(newest.double(), used.double()).amin(dim=1) == 0).sum() > 16
    held.clear()
    known_after(9, **learned(**AGAIN | {"observe_again": 0}, data="learned"))
    assert len(held[0][1]) == len(held[1][1]) == 32


def test_the_others_gradient_is_read_off_the_step_of_an_attack(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Under the mean, exactly, though ten honest lengths of −θ were sent in these rounds."""
    seen: dict[int, torch.Tensor] = {}
    real = stage_one._revealed

    def spied(known: AttackerState, view: Any) -> Any:
        found = real(known, view)
        if found is not None:
            seen[view.round] = found
        return found

    monkeypatch.setattr(stage_one, "_revealed", spied)
    attack = AGAIN | {"encoding": {"name": "basis", "directions": ["parameters"]}}
    _, _, ready = course(9, **learned(**attack))
    assert sorted(seen) == [2, 3, 8, 9]
    state = ready.federation.start(ready.start)
    (bad,) = ready.federation.malicious
    for number in range(1, 9):
        rows = ready.federation.local.updates(
            state.parameters, {}, range(10), ready.streams, number
        )
        others = rows[[i for i in range(10) if i != bad]]
        before = state.parameters
        state, _ = run_round(state, ready.federation, ready.streams, backend=ready.backend)
        if number + 1 in (8, 9):
            wanted = -others.mean(dim=0) / 0.3
            assert (seen[number + 1] - wanted).norm() < 1e-3 * wanted.norm()
            step = state.parameters - before
            assert (-step / 0.3 - wanted).norm() > 0.2 * wanted.norm()  # its part is not small


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"observe_again": 2}, "leave none to act in: set relearn above it; it is 0"),
        ({"observe_again": 5, "relearn": 5}, "leave none to act in"),
        (
            {"observe_again": 2, "relearn": 5, "data": "own", "inversion": None},
            "would not be used",
        ),
        ({"observe_again": 2, "relearn": 5, "inversion": None}, "would not be used"),
    ],
)
def test_what_has_no_effect_is_refused(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        Learned(**changes)
