"""A federation from what a PyTorch user has, in a loop of their own."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from fedrobust import Federation, Streams, ThreatModel, flatten, run_round, unflatten
from fedrobust.aggregators import Krum, Mean
from fedrobust.attacks import Optimized, SignFlip
from fedrobust.clients.client import Client
from fedrobust.clients.optimizers import Sgd
from fedrobust.data import Split
from fedrobust.errors import ConfigError, DataError, UserError
from fedrobust.objectives import Adversarial
from fedrobust.perturb import Pgd

X = torch.rand(60, 1, 4, 4, generator=torch.Generator().manual_seed(0))
Y = torch.arange(60) % 3


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 3))


def pairs(*sizes: int) -> list[Any]:
    return list(zip(torch.split(X, list(sizes)), torch.split(Y, list(sizes)), strict=True))


def test_one_round_is_the_mean_of_the_clients_own_steps() -> None:
    """Uneven clients, whole batches, plain SGD: written out with autograd."""
    model, clients = network(), pairs(10, 20, 30)
    client = Client(batch_size=30, batches=1, optimizer=Sgd(0.2))
    federation = Federation.of(model, clients, client=client)
    before = flatten(model)
    state, log = run_round(federation.start(), federation, Streams(0))
    rows = []
    for x, y in clients:
        model.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        rows.append(-0.2 * torch.cat([p.grad.flatten() for p in model.parameters()]))
    weighed = sum(len(y) * row for (_, y), row in zip(clients, rows, strict=True)) / 60
    torch.testing.assert_close(state.parameters, before + weighed)
    assert torch.equal(flatten(model), before), "the user's own model is left alone"
    unflatten(model, state.parameters)
    assert torch.equal(flatten(model), state.parameters)
    assert log.participants == (0, 1, 2)


def test_each_start_is_at_the_parameters_that_the_model_came_with() -> None:
    """Several batches overwrite the federation's own copy of the model; a new loop begins anew."""
    model = network()
    federation = Federation.of(model, pairs(10, 20, 30), client={"batch_size": 8, "batches": 2})
    wanted = flatten(model)
    first, _ = run_round(federation.start(), federation, Streams(0))
    again = federation.start()
    assert torch.equal(again.parameters, wanted)
    second, _ = run_round(again, federation, Streams(0))
    assert torch.equal(second.parameters, first.parameters)
    again.parameters.zero_()
    assert torch.equal(federation.start().parameters, wanted)


def test_the_first_clients_attack_and_data_sets_are_clients_too() -> None:
    clients = [TensorDataset(x, y) for x, y in pairs(*[10] * 6)]
    pgd = Pgd(eps=0.1, step_size=0.1, steps=1)
    federation = Federation.of(
        network(),
        clients,
        aggregator=Krum(f=1),
        attack=SignFlip(scale=50.0),
        malicious=1,
        objective=Adversarial(attack=pgd),
    )
    assert federation.malicious == {0}
    state, rng = federation.start(rng=Streams(1)), Streams(1)
    for _ in range(3):
        state, log = run_round(state, federation, rng)
        assert log.malicious == (0,)
        assert 0 not in log.kept
    assert state.round == 3


WRONG: dict[str, tuple[Any, type[UserError], str]] = {
    "nobody": (lambda: Federation.of(network(), []), ConfigError, "at least one client"),
    "shapes": (
        lambda: Federation.of(network(), [(X, Y), (X[:, :, :2], Y)]),
        ConfigError,
        "different shapes",
    ),
    "bytes and floats": (
        lambda: Federation.of(network(), [(X, Y), ((X * 255).to(torch.uint8), Y)]),
        ConfigError,
        r"different types: \['torch.float32', 'torch.uint8'\]",
    ),
    "a split of other pixels": (
        lambda: Federation.of(network(), [Split(X * 255, Y)]),
        DataError,
        "pixels",
    ),
    "classes": (lambda: Federation.of(network(), [(X, Y + 1)]), ConfigError, "label"),
    "no attack": (
        lambda: Federation.of(network(), pairs(30, 30), malicious=1),
        ConfigError,
        "there is no attack to play",
    ),
    "too many": (
        lambda: Federation.of(network(), pairs(30, 30), malicious=3, attack=SignFlip()),
        ConfigError,
        "malicious is 3, but there are 2 clients",
    ),
    "knowledge": (
        lambda: Federation.of(
            network(),
            pairs(30, 30),
            malicious=1,
            attack=Optimized(attack=SignFlip(), parameter="scale", low=0.5, high=2.0),
            threat=ThreatModel(),
        ),
        ConfigError,
        "attack optimized needs the rule and the number of clients, which the threat model",
    ),
    "a model that does not fit": (
        lambda: Federation.of(nn.Linear(3, 2), [(X, Y)]),
        ConfigError,
        "the model",
    ),
    "no model": (lambda: Federation.of("cnn", [(X, Y)]), ConfigError, "torch.nn.Module"),
    "too few for the rule": (
        lambda: Federation.of(network(), pairs(30, 30), aggregator=Krum(f=1)),
        ConfigError,
        "2f [+] 3",
    ),
    "too few colluders": (
        lambda: Federation.of(
            network(), pairs(30, 30), malicious=1, attack={"name": "a-little-is-enough", "k": 1.0}
        ),
        ConfigError,
        "needs 2 malicious clients",
    ),
    "a rule that trusts the server": (
        lambda: Federation.of(network(), pairs(30, 30), aggregator="fl-trust"),
        ConfigError,
        "trusts an update of the server's own",
    ),
    "data for the server": (
        lambda: Federation.of(network(), pairs(30, 30), server={"root": 5}),
        ConfigError,
        "server.root, threat.data and threat.classes draw examples",
    ),
    "data for the attack": (
        lambda: Federation.of(network(), pairs(30, 30), threat={"data": 1}),
        ConfigError,
        "server.root, threat.data and threat.classes draw examples",
    ),
    "batch norm": (
        lambda: Federation.of(nn.Sequential(nn.BatchNorm2d(1), network()), [(X, Y)]),
        ConfigError,
        "GroupNorm",
    ),
    "data": (lambda: Federation.of(network(), [3]), DataError, "client 0 must be a pair"),
}


