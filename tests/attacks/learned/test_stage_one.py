"""Stage one: what the attacker takes the server's step for, and when it stops looking."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from ring import Seen, experiment, known_after, learned, seeded, watched

from fedrobust.attacks.learned import Inversion, Learned
from fedrobust.attacks.learned.attacker_state import AttackerState
from fedrobust.attacks.learned.inversion import Inverted
from fedrobust.attacks.learned.stage_one import observe
from fedrobust.compute.network import parameter_gradient
from fedrobust.data import Split
from fedrobust.federation.round import run_round

pytestmark = pytest.mark.slow


def test_it_waits_before_it_observes() -> None:
    known, _ = known_after(4, **learned(wait=3))
    assert known.observed == 1
    assert known.met == 4
    known, _ = known_after(7, **learned(wait=3))
    assert known.observed == 3  # rounds 4, 5 and 6; in round 7 it acts
    assert known.policy is not None
    assert len(known.matching) == 3


def test_a_near_pool_ends_the_observation() -> None:
    known, _ = known_after(6, **learned(observe=50, threshold=1000.0))
    assert known.observed == 2
    assert len(known.distances) == 1
    known, _ = known_after(6, **learned(observe=50, threshold=0.0))
    assert known.observed == 6
    assert known.policy is None


@pytest.mark.parametrize(
    ("observe", "threshold", "inverts", "acts"),
    [(3, 1000.0, True, 6), (3, 0.0, True, 7), (1, 1000.0, True, 5), (3, 1000.0, False, 7)],
)
def test_it_begins_where_it_says_that_it_can(
    observe: int, threshold: float, inverts: bool, acts: int
) -> None:
    """Played: with a threshold that ends the observation as soon as anything can."""
    changes: dict[str, Any] = {"wait": 3, "observe": observe, "threshold": threshold}
    if not inverts:
        changes |= {"inversion": None, "data": "own"}
    known, _ = known_after(acts - 1, **learned(**changes))
    assert not known.acts
    known, _ = known_after(acts, **learned(**changes))
    assert known.acts
    assert known.report()["acts_from"] == acts
    assert experiment(**learned(**changes)).attack.requires.first_round == acts  # type: ignore[union-attr]


def revealed(seen: Seen, own: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> torch.Tensor | None:
    """The gradient that the attacker takes the last step for, its own row then being ``own``."""

    found: list[torch.Tensor] = []

    def spy(model: Any, gradient: torch.Tensor, x: Any, y: Any, *_: Any, **__: Any) -> Any:
        found.append(gradient)
        return Inverted(x, y, before=1.0, after=0.5, reached=0.5)

    monkeypatch.setattr("fedrobust.attacks.learned.stage_one.invert", spy)
    known = AttackerState(own=own, last=seen.view.round - 1)
    observe(known, Learned(inversion=Inversion()), seen.view, seeded())
    return found[0] if found else None


def last_rows(seen: Seen, rounds: int) -> torch.Tensor:
    """Every client's honest update of the round before the last, played again; ours comes last."""
    ready = seen.prepared
    again = replace(ready.federation, attack=None, malicious=frozenset())
    state = again.start(ready.start)
    for _ in range(rounds - 2):
        state, _ = run_round(state, again, ready.streams)
    rows = again.local.updates(state.parameters, {}, range(10), ready.streams, rounds - 1)
    (bad,) = ready.federation.malicious
    order = [i for i in range(10) if i != bad] + [bad]
    return rows[order]


