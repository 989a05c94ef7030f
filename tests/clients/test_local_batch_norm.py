"""FedBN and SiloBN against their algorithms, written out in plain PyTorch, in float64."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
import torch
from by_workers import Noisy, assert_same_by_workers
from sklearn.datasets import load_digits
from torch import Tensor, nn

from fedrobust import Client, Federation, Streams, View, run_round
from fedrobust.attacks import Distillation, SignFlip
from fedrobust.clients.optimizers import Adam, Sgd
from fedrobust.clients.turn import Store
from fedrobust.compute.parameters import read
from fedrobust.errors import ConfigError, ModelWarning
from fedrobust.objectives import ERM, Adversarial
from fedrobust.perturb import Pgd

DIGITS = load_digits()
X = torch.tensor(DIGITS.images[:100] / 16).unsqueeze(1)
Y = torch.tensor(DIGITS.target[:100])
SHARES = [(X[:60], Y[:60]), (1 - 0.5 * X[60:], Y[60:])]
"""Two clients whose features differ: the second has dim negatives."""


class Net(nn.Module):
    """Its layers are named as in the code of FedBN, which looks for "bn" in a name."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn1 = nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6, momentum=0.3)
        self.fc, self.bn2 = nn.Linear(6 * 36, 12), nn.BatchNorm1d(12)
        self.out = nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn1(self.conv(x)).relu().flatten(1)
        return self.out(self.bn2(self.fc(x)).relu())


def network() -> Net:
    torch.manual_seed(0)
    model = Net().double()
    nn.init.uniform_(model.bn1.weight, 0.5, 1.5)
    return model


