"""Rounds: what they change, what they leave alone, and that they do not depend on order."""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from fedrobust.aggregators import Aggregation, Context
from fedrobust.compute.randomness import Streams
from fedrobust.errors import ConfigError
from fedrobust.experiment import Experiment
from fedrobust.federation.backends import LOCAL
from fedrobust.federation.participation import All, Sample
from fedrobust.federation.round import run_round
from fedrobust.federation.server import Server
from fedrobust.federation.state import Federation, FederationState
from fedrobust.runs.prepare import Prepared, prepare

SGD = {"batch_size": 16, "batches": 1, "optimizer": {"name": "sgd", "lr": 0.1}}


def play(ready: Prepared, rounds: int) -> tuple[FederationState, list[Any]]:
    state, logs = ready.federation.start(ready.start), []
    for _ in range(rounds):
        state, log = run_round(state, ready.federation, ready.streams)
        logs.append(log)
    return state, logs


def test_one_sgd_step_under_the_mean_is_the_gradient_step_of_all_the_data(
    tiny: Callable[..., Experiment],
) -> None:
    """A federation of one-step clients with their whole data in a batch is gradient descent."""
    whole = {"batch_size": 1000, "batches": 1, "optimizer": {"name": "sgd", "lr": 0.5}}
    ready = prepare(
        tiny(objective={"name": "erm"}, client=whole, malicious=0, aggregator={"name": "mean"})
    )
    state, _ = play(ready, 1)
    local = ready.federation.local
    everyone = torch.cat(tuple(local.clients))
    model = local.model
    torch.nn.utils.vector_to_parameters(ready.start, model.parameters())
    loss = torch.nn.functional.cross_entropy(
        model(local.data.images(everyone)), local.data.y[everyone]
    )
    gradient = torch.cat([g.flatten() for g in torch.autograd.grad(loss, model.parameters())])
    torch.testing.assert_close(state.parameters, ready.start - 0.5 * gradient, rtol=0, atol=1e-6)


@pytest.mark.slow
def test_same_seed_same_bits_other_seed_other_run(tiny: Callable[..., Experiment]) -> None:
    one, two = play(prepare(tiny()), 3)[0], play(prepare(tiny()), 3)[0]
    assert torch.equal(one.parameters, two.parameters)
    assert not torch.equal(one.parameters, play(prepare(tiny(seed=1)), 3)[0].parameters)


def test_a_clone_branches(tiny: Callable[..., Experiment]) -> None:
    """What a simulating attacker does: play on from a copy, then go on as if nothing had been."""
    ready = prepare(tiny())
    state, _ = play(ready, 2)
    branch = state.clone()
    elsewhere, _ = run_round(branch, ready.federation, Streams(99))
    again, _ = run_round(state.clone(), ready.federation, ready.streams)
    after, _ = run_round(state, ready.federation, ready.streams)
    assert torch.equal(again.parameters, after.parameters)
    assert not torch.equal(elsewhere.parameters, after.parameters)
    assert after.round == 3


@pytest.mark.parametrize("graph", [False, True])
def test_a_state_is_used_once(graph: bool, tiny: Callable[..., Experiment]) -> None:
    """A second round from it would train on what the first one left in the clients' optimisers."""
    ready = prepare(tiny(malicious=0))
    state = ready.federation.start(ready.start.requires_grad_(graph))
    with pytest.raises(ValueError, match="rng must be"):
        run_round(state, ready.federation, None)  # type: ignore[arg-type]
    kept = state.clone()  # what was refused has used nothing up
    after, _ = run_round(state, ready.federation, ready.streams)
    said = r"round was played from this state, .* of round 0, .* made before the round.* refused"
    for used in (state, state.clone()):
        with pytest.raises(ValueError, match=said):
            run_round(used, ready.federation, ready.streams)
    again, _ = run_round(kept, ready.federation, ready.streams)
    assert torch.equal(again.parameters, after.parameters)
    assert run_round(after, ready.federation, ready.streams)[0].round == 2


