"""The papers' networks have the sizes that the papers and their sources give."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from fedrobust import Federation, View, flatten, unflatten
from fedrobust.compute.parameters import Layout, read, write
from fedrobust.errors import ConfigError
from fedrobust.evaluation import smoothness_bound
from fedrobust.models import (
    CifarCnn,
    DigitsCnn,
    EluCnn,
    LeafCnn,
    MnistCnn,
    MnistCnnSmall,
    ModelSpec,
    RingMlp,
    build_model,
)
from fedrobust.models.elu_network import EluNetwork

G = torch.Generator().manual_seed(3)


@pytest.mark.parametrize(
    ("spec", "shape", "classes", "parameters"),
    [
        (MnistCnn(), (1, 28, 28), 10, 3_274_634),
        (MnistCnn(width=8), (1, 28, 28), 10, 206_954),
        (MnistCnnSmall(), (1, 28, 28), 10, 166_406),
        (LeafCnn(), (1, 28, 28), 62, 6_603_710),
        (LeafCnn(width=16), (1, 28, 28), 62, 1_683_454),
        (RingMlp(), (2,), 2, 28),
        (DigitsCnn(), (1, 8, 8), 10, 38_282),
        (CifarCnn(), (3, 32, 32), 10, 1_148_874),
    ],
)
def test_number_of_parameters(
    spec: ModelSpec, shape: tuple[int, ...], classes: int, parameters: int
) -> None:
    model = build_model(spec, shape, classes, G)
    assert Layout.of(model).size == parameters
    assert model(torch.rand(3, *shape)).shape == (3, classes)


def test_drfls_third_convolution_is_the_state_of_its_learned_attack() -> None:
    layout = Layout.of(build_model(EluCnn(), (1, 28, 28), 10, G))
    third = [name for name in layout.slices if name.startswith("4.")]
    assert sum(layout.slices[n].stop - layout.slices[n].start for n in third) == 409_728
    quarter = build_model(EluCnn(width=16), (1, 28, 28), 10, G)
    assert quarter[4].weight.shape == (32, 32, 5, 5)


def test_madrys_initialisation() -> None:
    """A normal of deviation 0.1 that is cut at two deviations has a deviation of 0.088."""
    model = build_model(MnistCnn(init="madry"), (1, 28, 28), 10, G)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            assert bool((parameter == 0.1).all())
        else:
            assert 0.15 < float(parameter.detach().abs().max()) <= 0.2
            assert float(parameter.detach().std()) == pytest.approx(0.088, rel=0.05)


def test_leafs_network_begins_as_tensorflow_begins_it() -> None:
    """Glorot's uniform weights: of 5 × 5 from 1 to 32 channels, below √(6 / (25 + 800))."""
    model = build_model(LeafCnn(), (1, 28, 28), 62, G)
    fans = {"0": 25 + 800, "3": 800 + 1600, "7": 3136 + 2048, "9": 2048 + 62}
    for name, sum_of_fans in fans.items():
        layer = model.get_submodule(name)
        bound = (6 / sum_of_fans) ** 0.5
        assert 0.97 * bound < layer.weight.abs().max() <= bound
        assert layer.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)
        assert layer.bias.abs().max() == 0


def test_initial_parameters_depend_on_the_generator_alone() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one = build_model(MnistCnnSmall(), (1, 28, 28), 10, torch.Generator().manual_seed(7))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    same = build_model(MnistCnnSmall(), (1, 28, 28), 10, torch.Generator().manual_seed(7))
    other = build_model(MnistCnnSmall(), (1, 28, 28), 10, torch.Generator().manual_seed(8))
    assert torch.equal(read(one), read(same))
    assert not torch.equal(read(one), read(other))


def test_a_users_network_is_copied_with_its_parameters() -> None:
    own = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    copy = build_model(own, (1, 2, 2), 2, G)
    assert torch.equal(read(copy), read(own))
    write(copy, torch.zeros(10))
    assert read(own).abs().sum() > 0