@pytest.mark.parametrize("case", WRONG.values(), ids=WRONG)
def test_what_does_not_fit_is_told(case: tuple[Any, type[UserError], str]) -> None:
    with pytest.raises(case[1], match=case[2]):
        case[0]()


def test_an_attack_that_nobody_would_play_is_refused() -> None:
    """In a loop of one's own nobody would say that it trains honestly."""
    with pytest.raises(ConfigError) as told:
        Federation.of(network(), pairs(30, 30), attack="sign-flip")
    assert "attack is sign-flip, but no client would play it" in str(told.value)
    assert "malicious=1" in str(told.value)
    control = Federation.of(network(), pairs(30, 30), attack="sign-flip", malicious=0)
    assert control.attack is None
    action = torch.zeros(1, len(control.start().parameters))
    with pytest.raises(ValueError, match="no client of the federation is malicious"):
        run_round(control.start(), control, Streams(0), action=action)


class Sends:
    """An own attack that sends what it is told to."""

    def __init__(self, made: Any) -> None:
        self.made = made

    def craft(self, state: Any, view: Any, rng: Any) -> Any:
        return self.made(view.own), state


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_log_of_a_round_says_why_each_row_was_dropped() -> None:
    """Nobody watches the progress in a loop of one's own."""
    clients = [(x.flatten(1), y) for x, y in pairs(*[10] * 6)]
    clients[5] = (clients[5][0] * 3e38, clients[5][1])  # its training blows up
    client = Client(batches=1, optimizer=Sgd(lr=1e3))

    def reasons(made: Any, **more: Any) -> dict[int, str]:
        federation = Federation.of(
            network(), clients, attack=Sends(made), malicious=2, client=client
        )
        _, log = run_round(federation.start(), federation, Streams(0), **more)
        found = log.reasons
        assert tuple(found) == log.dropped
        assert found.pop(5) == "its row is not finite"
        return found

    assert reasons(lambda own: -own) == {}
    assert reasons(lambda own: own[0]) == dict.fromkeys(
        (0, 1),
        "the attack sent a tensor torch.float32, [51] in place of rows [2, 51]; "
        "row.expand(2, -1) repeats one row",
    )
    assert reasons(lambda own: own[:, 1:]) == dict.fromkeys(
        (0, 1), "the attack sent a tensor torch.float32, [2, 50] in place of rows [2, 51]"
    )
    assert reasons(lambda own: own.to_sparse()) == dict.fromkeys(
        (0, 1), "the attack sent a tensor torch.float32, [2, 51], sparse, in place of rows [2, 51]"
    )
    assert reasons(lambda own: own * torch.tensor([[1.0], [torch.nan]])) == {
        1: "its row is not finite"
    }
    assert reasons(lambda own: own, action=torch.zeros(1, 50)) == dict.fromkeys(
        (0, 1), "the action is a tensor torch.float32, [1, 50] in place of rows [2, 51]"
    )


def test_the_mean_is_the_default_rule() -> None:
    assert Federation.of(network(), [(X, Y)]).aggregator == Mean()


def test_parts_may_be_given_as_in_a_config() -> None:
    named = Federation.of(
        network(),
        pairs(*[10] * 6),
        aggregator={"name": "krum", "f": 1},
        attack="sign-flip",
        malicious=1,
        objective="erm",
        client={"batch_size": 5, "batches": 2},
        server={"lr": 0.5},
    )
    assert named.aggregator == Krum(f=1)
    assert named.attack == SignFlip()
    assert named.local.config == Client(batch_size=5, batches=2)
    assert named.server.lr == 0.5
    with pytest.raises(ConfigError, match="aggregator: krum alone leaves out f"):
        Federation.of(network(), pairs(30, 30), aggregator="krum")
    with pytest.raises(ConfigError, match="malicious: should be a valid integer"):
        Federation.of(network(), pairs(30, 30), malicious=True, attack="sign-flip")


def test_what_is_large_is_told_in_a_line() -> None:
    federation = Federation.of(network(), pairs(30, 30), attack=SignFlip(), malicious=1)
    state = federation.start()
    told = [repr(each) for each in (federation, state, federation.local.data)]
    assert told[1] == "<FederationState after round 0: 51 parameters>"
    assert told[2] == "<Split: 60 examples [1, 4, 4] float32>"
    assert all(len(text) < 200 for text in told)
    with pytest.raises(ValueError, match=r"the vector must be \[51\] for this model"):
        unflatten(network(), torch.zeros(3))
    with pytest.raises(ValueError, match=r"torch.nn.Module; got 3"):
        flatten(3)  # type: ignore[arg-type]