def test_a_round_that_fails_uses_its_state_too(tiny: Callable[..., Experiment]) -> None:
    """The clients' optimisers have moved on. An interrupt in a notebook is such a failure."""

    class Interrupted:
        def aggregate(self, updates: torch.Tensor, context: Context) -> Aggregation:
            raise KeyboardInterrupt

    ready = prepare(tiny(malicious=0))
    broken = replace(ready.federation, aggregator=Interrupted())
    state, _ = play(ready, 1)
    kept, before = state.clone(), state.clone()
    with pytest.raises(KeyboardInterrupt):
        run_round(state, broken, ready.streams)
    assert str(state.store) != str(before.store)
    said = r"a round from this state, which is of round 1, did not end: begin again from fed"
    for used in (state, state.clone(), replace(state, server=())):
        with pytest.raises(ValueError, match=f"{said}.* made before the round.* refused too"):
            run_round(used, ready.federation, ready.streams)
    assert run_round(kept, ready.federation, ready.streams)[0].round == 2


def test_action_replaces_what_the_attack_would_send(tiny: Callable[..., Experiment]) -> None:
    ready = prepare(tiny(aggregator={"name": "mean"}, client=SGD))
    start = ready.federation.start(ready.start)
    action = torch.full((2, ready.layout.size), 11.0)
    acted, _ = run_round(start.clone(), ready.federation, ready.streams, action=action)
    zero, _ = run_round(start, ready.federation, ready.streams, action=torch.zeros_like(action))
    torch.testing.assert_close(
        acted.parameters - zero.parameters, torch.full((ready.layout.size,), 2.0)
    )


class Shuffled:
    """A backend that trains the clients in another order, as a cluster would."""

    def local_updates(
        self,
        federation: Federation,
        state: FederationState,
        clients: Sequence[int],
        rng: Streams,
        poison: dict[int, Any],
    ) -> Tensor:
        order = torch.randperm(len(clients), generator=torch.Generator().manual_seed(1)).tolist()
        rows = [LOCAL.local_updates(federation, state, [clients[i]], rng, poison)[0] for i in order]
        return torch.stack(rows)[torch.tensor(order).argsort()]


def test_the_order_in_which_clients_train_does_not_matter(tiny: Callable[..., Experiment]) -> None:
    """Clients one by one in any order: the same updates but for the rounding of pooled batches."""
    ready = prepare(tiny(objective={"name": "erm"}))
    usual, other = ready.federation.start(ready.start), ready.federation.start(ready.start)
    for _ in range(3):
        usual, log = run_round(usual, ready.federation, ready.streams)
        other, same = run_round(other, ready.federation, ready.streams, backend=Shuffled())
        assert log.kept == same.kept
    assert torch.equal(usual.parameters, other.parameters)


def test_sampled_clients_alone_keep_state(tiny: Callable[..., Experiment]) -> None:
    ready = prepare(
        tiny(
            participation={"name": "sample", "clients": 3},
            malicious=0,
            aggregator={"name": "median"},
        )
    )
    state, logs = play(ready, 2)
    assert [len(log.participants) for log in logs] == [3, 3]
    assert all(log.participants == tuple(sorted(log.participants)) for log in logs)
    assert set(state.store) == set(logs[0].participants) | set(logs[1].participants)
    assert logs[0].kept is None


def test_a_sample_is_uniform_and_seeded() -> None:
    counts = torch.zeros(10)
    for round in range(3000):
        chosen = Sample(3).choose(10, Streams(0).generator("participation", round))
        assert len(set(chosen)) == 3
        counts[list(chosen)] += 1
    assert (counts - 900).abs().max() < 110  # four standard deviations
    with pytest.raises(ValueError, match="cannot sample 11 of 10"):
        Sample(11).size(10)


def test_kept_clients_are_named_by_id(tiny: Callable[..., Experiment]) -> None:
    """With noise from two clients of eleven, Bulyan never keeps them, and says so."""
    ready = prepare(tiny(attack={"name": "gaussian-noise", "scale": 100.0}))
    _, logs = play(ready, 3)
    for log in logs:
        assert set(log.malicious) == ready.federation.malicious
        assert log.kept is not None
        assert not set(log.kept) & set(log.malicious)
        assert len(log.kept) == 7


class Spoil:
    """A user's attack that sends what no server should take."""

    def __init__(self, value: float) -> None:
        self.value = value

    def craft(self, state: Any, view: Any, rng: Any) -> tuple[Tensor, Any]:
        return torch.full((view.rows, len(view.parameters)), self.value), state


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_updates_that_are_not_finite_are_dropped_and_logged(
    tiny: Callable[..., Experiment], value: float
) -> None:
    ready = prepare(tiny(attack=Spoil(value), aggregator={"name": "mean"}))
    state, logs = play(ready, 2)
    assert set(logs[0].dropped) == ready.federation.malicious
    assert logs[0].outcome.vector is not None
    assert torch.isfinite(state.parameters).all()
    assert not torch.equal(state.parameters, ready.start)


