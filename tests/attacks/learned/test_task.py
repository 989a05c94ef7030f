"""The federation that the attacker imagines: who holds what in it, and how many there are."""

import math
import statistics
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from ring import known_after, learned, seeded, task_of, watched

from fedrobust.attacks.learned import Learned
from fedrobust.attacks.learned.attacker_state import AttackerState, material
from fedrobust.attacks.learned.differentiable import differentiable
from fedrobust.attacks.learned.environment import FederationEnv
from fedrobust.attacks.learned.task import task_for
from fedrobust.clients.gradients import gradient_engine


@pytest.mark.parametrize("known_clients", [0, 2])
@pytest.mark.parametrize(
    ("data", "own", "pooled"),
    [("own", True, False), ("learned", False, True), ("both", True, True)],
)
def test_simulated_clients_draw_from_what_was_asked(
    data: Any, own: bool, pooled: bool, known_clients: int
) -> None:
    seen = watched(2, threat={"clients": True, "data": known_clients})
    others = seen.view.others()
    assert len(others) == known_clients
    known = AttackerState(x=torch.zeros(20, 2), y=torch.zeros(20, dtype=torch.long))
    has = material(known, data, seen.view)
    assert len(has.data) == 280 + 260 * known_clients
    assert torch.equal(has.data.take(torch.cat(has.mine)).x, seen.own.x)
    for index, split in zip(has.known, others, strict=True):
        assert torch.equal(has.data.take(index).x, split.x)
    drawn = set(has.theirs.tolist())
    assert drawn.isdisjoint(torch.cat(has.mine).tolist()) != own
    assert drawn.issuperset(torch.cat([*has.known, torch.arange(0)]).long().tolist())
    assert (has.data.take(has.theirs).x == 0).all(dim=1).sum() == 20 * pooled


def test_clients_whose_data_are_known_hold_them_in_the_simulation() -> None:
    seen = watched(40, threat={"clients": True, "rule": True, "data": 3})
    assert seen.prepared.federation.malicious.isdisjoint(seen.prepared.federation.known)
    local = task_of(seen).federation.local
    held = [local.data.take(part).x for part in local.clients]
    train = seen.prepared.federation.local
    for position, client in enumerate(seen.prepared.federation.known):
        assert torch.equal(held[position], train.data.take(train.clients[client]).x)
    assert torch.equal(held[-1], seen.own.x)
    assert len(held) == 10


@pytest.mark.slow
def test_who_sees_the_benign_rows_can_count_them() -> None:
    known, _ = known_after(3, **learned(observe=0, inversion=None), threat={"benign": True})
    assert known.policy is not None
    assert not known.troubles


def test_in_the_simulation_the_attacker_holds_what_it_holds() -> None:
    """Benign clients draw from what was learned; it trains on its own examples, as it does."""
    from fedrobust.attacks.learned.task import task_for
    from fedrobust.clients.gradients import gradient_engine

    seen = watched(5)
    known = AttackerState(met=5, x=torch.zeros(20, 2), y=torch.zeros(20, dtype=torch.long))
    sample = seen.own.take(torch.arange(10))
    tools = gradient_engine(seen.view.model())
    task = task_for(known, Learned(data="learned"), seen.view, sample, tools, seeded())
    clients, data = task.federation.local.clients, task.federation.local.data
    assert len(clients) == 10
    assert task.federation.malicious == {9}
    assert {len(held) for held in clients} == {260}
    assert not any(data.take(held).x.any() for held in clients[:9])
    assert torch.equal(data.take(clients[9]).x, seen.own.x)


def test_destroyed_models_differ_in_what_they_are_worth() -> None:
    """Also where the model makes hardly a mistake at the start, so that its loss is tiny."""
    seen = watched(300)
    tools = gradient_engine(seen.view.model())
    losses = tools.losses(seen.view.parameters, seen.own.x, seen.own.y)
    easy = seen.own.take(losses.argsort()[:20])
    task = task_of(seen, sample=easy, reward="loss")
    begin = task.harm(seen.view.parameters)
    guess, wrong = torch.zeros(28), -0.8 * seen.view.parameters
    for parameters, harm in ((guess, math.log(2)), (wrong, task.harm(wrong))):
        env = FederationEnv(replace(task, start=replace(task.start, parameters=parameters)))
        env.reset(seed=0)
        assert env._measured() == pytest.approx(harm, rel=1e-6)
    assert task.harm(wrong) > 100 * begin


@pytest.mark.parametrize("rule", [True, False])
@pytest.mark.parametrize("optimizer", ["fed-avg-m", "fed-adam", "fed-yogi", "fed-adagrad"])
def test_the_simulated_server_goes_on_with_its_optimiser(optimizer: str, rule: bool) -> None:
    """With the rule it has the state of the real one; without it a trouble says what it lacks."""
    server = {"lr": 0.05, "optimizer": {"name": optimizer}}
    seen = watched(30, server=server, threat={"clients": True, "rule": rule})
    known = AttackerState(met=30, most=1, rows=30, last=29)
    sample, tools = seen.own.take(torch.arange(60)), gradient_engine(seen.view.model())
    task = task_for(known, Learned(inversion=None), seen.view, sample, tools, seeded())
    real = watched(29, server=server).state.server if rule else ()
    assert len(task.start.server) == len(real)
    assert all(map(torch.equal, task.start.server, real))
    assert [optimizer in text for text in known.troubles] == ([] if rule else [True])
    exact = differentiable(task).start.server
    assert len(exact) == len(real)
    assert all(torch.equal(slot.double(), there) for slot, there in zip(real, exact, strict=True))


