"""BatchNorm in a federation: frozen, or replaced by GroupNorm, against plain PyTorch."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from fedrobust import Client, Federation, Streams, flatten, run_round
from fedrobust.clients.optimizers import Sgd
from fedrobust.errors import ConfigError, ModelWarning
from fedrobust.models import build_model, built
from fedrobust.models.batch_norm import groups_of

DIGITS = load_digits()
X = torch.tensor(DIGITS.images[:90] / 16).unsqueeze(1)
Y = torch.tensor(DIGITS.target[:90])
CLIENTS = [(X[:30], Y[:30]), (X[30:], Y[30:])]
FULL = Client(batch_size=60, batches=3, optimizer=Sgd(0.1))


@contextmanager
def warned(text: str | None) -> Iterator[None]:
    """Something is warned of; with None, nothing (the suite turns warnings into errors)."""
    if text is None:
        yield
        return
    with pytest.warns(ModelWarning, match=text):
        yield


def network(middle: nn.Module, *, measured: bool = True) -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3), middle, nn.ReLU(), nn.Flatten(), nn.Linear(16 * 36, 10)
    ).double()
    if measured and isinstance(middle, nn.BatchNorm2d):
        for batch in (X[:40], X[40:]):  # trained elsewhere, so that there are statistics
            model.train()(batch)
        assert middle.weight is not None
        middle.weight.data.uniform_(0.5, 2.0)
        middle.bias.data.normal_()
    return model


def by_hand(model: nn.Module, train: Callable[[nn.Module], None], rounds: int) -> nn.Module:
    """FedAvg in plain PyTorch: each client takes three steps of SGD on all of its examples."""
    model = deepcopy(model)
    for _ in range(rounds):
        locals_, sizes = [], [len(y) for _, y in CLIENTS]
        for x, y in CLIENTS:
            own = deepcopy(model)
            train(own)
            optimizer = torch.optim.SGD(own.parameters(), lr=0.1)
            for _ in range(3):
                optimizer.zero_grad()
                nn.functional.cross_entropy(own(x), y).backward()
                optimizer.step()
            locals_.append(dict(own.named_parameters()))
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                mean = sum(n * found[name] for n, found in zip(sizes, locals_, strict=True)) / 90
                parameter.copy_(mean)
    return model


def federated(model: nn.Module, batch_norm: Any, rounds: int = 2) -> tuple[Federation, Tensor]:
    federation = Federation.of(model, CLIENTS, client=FULL, batch_norm=batch_norm)
    state, rng = federation.start(), Streams(0)
    for _ in range(rounds):
        state, _ = run_round(state, federation, rng)
    return federation, state.parameters


def test_frozen_is_training_in_which_batch_norm_is_in_evaluation_mode() -> None:
    model = network(nn.BatchNorm2d(16))
    before = deepcopy(model.state_dict())

    def train(own: nn.Module) -> None:
        own.train()
        own[1].eval()  # type: ignore[index]

    federation, parameters = federated(model, "frozen")
    expected = by_hand(model, train, 2)
    torch.testing.assert_close(parameters, flatten(expected), rtol=1e-10, atol=1e-12)
    assert not torch.equal(expected[1].weight, before["1.weight"]), "γ is trained"  # type: ignore[index]
    workspace = federation.local.model
    for name in ("1.running_mean", "1.running_var", "1.num_batches_tracked"):
        assert torch.equal(workspace.state_dict()[name], before[name])
        assert torch.equal(model.state_dict()[name], before[name]), "the user's own is left alone"
    assert workspace.state_dict().keys() == before.keys(), "the weights fit the user's own network"


def normed(x: Tensor, weight: Tensor, bias: Tensor, groups: int) -> Tensor:
    """GroupNorm, written out: Wu & He 2018, equations 1, 2 and 7."""
    out = torch.empty_like(x)
    size = x.shape[1] // groups
    for i in range(len(x)):
        for k in range(groups):
            part = x[i, k * size : (k + 1) * size]
            mean = part.sum() / part.numel()
            variance = (part - mean).square().sum() / part.numel()
            for c in range(size):
                at = k * size + c
                out[i, at] = weight[at] * (part[c] - mean) / (variance + 0.03).sqrt() + bias[at]
    return out


def test_to_group_norm_is_group_norm_with_the_same_weights() -> None:
    model = network(nn.BatchNorm2d(16, eps=0.03))
    conv, norm, _, _, linear = model
    found = built(model, (1, 8, 8), 10, torch.Generator(), batch_norm="to_group_norm")
    hidden = normed(conv(X), norm.weight, norm.bias, 2)
    torch.testing.assert_close(found.model(X), linear(hidden.relu().flatten(1)))
    assert found.notes == (
        "batch_norm: to_group_norm: GroupNorm replaces BatchNorm. The layers: 1 (groups: 2)",
    )
    assert "the statistics that these layers came with are dropped" in found.doubts[0]


def test_to_group_norm_trains_like_the_network_with_group_norm() -> None:
    torch.manual_seed(1)
    model, same = network(nn.BatchNorm2d(16), measured=False), network(nn.GroupNorm(2, 16))
    torch.testing.assert_close(flatten(model), flatten(same))
    federation, parameters = federated(model, "to_group_norm")
    expected = by_hand(same, lambda own: None, 2)
    torch.testing.assert_close(parameters, flatten(expected), rtol=1e-10, atol=1e-12)
    trained = federation.model(federation.start(parameters))
    torch.testing.assert_close(trained(X), expected(X))


@pytest.mark.parametrize(
    ("channels", "groups"),
    [
        *((1, 1), (7, 1), (8, 1), (12, 1), (16, 2), (20, 2), (24, 2), (32, 4), (40, 4)),
        *((64, 8), (128, 16), (256, 32), (2048, 32), (257, 1)),
    ],
)
def test_the_number_of_groups(channels: int, groups: int) -> None:
    assert groups_of(channels) == groups


class Own(nn.BatchNorm2d):
    """A BatchNorm of a user's own, which does more."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).relu()