def attacked(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """PGD of two steps from x, on the model in evaluation mode."""
    model.eval()
    at = x
    for _ in range(2):
        at = at.detach().requires_grad_(True)
        (slope,) = torch.autograd.grad(nn.functional.cross_entropy(model(at), y), at)
        at = (at + 0.1 * slope.sign()).clamp(x - 0.15, x + 0.15).clamp(0, 1).detach()
    model.train()
    return at


Move = Callable[[nn.Module, Tensor, Tensor], Tensor]


def plain(
    stays: Callable[[str], bool], optimizer: Any, *, keep: bool, move: Move, rounds: int = 3
) -> tuple[nn.Module, list[nn.Module]]:
    """Return the server's model and those of the clients, after the algorithm of FedBN.

    Each client trains; then each tensor that does not stay is averaged and handed to all. The
    clients' weights are their shares of the examples.
    """
    server = network()
    models = [deepcopy(server) for _ in SHARES]
    weights = [len(y) / 100 for _, y in SHARES]
    optimizers = [optimizer(model.parameters()) for model in models]
    for _ in range(rounds):
        if not keep:
            optimizers = [optimizer(model.parameters()) for model in models]
        for model, step, (x, y) in zip(models, optimizers, SHARES, strict=True):
            model.train()
            for _ in range(3):
                moved = move(model, x, y)
                step.zero_grad()
                nn.functional.cross_entropy(model(moved), y).backward()
                step.step()
        with torch.no_grad():
            for key, value in server.state_dict().items():
                if not stays(key):
                    mean = sum(
                        weight * model.state_dict()[key]
                        for weight, model in zip(weights, models, strict=True)
                    )
                    value.copy_(mean)
                    for model in models:
                        model.state_dict()[key].copy_(value)
    return server, models


CASES: dict[str, tuple[Any, Callable[[str], bool], Any, bool, bool]] = {
    "FedBN": ("local", lambda key: "bn" in key, Sgd(0.1), False, False),
    "FedBN, momentum kept": ("local", lambda key: "bn" in key, Sgd(0.1, 0.9), True, False),
    "FedBN, Adam kept, adversarial": ("local", lambda key: "bn" in key, Adam(0.01), True, True),
    "SiloBN": (
        "local_statistics",
        lambda key: "running" in key or "tracked" in key,
        Sgd(0.1),
        False,
        True,
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_it_is_the_algorithm_in_plain_pytorch(
    case: tuple[Any, Callable[[str], bool], Any, bool, bool],
) -> None:
    how, stays, optimizer, keep, adversarial = case
    pgd = Pgd(eps=0.15, step_size=0.1, steps=2, random_start=False)
    federation = Federation.of(
        network(),
        SHARES,
        client=Client(batch_size=60, batches=3, optimizer=optimizer, keep_optimizer=keep),
        objective=Adversarial(ratio=1.0, attack=pgd) if adversarial else ERM(),
        batch_norm=how,
    )
    state, rng = federation.start(), Streams(0)
    for _ in range(3):
        state, _ = run_round(state, federation, rng)

    def made(parameters: Any) -> torch.optim.Optimizer:
        if isinstance(optimizer, Adam):
            return torch.optim.Adam(parameters, lr=0.01)
        return torch.optim.SGD(parameters, lr=0.1, momentum=optimizer.momentum)

    move: Move = attacked if adversarial else lambda model, x, y: x
    server, models = plain(stays, made, keep=keep, move=move)
    trained = dict(server.named_parameters())
    shared = torch.cat([p.flatten() for name, p in trained.items() if not stays(name)])
    torch.testing.assert_close(state.parameters, shared.detach(), rtol=1e-7, atol=1e-9)
    for client, model in enumerate(models):
        own = federation.model(state, client)
        torch.testing.assert_close(own.state_dict(), model.state_dict(), rtol=1e-7, atol=1e-9)
        torch.testing.assert_close(own(X), model.eval()(X), rtol=1e-6, atol=1e-8)
    first, second = (model.state_dict() for model in models)
    assert {key for key in first if not torch.equal(first[key], second[key])} >= {
        "bn1.running_mean",
        *(["bn1.weight", "bn2.bias"] if how == "local" else []),
    }


def many(model: nn.Module, **changes: Any) -> Federation:
    """Ten clients of ten examples, in batches of four, four and two."""
    clients = [(X[i::10], Y[i::10]) for i in range(10)]
    pgd = Pgd(eps=0.15, step_size=0.1, steps=2)
    settings = {
        "client": Client(batch_size=4, epochs=1, optimizer=Adam(0.01), keep_optimizer=True),
        "objective": Adversarial(ratio=0.5, attack=pgd),
        "participation": {"name": "sample", "clients": 4},
        "batch_norm": "local",
    }
    return Federation.of(model, clients, **{**settings, **changes})


@pytest.mark.parametrize("noisy", [False, True])
def test_any_number_of_workers_gives_the_same_bits(noisy: bool) -> None:
    def play() -> list[Tensor]:
        federation = many(nn.Sequential(Noisy(), network()) if noisy else network())
        state, rng = federation.start(), Streams(1)
        for _ in range(3):
            state, _ = run_round(state, federation, rng)
        return [
            state.parameters,
            *(v for i in sorted(state.store) for v in state.store[i].values()),
        ]

    found = assert_same_by_workers(play, (1, 3))
    assert len(found) > 4 * 13


def test_only_those_who_took_part_have_a_batch_norm_of_their_own() -> None:
    model = network()
    federation = many(model)
    state, rng = federation.start(), Streams(1)
    state, log = run_round(state, federation, rng)
    assert len(log.participants) == 4
    for client in range(10):
        own = federation.model(state, client)
        same = torch.equal(own.get_buffer("bn1.running_mean"), model.bn1.running_mean)
        assert same == (client not in log.participants)
        assert torch.equal(own.get_parameter("bn1.weight"), model.bn1.weight) == same
        assert not own.training
    assert state.parameters.shape == (sum(p.numel() for p in model.parameters()) - 2 * 18,)
    for client in (None, 10, -1):
        with pytest.raises(ConfigError, match=r"name one of the clients 0 to 9"):
            federation.model(state, client)
    with pytest.raises(ConfigError, match="leave client out"):
        many(model, batch_norm="to_group_norm").model(state, 1)


def test_a_client_whose_training_blows_up_keeps_what_it_had() -> None:
    federation = many(network(), participation="all")
    local, rng = federation.local, Streams(1)
    store: Store = {}
    start = read(local.model)
    local.updates(start, store, [3], rng, 1)
    before = deepcopy(store[3])
    wild = replace(local, config=replace(local.config, optimizer=Sgd(1e300)))
    row = wild.updates(start, store, [3], rng, 2)
    assert not row.isfinite().all()
    own = {name: value for name, value in store[3].items() if name.startswith("batch_norm.")}
    assert len(own) == 10
    for name, value in own.items():
        assert torch.equal(value, before[name]), name


class AsksForTheModel:
    """An attack of a user's own."""

    def craft(self, state: Any, view: View, rng: Any) -> Any:
        view.model()
        return view.own, state


def test_there_is_no_model_for_an_attack() -> None:
    with pytest.raises(ConfigError, match="attack distillation works on the whole model"):
        many(network(), attack=Distillation(), malicious=1)
    federation = many(network(), attack=AsksForTheModel(), malicious=1, participation="all")
    with pytest.raises(ConfigError, match="AsksForTheModel asks for the model, but each client"):
        run_round(federation.start(), federation, Streams(0))
    federation = many(network(), attack=SignFlip(), malicious=1, participation="all")
    state, log = run_round(federation.start(), federation, Streams(0))
    assert log.malicious == (0,)
    assert state.parameters.isfinite().all()


@pytest.mark.parametrize(
    ("client", "alone"),
    [
        (Client(batch_size=3, epochs=1), True),
        (Client(batch_size=3, batches=3), False),
        (Client(batch_size=3, batches=4), True),
        (Client(batch_size=1, batches=1), True),
        (Client(batch_size=5, epochs=2), False),
        (Client(batch_size=100, epochs=2), False),
    ],
)
def test_a_batch_of_one_example_is_refused_before_the_first_round(
    client: Client, alone: bool
) -> None:
    """Ten examples each: in batches of three, the last of a pass has one."""
    if alone:
        with pytest.raises(
            ConfigError, match=r"client 0 would train on a batch of one.*batch_size"
        ):
            many(network(), client=client)
        return
    federation = many(network(), client=client)
    run_round(federation.start(), federation, Streams(0))


def test_images_may_come_alone_where_each_has_many_pixels() -> None:
    model = network()
    model.bn2 = nn.Identity()  # type: ignore[assignment]
    federation = many(model, client=Client(batch_size=3, epochs=1))
    run_round(federation.start(), federation, Streams(0))


def test_a_layer_in_two_places_stays_once() -> None:
    model = network()
    twice = nn.Sequential(model.conv, model.bn1, nn.ReLU(), model.bn1, nn.Flatten(), model.fc)
    federation = many(twice, participation="all")
    state, _ = run_round(federation.start(), federation, Streams(0))
    own = federation.local.own
    assert own is not None
    assert own.shared(federation.model(state, 0)).keys() == {
        "0.weight",
        "0.bias",
        "5.weight",
        "5.bias",
    }
    assert int(state.store[0]["batch_norm.1.num_batches_tracked"]) == 3 * 2


def test_what_local_cannot_do_is_told() -> None:
    model = network()
    model.bn1 = nn.BatchNorm2d(6, track_running_stats=False).double()
    with pytest.raises(ConfigError, match=r"local uses the running statistics.*'bn1' keeps none"):
        many(model)
    model.bn1 = nn.InstanceNorm2d(6, track_running_stats=True).double()  # type: ignore[assignment]
    with pytest.raises(ConfigError, match=r"bn1.running_mean changes.*track_running_stats=False"):
        many(model)
    with pytest.raises(ConfigError, match="nothing is left to aggregate"):
        many(nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64)).double())
    with pytest.warns(ModelWarning, match="batch_norm is local, but the model has no BatchNorm"):
        many(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).double())