def test_the_others_gradient_is_read_off_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under the mean: −η times the mean gradient of the nine others, exactly."""
    for server_lr in (1.0, 0.5):
        seen = watched(6, server={"lr": server_lr})
        rows = last_rows(seen, 6)
        found = revealed(seen, rows[-1:], monkeypatch)
        assert found is not None
        torch.testing.assert_close(found, -rows[:-1].mean(dim=0) / 0.3, rtol=1e-3, atol=1e-5)


def test_several_steps_are_taken_for_as_many_of_one_gradient(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client = {"batch_size": 16, "batches": 3, "optimizer": {"name": "sgd", "lr": 0.1}}
    seen = watched(6, client=client, threat={"clients": 7})
    step = seen.view.parameters - seen.view.history[-1]
    found = revealed(seen, seen.view.own, monkeypatch)
    assert found is not None
    torch.testing.assert_close(found, -step / 0.3)


def test_epochs_are_as_many_steps_as_they_have_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two epochs of a part that the batches do not divide."""
    client = {"batch_size": 64, "epochs": 2, "optimizer": {"name": "sgd", "lr": 0.01}}
    seen = watched(6, client=client, threat={"clients": 7})
    (own,) = seen.view.data()
    assert len(own) % 64
    step = seen.view.parameters - seen.view.history[-1]
    found = revealed(seen, seen.view.own, monkeypatch)
    assert found is not None
    torch.testing.assert_close(found, -step / (0.01 * 2 * (len(own) // 64 + 1)))


@pytest.mark.parametrize("until", [4, 5])
def test_the_rate_of_the_round_of_the_step_counts(
    until: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The view of round 6 shows the step of round 5."""
    drops = {"lr_factor": [{"value": 1.0, "until": until}, {"value": 0.5}]}
    client = {"batch_size": 16, "batches": 1, "optimizer": {"name": "sgd", "lr": 0.3}}
    seen = watched(6, client=client | drops, threat={"clients": 7})
    step = seen.view.parameters - seen.view.history[-1]
    found = revealed(seen, seen.view.own, monkeypatch)
    assert found is not None
    torch.testing.assert_close(found, -step / (0.3 if until == 5 else 0.15))


def test_a_lower_bound_takes_nothing_out(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = watched(6, threat={"clients": 7})
    rows = last_rows(seen, 6)
    found = revealed(seen, rows[-1:], monkeypatch)
    assert found is not None
    torch.testing.assert_close(found, -rows.mean(dim=0) / 0.3, rtol=1e-3, atol=1e-5)


def test_another_rule_is_taken_for_a_mean_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """White-box Krum: the step is one client's update, from which nothing is taken out."""
    seen = watched(6, aggregator={"name": "krum", "f": 1})
    assert seen.view.rule is not None
    step = seen.view.parameters - seen.view.history[-1]
    found = revealed(seen, seen.view.own, monkeypatch)
    assert found is not None
    torch.testing.assert_close(found, -step / 0.3)


def test_a_step_of_its_own_tells_it_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Krum has selected the attacker, or one of two colluders; at another server rate too."""
    for server_lr in (1.0, 0.5):
        krum = {"name": "krum", "f": 1}
        seen = watched(6, aggregator=krum, server={"lr": server_lr})
        step = (seen.view.parameters - seen.view.history[-1]) / server_lr
        for own in (step[None], torch.stack([2 * step, step])):
            assert revealed(seen, own, monkeypatch) is None
        for own in (2 * step[None], 1.01 * step[None], torch.zeros_like(step)[None]):
            assert revealed(seen, own, monkeypatch) is not None
    played, _ = known_after(9, **learned(observe=8), aggregator=krum)
    known, trouble = AttackerState(**vars(played)), "the attacker's own update were not used"
    assert len(known.matching) < 8
    assert any(trouble in text for text in known.troubles)
    # Where nothing is to be inverted, it is no trouble.
    untroubled, _ = known_after(9, **learned(observe=8, inversion=None), aggregator=krum)
    assert untroubled.troubles == []


def test_a_projected_step_and_a_missed_round_tell_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = watched(6, server={"projection": {"name": "ball", "radius": 0.5}})
    known = AttackerState(own=seen.view.own, last=seen.view.round - 1)
    observe(known, Learned(), seen.view, seeded())
    assert known.pool is None
    assert "projection" in known.troubles[0]
    seen = watched(6)
    known = AttackerState(own=seen.view.own, last=seen.view.round - 2)
    observe(known, Learned(), seen.view, seeded())
    assert known.pool is None
    assert known.own is not None


def test_the_unused_gradient_judges_the_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    """‖∇(pool) − g‖² / ‖g‖² on a gradient that the pool was not fitted to, before it is."""
    seen = watched(6)
    rows = last_rows(seen, 6)
    pool = Split(torch.randn(20, 2, generator=seeded()), torch.arange(20) % 2)
    known = AttackerState(own=rows[-1:], last=seen.view.round - 1, x=pool.x, y=pool.y)
    observe(known, Learned(inversion=Inversion(iterations=2)), seen.view, seeded())
    model = seen.view.model()
    torch.nn.utils.vector_to_parameters(seen.view.history[-1], model.parameters())
    newest = pool.take(torch.arange(4, 20))
    given = -rows[:-1].mean(dim=0) / 0.3
    moved = seen.view.objective.maximize(model, newest.x, newest.y, lambda: None)
    found = parameter_gradient(model, moved, newest.y)
    expected = float((found - given).square().sum() / given.square().sum())
    assert known.unused == [pytest.approx(expected, rel=1e-2)]
    assert known.pool is not None
    assert len(known.pool) == 36


def test_a_box_is_felt_on_every_face() -> None:
    for low, high in ((0.0, 9.0), (-9.0, 0.0), (-9.0, 9.0)):
        projection = {"name": "box", "low": low, "high": high}
        seen = watched(4, server={"projection": projection})
        known = AttackerState(own=seen.view.own, last=seen.view.round - 1)
        observe(known, Learned(inversion=Inversion(iterations=2)), seen.view, seeded())
        assert (known.pool is None) == (low == 0 or high == 0)


def test_what_is_not_finite_ends_neither_observing_nor_the_run() -> None:
    """An own row that the server dropped, and a step that shows nothing."""
    seen = watched(4)
    lost = torch.full_like(seen.view.own, torch.nan)
    known = AttackerState(own=lost, last=seen.view.round - 1)
    observe(known, Learned(inversion=Inversion(iterations=2)), seen.view, seeded())
    assert known.pool is not None
    assert torch.isfinite(known.pool.x).all()
    wild = Inversion(method="adam", lr=1e30, iterations=20, refresh=5)
    observe(AttackerState(own=seen.view.own, last=3), Learned(inversion=wild), seen.view, seeded())
    still = replace(seen.view, history=(torch.full_like(seen.view.parameters, 1e38),))
    known = AttackerState(own=seen.view.own, last=seen.view.round - 1)
    observe(known, Learned(inversion=Inversion(iterations=2)), still, seeded())
    assert known.pool is None or torch.isfinite(known.pool.x).all()