class Hidden(nn.Module):
    """Calls its layer by a plain list."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.conv = nn.BatchNorm2d(16), nn.Conv2d(1, 16, 3)
        self.out = nn.Linear(576, 10)
        self.layers = [self.conv, self.norm, nn.Flatten(), self.out]

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


class Twice(nn.Module):
    """One BatchNorm in two places."""

    def __init__(self) -> None:
        super().__init__()
        norm = nn.BatchNorm2d(16)
        self.body = nn.Sequential(nn.Conv2d(1, 16, 3), norm, nn.ReLU())
        self.again, self.out = norm, nn.Linear(576, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.again(self.body(x)).flatten(1))


def listened() -> nn.Module:
    norm = nn.BatchNorm2d(16)
    norm.register_forward_hook(lambda module, given, found: 2 * found)
    return norm


def flat(features: int, norm: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, features), norm, nn.Linear(features, 10))


def treat(model: nn.Module, how: Any) -> nn.Module:
    return build_model(model.float(), (1, 8, 8), 10, torch.Generator(), batch_norm=how)


REFUSED: dict[str, tuple[Callable[[], nn.Module], str, str]] = {
    "as today": (lambda: network(nn.BatchNorm2d(16)), "refuse", "to_group_norm puts.*frozen never"),
    "no statistics": (
        lambda: network(nn.BatchNorm2d(16, track_running_stats=False)),
        "frozen",
        "layer '1' keeps none .*use to_group_norm",
    ),
    "a class of one's own": (lambda: network(Own(16)), "to_group_norm", "'1': it is a Own, which"),
    "hooks": (lambda: network(listened()), "to_group_norm", "'1': it has hooks"),
    "a single value": (lambda: flat(1, nn.BatchNorm1d(1)), "to_group_norm", "has one channel"),
    "a plain list": (Hidden, "to_group_norm", "still calls the old one: .* ModuleList"),
    "instance norm": (
        lambda: network(nn.InstanceNorm2d(16, track_running_stats=True)),
        "to_group_norm",
        "1.running_mean changes.*Use InstanceNorm2d with track_running_stats=False",
    ),
    "a lazy layer": (lambda: network(nn.LazyBatchNorm2d()), "frozen", "does not fit.*ninitialized"),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_treated_is_refused(case: tuple[Callable[[], nn.Module], str, str]) -> None:
    make, how, message = case
    with pytest.raises(ConfigError, match=message):
        treat(make(), how)


@pytest.mark.parametrize(
    "norm",
    [
        nn.BatchNorm2d(16, affine=False),
        nn.BatchNorm2d(16, track_running_stats=False),
        nn.SyncBatchNorm(16),
    ],
    ids=["without affine", "without statistics", "of several GPUs"],
)
def test_other_batch_norms_become_group_norm(norm: nn.Module) -> None:
    model = treat(network(norm, measured=False), "to_group_norm")
    found = model[1]  # type: ignore[index]
    assert type(found) is nn.GroupNorm
    assert (found.num_groups, found.num_channels, found.affine) == (2, 16, norm.affine)


def test_a_batch_norm_of_ones_own_is_frozen_as_it_is() -> None:
    model = network(Own(16), measured=False).float()
    frozen = treat(model, "frozen").train()
    x = X.float()
    torch.testing.assert_close(frozen(x), model.eval()(x))
    assert not torch.allclose(model.train()(x), model.eval()(x)), "the mode matters"


def test_a_loop_of_ones_own_treats_a_batch_norm_without_statistics() -> None:
    model = network(nn.BatchNorm2d(16, track_running_stats=False), measured=False)
    found = Federation.of(model, CLIENTS, batch_norm="to_group_norm").local.model
    assert isinstance(found[1], nn.GroupNorm)  # type: ignore[index]


def test_a_layer_in_two_places_stays_one_layer_and_a_network_may_be_one_layer() -> None:
    twice = treat(Twice(), "to_group_norm")
    assert twice.again is twice.body[1]
    assert isinstance(twice.again, nn.GroupNorm)
    found = build_model(
        nn.BatchNorm1d(16), (16,), 16, torch.Generator(), batch_norm="to_group_norm"
    )
    assert isinstance(found, nn.GroupNorm)


class Lazy:
    """Learns the number of its channels when it is first called; a network that is built."""

    def build(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        return nn.Sequential(
            nn.LazyConv2d(16, 3), nn.LazyBatchNorm2d(), nn.Flatten(), nn.LazyLinear(classes)
        )


@pytest.mark.parametrize("how", ["frozen", "to_group_norm"])
def test_lazy_layers_are_treated_when_they_are_initialised(how: Any) -> None:
    found = build_model(Lazy(), (1, 8, 8), 10, torch.Generator(), batch_norm=how)
    assert "Lazy" not in repr(found)
    lazy = Lazy().build((1, 8, 8), 10)
    clients = [(X.float(), Y)]
    with warned("do not normalise" if how == "frozen" else None):
        Federation.of(lazy, clients, batch_norm=how)


@pytest.mark.parametrize(
    ("how", "measured", "text"),
    [
        ("frozen", False, "do not normalise: begin with a trained model, or use to_group_norm"),
        ("frozen", True, None),
        ("to_group_norm", True, "statistics that these layers came with are dropped"),
        ("to_group_norm", False, None),
    ],
)
def test_a_loop_of_ones_own_is_warned(how: Any, measured: bool, text: str | None) -> None:
    with warned(text):
        Federation.of(network(nn.BatchNorm2d(16), measured=measured), CLIENTS, batch_norm=how)


def test_a_model_without_batch_norm_and_a_misspelt_treatment_are_told() -> None:
    with pytest.warns(ModelWarning, match="the model has no BatchNorm"):
        Federation.of(network(nn.GroupNorm(2, 16)), CLIENTS, batch_norm="frozen")
    with pytest.raises(ConfigError, match=r"batch_norm: should be 'refuse', 'frozen'.*'frosen'"):
        Federation.of(network(nn.BatchNorm2d(16)), CLIENTS, batch_norm="frosen")