@pytest.mark.parametrize(
    ("spec", "shape", "classes", "message"),
    [
        (MnistCnn(), (2,), 2, "does not fit examples of shape"),
        (EluCnn(), (1, 8, 8), 10, "does not fit examples of shape"),
        (nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), (1, 2, 2), 2, "2 classes"),
        (nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), (1, 2, 2), 3, "no example, renumber them"),
        (nn.LSTM(2, 2), (2,), 2, "one logit for each"),
        (object(), (2,), 2, "neither"),
    ],
)
def test_a_network_that_does_not_fit_is_refused(
    spec: ModelSpec, shape: tuple[int, ...], classes: int, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        build_model(spec, shape, classes, G)


def test_batch_norm_is_refused_with_advice() -> None:
    normed = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3))
    with pytest.raises(ConfigError, match=r"running_mean changes.*GroupNorm"):
        build_model(normed, (1, 4, 4), 3, G)


def test_a_network_without_anything_to_train_is_refused_wherever_it_comes_in() -> None:
    frozen = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).requires_grad_(False)
    clients = [(torch.rand(6, 1, 4, 4), torch.arange(6) % 3)]
    for model, why in ((frozen, "all are frozen; call requires_grad_"), (Summing(), "none at all")):
        for use in (
            lambda model: Layout.of(model),
            lambda model: flatten(model),
            lambda model: unflatten(model, torch.zeros(51)),
            lambda model: build_model(model, (1, 4, 4), 3, G),
            lambda model: Federation.of(model, clients),
            lambda model: View.of(torch.zeros(1, 51), model=model),
        ):
            with pytest.raises(ConfigError, match=f"model has no parameters to train: .*{why}"):
                use(model)
        assert build_model(model, (1, 4, 4), 3, G, trains=False)(clients[0][0]).shape == (6, 3)


class Summing(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1)[:, :15].view(-1, 3, 5).sum(dim=2)