def test_without_the_rule_every_simulated_client_weighs_the_same() -> None:
    """Known clients hold different numbers of examples; a rule that is handed out weighs none."""
    changes = {"partition": {"name": "dirichlet", "clients": 10, "alpha": 0.3}}
    steps = []
    for rule in (True, False):
        seen = watched(5, threat={"clients": True, "rule": rule, "data": 3}, **changes)
        task = task_of(seen, sample=seen.own)
        assert len({len(part) for part in task.federation.local.clients}) > 2
        env = FederationEnv(task)
        env.reset(seed=0)
        env.step(np.zeros(3, dtype=np.float32))
        steps.append(env.parameters)
    assert torch.allclose(*steps, atol=1e-6)


@pytest.mark.parametrize(
    ("clients", "sampled", "malicious"),
    [(100, 10, 30), (100, 20, 20), (20, 10, 5), (51, 20, 12), (1000, 10, 5), (10, 10, 3)],
)
def test_the_simulation_has_the_share_of_malicious_rows_that_was_seen(
    clients: int, sampled: int, malicious: int
) -> None:
    """Whatever the largest number is that was seen together. By drawing rounds, as a server does.

    Were everybody taken to be in every round, 6 of 10 would be malicious where 30 of 100 are.
    """
    from fedrobust.attacks.learned.task import population

    draw, shares = seeded(), []
    for _ in range(40):
        seen = [
            int((torch.randperm(clients, generator=draw)[:sampled] < malicious).sum())
            for _ in range(60 * clients // (sampled * malicious))
        ]
        most, mean = max(seen), sum(seen) / len(seen)
        total = population(sampled, most, mean) if most else clients
        assert total > most
        shares.append(most / total)
    assert statistics.median(shares) == pytest.approx(malicious / clients, rel=0.1)


def test_a_rule_that_refuses_what_is_left_makes_no_step() -> None:
    """Krum with one row of five not finite: the simulated server goes on, as the real one does."""
    from fedrobust.aggregators import Context, Krum
    from fedrobust.attacks.learned.simulation import CallableRule
    from fedrobust.federation.server import aggregate

    rows = torch.randn(5, 4, generator=seeded())
    rows[2, 0] = torch.nan
    outcome = aggregate(CallableRule(Krum(f=1)), rows, Context())
    assert outcome.vector is None
    assert "Krum" in str(outcome.reason)


def test_an_infinite_price_moves_nothing_for_any_network() -> None:
    from fedrobust.clients.gradients import Autograd
    from fedrobust.perturb.wasserstein import Ascent

    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2))
    x = torch.randn(4, 2, generator=seeded())
    theta = torch.nn.utils.parameters_to_vector(model.parameters()).detach()
    moved = Autograd(model, 8).moved(theta, x, torch.zeros(4).long(), float("inf"), Ascent())
    assert torch.equal(moved, x)


def test_bfloat16_simulates_a_convolutional_network_as_float32_does() -> None:
    """ρ̂, its points and the clients' gradients within a few per cent, and the model untouched."""
    from fedrobust.clients.gradients import Autograd, gradient_engine
    from fedrobust.compute.parameters import read
    from fedrobust.models import EluCnn
    from fedrobust.perturb.wasserstein import Ascent

    torch.manual_seed(0)
    model = EluCnn(width=16).build((1, 28, 28), 10)
    x, y = torch.rand(48, 1, 28, 28, generator=seeded()), torch.arange(48) % 10
    theta, ascent = 1.5 * read(model), Ascent(steps=5, rule="decaying")
    found = {}
    for precision in ("float32", "bfloat16"):
        tools = gradient_engine(model, precision)
        assert isinstance(tools, Autograd)
        moved = tools.moved(theta, x, y, 0.05, ascent)
        assert moved.dtype == torch.float32
        rho = (moved - x).flatten(1).square().sum(dim=1).mean()
        found[precision] = (rho, tools.gradients(theta, x, y, 4), tools.losses(theta, x, y))
    rho, gradients, losses = found["float32"]
    low_rho, low_gradients, low_losses = found["bfloat16"]
    assert rho > 1e-3
    torch.testing.assert_close(low_rho, rho, rtol=0.03, atol=0)
    assert (low_gradients - gradients).norm() < 0.03 * gradients.norm()
    torch.testing.assert_close(low_losses, losses, rtol=0.03, atol=0.03)
    assert not torch.equal(low_gradients, gradients), "both have the same precision"
    torch.nn.utils.vector_to_parameters(theta, model.parameters())
    plain = torch.nn.functional.cross_entropy(model(x), y, reduction="none")
    torch.testing.assert_close(losses, plain)