def test_attacks_that_need_no_honest_update_cost_none(tiny: Callable[..., Experiment]) -> None:
    ready = prepare(tiny(attack={"name": "gaussian-noise", "scale": 1.0}))
    state, _ = play(ready, 1)
    assert set(state.store) == set(range(11)) - ready.federation.malicious


class Lottery:
    """A user's own participation, which draws from the global generators."""

    def size(self, clients: int) -> int:
        return 7

    def choose(self, clients: int, generator: torch.Generator) -> tuple[int, ...]:
        return tuple(sorted(random.sample(range(clients), 7)))


class Shaken:
    """A user's own projection, which does so too."""

    def project(self, parameters: Tensor) -> Tensor:
        return parameters + 0.1 * torch.rand(parameters.shape)


@pytest.mark.parametrize("changes", [{"participation": Lottery()}, {"projection": Shaken()}])
def test_what_an_own_participation_or_projection_draws_is_the_runs(
    changes: dict[str, Any], tiny: Callable[..., Experiment]
) -> None:
    before = random.getstate(), torch.get_rng_state()
    ends = []
    for noise in (1, 2):
        ready = prepare(tiny(objective={"name": "erm"}, aggregator={"name": "mean"}))
        federation = replace(ready.federation, participation=changes.get("participation", All()))
        if "projection" in changes:
            federation = replace(federation, server=Server(projection=changes["projection"]))
        state = federation.start(ready.start)
        random.seed(noise)
        torch.manual_seed(noise)
        at = random.getstate(), torch.get_rng_state()
        for _ in range(3):
            state, log = run_round(state, federation, ready.streams)
        assert random.getstate() == at[0]
        assert torch.equal(torch.get_rng_state(), at[1])
        ends.append((state.parameters, log.participants))
    random.setstate(before[0])
    torch.set_rng_state(before[1])
    assert torch.equal(ends[0][0], ends[1][0])
    assert ends[0][1] == ends[1][1]


@pytest.mark.parametrize(
    "chosen", [(), (3, 1), (0, 0), (0, 11), (-1, 2), (0.5, 1), None, "abc", {1, 2}, 5]
)
def test_a_participation_that_chooses_no_clients_is_told(
    chosen: Any, tiny: Callable[..., Experiment]
) -> None:
    class Fixed:
        def choose(self, clients: int, generator: torch.Generator) -> Any:
            return chosen

    ready = prepare(tiny(aggregator={"name": "mean"}))
    federation = replace(ready.federation, participation=Fixed())  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="participation Fixed must choose some of the clients 0 "):
        run_round(federation.start(ready.start), federation, ready.streams)


def test_a_start_with_a_history_leaves_it_behind(tiny: Callable[..., Experiment]) -> None:
    ready = prepare(tiny(objective={"name": "erm"}, client=SGD, aggregator={"name": "mean"}))
    tracked = ready.federation.start(ready.start.clone().requires_grad_())
    after, _ = run_round(tracked, ready.federation, ready.streams)
    same, _ = run_round(ready.federation.start(ready.start), ready.federation, ready.streams)
    assert not after.parameters.requires_grad
    assert torch.equal(after.parameters, same.parameters)


def test_a_round_keeps_the_history_where_it_is_asked_to(tiny: Callable[..., Experiment]) -> None:
    """The mean's derivative by what two of eleven send is 1/11 for each."""
    ready = prepare(
        tiny(objective={"name": "erm"}, client=SGD, aggregator=lambda rows: rows.mean(dim=0))
    )
    for graph in (False, True):
        federation = replace(ready.federation, graph=graph)
        action = torch.zeros(2, ready.layout.size, requires_grad=True)
        start = federation.start(ready.start)
        after, _ = run_round(start, federation, ready.streams, action=action)
        assert after.parameters.requires_grad == graph
    (slopes,) = torch.autograd.grad(after.parameters.sum(), action)
    torch.testing.assert_close(slopes, torch.full_like(slopes, 1 / 11))