def test_flat_vector_round_trip_and_named_slices() -> None:
    model = build_model(MnistCnnSmall(), (1, 28, 28), 10, G)
    layout, vector = Layout.of(model), torch.arange(166_406.0)
    write(model, vector)
    assert torch.equal(read(model), vector)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter.detach().reshape(-1), vector[layout.slices[name]])


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(1, 28, 28), (1, 28, 32), (3, 28, 28), (1, 30, 29)])
def test_the_elu_network_on_blocks_is_its_layers_one_after_the_other(
    shape: tuple[int, ...],
) -> None:
    """Logits, both gradients, and the gradient of a gradient that matches one (inversion)."""
    blocks = EluCnn(width=16).build(shape, 10).double()
    plain = nn.Sequential(*blocks.children())
    x = torch.rand(2, *shape, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(2, 10, dtype=torch.float64)

    def told(model: nn.Module) -> list[Tensor]:
        logits = model(x)
        parameters = list(model.parameters())
        by_all = torch.autograd.grad((logits * weights).sum(), [x, *parameters], create_graph=True)
        match = sum((g.square().sum() for g in by_all[1:]), torch.zeros(()).double())
        return [logits, *by_all, *torch.autograd.grad(match, [x, parameters[0]])]

    for one, other in zip(told(blocks), told(plain), strict=True):
        torch.testing.assert_close(one, other)
    if shape == (1, 28, 28):  # which knows the layers, and not what they are given
        assert smoothness_bound(blocks, shape) == pytest.approx(smoothness_bound(plain, shape))


def refuse(*_: object) -> Tensor:
    raise AssertionError("a layer was asked")


def test_the_elu_network_does_not_ask_its_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    network = EluCnn(width=16).build((1, 28, 28), 10)
    monkeypatch.setattr(nn.Conv2d, "forward", refuse)
    assert network(torch.rand(2, 1, 28, 28)).shape == (2, 10)
    with pytest.raises(AssertionError, match="a layer was asked"):
        network(torch.rand(2, 1, 30, 30))


def _tenfold(network: EluNetwork) -> None:
    network[2].forward = lambda x: 10 * F.conv2d(x, network[2].weight, stride=2)  # type: ignore[method-assign]


CHANGES: dict[str, Callable[[EluNetwork], object]] = {
    "another layer": lambda n: n.__setitem__(1, nn.ReLU()),
    "another slope": lambda n: setattr(n[1], "alpha", 0.1),
    "another padding": lambda n: n.__setitem__(
        0, nn.Conv2d(1, 16, 8, stride=2, padding=3, padding_mode="reflect").double()
    ),
    "other strides": lambda n: (setattr(n[2], "stride", (3, 3)), setattr(n[4], "padding", (1, 1))),
    "a parametrization": lambda n: nn.utils.parametrizations.weight_norm(n[2]),  # type: ignore[no-untyped-call]
    "a forward of its own": _tenfold,
    "fewer layers": lambda n: n.__delitem__(5),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_an_elu_network_whose_layers_were_changed_computes_what_they_do(
    change: Callable[[EluNetwork], object],
) -> None:
    network = EluCnn(width=16).build((1, 28, 28), 10).double()
    x = torch.rand(2, 1, 28, 28, dtype=torch.float64)
    before = network(x)
    change(network)
    assert type(network[2]) is not nn.Conv2d or (network(x) - before).abs().max() > 1e-4
    torch.testing.assert_close(network(x), nn.Sequential(*network.children())(x))


@pytest.mark.parametrize(
    "listen",
    [
        lambda n, hook: n[2].register_forward_hook(hook),
        lambda n, hook: n[2].register_forward_pre_hook(hook),
        lambda n, hook: n[2].register_full_backward_hook(hook),
        lambda n, hook: nn.modules.module.register_module_forward_hook(
            lambda module, *rest: hook(module, *rest) if module is n[2] else None
        ),
    ],
    ids=["forward", "before it", "backward", "of all modules"],
)
def test_whoever_listens_to_a_layer_of_the_elu_network_hears_it(
    listen: Callable[[EluNetwork, Callable[..., None]], RemovableHandle],
) -> None:
    network = EluCnn(width=16).build((1, 28, 28), 10)
    heard: list[nn.Module] = []
    handle = listen(network, lambda module, *_: heard.append(module))
    network(torch.rand(2, 1, 28, 28)).sum().backward()
    handle.remove()
    assert heard == [network[2]]


def test_the_elu_networks_slopes_survive_bfloat16() -> None:
    """Where its first layer is saturated, as its layers' do: e^z is not to be had from e^z − 1."""
    network = EluCnn(width=16).build((1, 28, 28), 10)
    nn.init.constant_(network[0].bias, -6.0)
    x = torch.rand(64, 1, 28, 28)

    def slope(model: nn.Module, low: bool) -> Tensor:
        at = x.clone().requires_grad_(True)
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            return torch.autograd.grad(model(at).float().logsumexp(1).sum(), at)[0]

    exact = slope(network, False)
    assert (slope(network, True) - exact).norm() < 0.03 * exact.norm()


def test_parts_of_the_elu_network_are_networks() -> None:
    network = EluCnn(width=16).build((1, 28, 28), 10)
    x = torch.rand(2, 1, 28, 28)
    torch.testing.assert_close(network[-1](network[:-1](x)), network(x))


def test_the_elu_network_takes_images_of_any_size_and_depth() -> None:
    for shape in ((1, 28, 28), (3, 32, 32), (1, 29, 29)):
        model = EluCnn(width=16).build(shape, 10)
        assert model(torch.rand(2, *shape)).shape == (2, 10)
        assert next(p.shape for p in model.parameters()) == (16, shape[0], 8, 8)
