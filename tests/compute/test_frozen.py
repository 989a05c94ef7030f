"""The fast form of a network against autograd, and which networks have one."""

import threading
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from fedrobust.compute.frozen import AsItIs, FrozenNetwork, fastest
from fedrobust.compute.layers import ChannelsFirst, FromOneChannel, Pool, Whole
from fedrobust.compute.network import cross_entropy
from fedrobust.models import DigitsCnn, EluCnn, LeafCnn, MnistCnn, MnistCnnSmall, RingMlp


def inputs(shape: tuple[int, ...], b: int = 5, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.rand(b, *shape, generator=torch.Generator().manual_seed(1), dtype=dtype)


def initialised(*layers: nn.Module, dtype: torch.dtype = torch.float64) -> nn.Sequential:
    """The layers, with weights that do not depend on the global generator."""
    model, g = nn.Sequential(*layers).to(dtype), torch.Generator().manual_seed(2)
    with torch.no_grad():
        for value in model.parameters():
            value.copy_(
                torch.randn(value.shape, generator=g, dtype=dtype) / value[0].numel() ** 0.5
            )
    return model


def require_equal(model: nn.Module, x: Tensor, classes: int, tolerance: float = 1e-12) -> None:
    """Logits, losses and slopes of the fast form are those of autograd up to ``tolerance``."""
    y, kept = torch.arange(len(x)) % classes, x.clone()
    fast, plain = fastest(model, x), AsItIs(model)
    assert isinstance(fast, FrozenNetwork)
    moving = fast.enter(x)
    assert torch.equal(fast.leave(moving), x)
    assert moving.numel() == x.numel()
    near = {"rtol": tolerance, "atol": tolerance}
    torch.testing.assert_close(fast.logits(moving), plain.logits(x).detach(), **near)
    slope = plain.input_gradient(x, y)
    torch.testing.assert_close(fast.leave(fast.input_gradient(moving, y)), slope, **near)
    for loss in (lambda z: cross_entropy(z, y), lambda z: cross_entropy(z, y, "sum")):
        found, expected = fast.ascent(moving, loss), plain.ascent(x, loss)
        torch.testing.assert_close(found[:2], expected[:2], **near)
        torch.testing.assert_close(fast.leave(found[2]), expected[2], **near)
    assert torch.equal(x, kept)


@pytest.mark.parametrize("width", [16, 64])
def test_drfls_network_works_on_blocks(width: Any) -> None:
    model = EluCnn(width=width).build((1, 28, 28), 10).double()
    require_equal(model, inputs((1, 28, 28)), 10)
    form = FrozenNetwork(model, inputs((1, 28, 28)))
    assert form.blocks is not None
    assert form.blocks.rows.inner == 4
    assert isinstance(form.layers[4], Whole)


@pytest.mark.parametrize(
    ("spec", "shape"),
    [
        (MnistCnnSmall(), (1, 28, 28)),
        (MnistCnn(), (1, 28, 28)),
        (LeafCnn(), (1, 28, 28)),
        (DigitsCnn(), (1, 8, 8)),
        (MnistCnn(), (3, 32, 24)),
        (MnistCnnSmall(), (3, 32, 20)),
        (EluCnn(width=16), (3, 32, 28)),
        (RingMlp(), (2,)),
    ],
)
def test_the_papers_networks_have_a_fast_form(spec: Any, shape: tuple[int, ...]) -> None:
    model = spec.build(shape, 10).double().to(memory_format=torch.channels_last)
    require_equal(model, inputs(shape), 10)
    form = FrozenNetwork(model, inputs(shape))
    assert isinstance(form.layers[0], FromOneChannel) == (shape[0] == 1)
    assert (form.blocks is not None) == (shape in [(3, 32, 20), (3, 32, 28)])
    if isinstance(spec, MnistCnn):
        assert isinstance(form.layers[1], Pool)


def test_few_images_are_reordered_and_for_many_the_weights() -> None:
    model = initialised(
        nn.Conv2d(1, 3, 3), nn.ELU(), nn.Flatten(), nn.Linear(3 * 4 * 5, 64), nn.Linear(64, 10)
    )
    for b, images in ((3, True), (4, False)):
        x = inputs((1, 6, 7), b)
        assert AsItIs(model).input_gradient(x, torch.arange(b)).abs().min() > 0
        require_equal(model, x, 10)
        kinds = [type(layer) for layer in FrozenNetwork(model, x).layers]
        assert (ChannelsFirst in kinds) == images


ACTIVATIONS: list[Callable[[], nn.Module]] = [
    nn.ReLU,
    nn.ELU,
    nn.Identity,
    lambda: nn.ReLU(inplace=True),
    lambda: nn.ELU(0.3, inplace=True),
]


@st.composite
def networks(draw: st.DrawFn) -> tuple[nn.Sequential, tuple[int, ...], int]:
    """A chain of up to three convolutions, with pools and activations, and linear layers."""
    pair = lambda low, high: st.tuples(st.integers(low, high), st.integers(low, high))  # noqa: E731
    shape = (draw(st.integers(1, 5)), *draw(pair(12, 26)))
    if draw(st.booleans()):
        shape = (shape[0], 4 * (shape[1] // 4), 4 * (shape[2] // 4))
    layers: list[nn.Module] = []
    x = torch.zeros(1, *shape)
    for _ in range(draw(st.integers(0, 3))):
        groups = draw(st.sampled_from([1, 1, 1, x.shape[1]]))
        layer = nn.Conv2d(
            x.shape[1],
            groups * draw(st.integers(1, 4)),
            draw(pair(1, 5)),
            draw(st.one_of(st.integers(1, 3), pair(1, 3))),
            draw(st.one_of(st.just(0), pair(0, 2))),
            draw(st.sampled_from([1, 1, 1, 2])),
            groups,
            bias=draw(st.booleans()),
        )
        added = [layer, draw(st.sampled_from(ACTIVATIONS))()]
        if draw(st.booleans()):
            added.append(nn.MaxPool2d(*draw(st.sampled_from([(2,), (3, 2, 1), (2, 1), (3,)]))))
        try:
            after = nn.Sequential(*added)(x)
        except RuntimeError:  # the image has become too small
            break
        layers, x = [*layers, *added], after
    layers.append(nn.Flatten())
    width = x[0].numel()
    for _ in range(draw(st.integers(0, 2))):
        layers += [nn.Linear(width, 7), draw(st.sampled_from(ACTIVATIONS))()]
        width = 7
    layers.append(nn.Linear(width, 4, bias=draw(st.booleans())))
    return initialised(*layers), shape, draw(st.integers(1, 4))


@pytest.mark.slow
@settings(max_examples=150, deadline=None, derandomize=True)
@given(networks())
def test_any_chain_of_known_layers_gives_the_slopes_of_autograd(
    drawn: tuple[nn.Sequential, tuple[int, ...], int],
) -> None:
    model, shape, b = drawn
    require_equal(model, inputs(shape, b), 4)


STRIDED = [
    # channels, size, kernel, stride, padding, then kernel and stride of the next convolution
    (3, (12, 20), 4, 2, 1, None, None),
    (2, (12, 12), 3, 3, 0, None, None),
    (4, (16, 12), (4, 3), (2, 3), (1, 0), None, None),
    (1, (16, 24), 5, 2, 2, 4, 2),
    (1, (28, 28), 8, 2, 3, 6, 2),
    (2, (24, 36), (4, 6), (2, 3), (1, 2), (3, 4), (3, 2)),
    (3, (16, 16), 3, 1, 1, 2, 2),
    (1, (16, 16), 2, 2, 0, 3, 2),
]


@pytest.mark.parametrize(("c", "size", "k", "s", "p", "k2", "s2"), STRIDED)
def test_blocks_of_every_kind_give_the_slopes_of_autograd(
    c: int, size: tuple[int, int], k: Any, s: Any, p: Any, k2: Any, s2: Any
) -> None:
    body: list[nn.Module] = [nn.Conv2d(c, 3, k, s, p), nn.ELU()]
    if k2 is not None:
        body += [nn.Conv2d(3, 5, k2, s2), nn.ReLU()]
    features = nn.Sequential(*body, nn.Flatten())(torch.zeros(1, c, *size)).shape[1]
    model = initialised(*body, nn.Flatten(), nn.Linear(features, 4))
    x = inputs((c, *size))
    assert FrozenNetwork(model, x).blocks is not None
    require_equal(model, x, 4)


@pytest.mark.parametrize(
    ("c", "k", "s", "p", "more"),
    [
        (3, 3, 2, 1, {}),  # the blocks would give one row more
        (3, 5, 1, 2, {}),
        (5, 4, 2, 1, {}),
        (4, 4, 2, 1, {"groups": 2}),
        (2, 3, 2, 2, {"dilation": 2}),
        (2, 16, 17, 1, {}),  # the kernel has the size of the image, and does not cover it
    ],
)
def test_first_convolutions_without_blocks(c: int, k: int, s: int, p: int, more: Any) -> None:
    body = [nn.Conv2d(c, 4, k, s, p, **more), nn.ReLU(), nn.Flatten()]
    features = nn.Sequential(*body)(torch.zeros(1, c, 16, 16)).shape[1]
    model = initialised(*body, nn.Linear(features, 4))
    assert FrozenNetwork(model, inputs((c, 16, 16))).blocks is None
    require_equal(model, inputs((c, 16, 16)), 4)


def test_sizes_that_the_blocks_do_not_divide_have_none() -> None:
    for size, blocks in ((14, True), (13, False)):
        body = [nn.Conv2d(3, 4, 4, 2, 1), nn.ReLU(), nn.Flatten()]
        features = nn.Sequential(*body)(torch.zeros(1, 3, size, size)).shape[1]
        model = initialised(*body, nn.Linear(features, 4))
        assert (FrozenNetwork(model, inputs((3, size, size))).blocks is not None) == blocks
        require_equal(model, inputs((3, size, size)), 4)


@pytest.mark.slow
def test_the_first_of_equal_pixels_gets_a_pools_slope() -> None:
    """Flat images make every window a tie, above 0 and at 0."""
    model = MnistCnn().build((1, 28, 28), 10).double()
    for bias in (0.7, 0.0, -5.0):
        nn.init.constant_(model[0].bias, bias)
        require_equal(model, torch.zeros(3, 1, 28, 28, dtype=torch.float64), 10)
        require_equal(model, torch.full((3, 1, 28, 28), 0.5, dtype=torch.float64), 10)


def test_dead_units_have_no_slope() -> None:
    model = MnistCnnSmall().build((1, 28, 28), 10).double()
    nn.init.constant_(model[2].bias, -100.0)
    require_equal(model, inputs((1, 28, 28)), 10)
    x = inputs((1, 28, 28))
    form = FrozenNetwork(model, x)
    assert not form.input_gradient(form.enter(x), torch.zeros(5, dtype=torch.long)).any()


@pytest.mark.parametrize("spec", [MnistCnnSmall(), MnistCnn(), EluCnn(width=16)])
def test_float32_agrees_up_to_rounding(spec: Any) -> None:
    model = spec.build((1, 28, 28), 10).to(memory_format=torch.channels_last)
    require_equal(model, inputs((1, 28, 28), 33, torch.float32), 10, 2e-5)


def small(*more: nn.Module) -> nn.Sequential:
    return initialised(nn.Conv2d(1, 2, 3), nn.ReLU(), *more, nn.Flatten(), nn.Linear(72, 4))


class Own(nn.Sequential):
    """A subclass, which may compute anything."""

    layers_in_order = True

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * 2


class Heir(Own):
    """What its parent says of itself is not said of it."""


class OwnLinear(nn.Linear):
    """A subclass of a known layer."""


def hooked(kind: str) -> nn.Module:
    model = small()
    getattr(model[0], kind)(lambda *given: None)
    return model


def changed(change: Callable[[nn.Sequential], object]) -> nn.Module:
    model = small()
    change(model)
    return model


UNKNOWN: dict[str, Callable[[], nn.Module]] = {
    "a forward hook": lambda: hooked("register_forward_hook"),
    "a hook before forward": lambda: hooked("register_forward_pre_hook"),
    "a backward hook": lambda: hooked("register_full_backward_hook"),
    "a hook on the chain": lambda: changed(lambda m: m.register_forward_hook(lambda *_: None)),
    "a parametrisation": lambda: changed(lambda m: parametrizations.weight_norm(m[0])),
    "pruning": lambda: changed(lambda m: prune.l1_unstructured(m[0], "weight", 2)),
    "its own forward": lambda: changed(lambda m: setattr(m[0], "forward", lambda x: x[:, :, 1:])),
    "a subclass of Sequential": lambda: Heir(*small()),
    "a subclass of Linear": lambda: nn.Sequential(*small()[:-1], OwnLinear(72, 4).double()),
    "an unknown layer": lambda: small(nn.Tanh()),
    "dropout in training": lambda: small(nn.Dropout()),
    "normalisation": lambda: small(nn.BatchNorm2d(2)).eval(),
    "two activations": lambda: small(nn.ELU()),
    "an activation first": lambda: nn.Sequential(nn.ReLU(), *small()),
    "no linear layer last": lambda: nn.Sequential(*small(), nn.ReLU()),
    "circular padding": lambda: initialised(
        nn.Conv2d(1, 2, 3, padding=1, padding_mode="circular"), nn.Flatten(), nn.Linear(128, 4)
    ),
    "a word for its padding": lambda: initialised(
        nn.Conv2d(1, 2, 4, padding="same"), nn.Flatten(), nn.Linear(128, 4)
    ),
    "another precision": lambda: small().float(),
    "a half of it in another precision": lambda: changed(lambda m: m[0].float()),
    "a module of its own": lambda: nn.ModuleDict({"a": small()}),
}


@pytest.mark.parametrize("what", UNKNOWN)
@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_another_network_is_left_as_it_is(what: str) -> None:
    assert isinstance(fastest(UNKNOWN[what](), inputs((1, 8, 8))), AsItIs)


def test_images_that_do_not_fit_are_left_to_the_model() -> None:
    model = small()
    for shape in ((1, 9, 8), (2, 8, 8), (64,), (8, 8)):
        assert isinstance(fastest(model, inputs(shape)), AsItIs)
    assert isinstance(fastest(model, inputs((1, 8, 8), 0)), AsItIs)
    assert isinstance(fastest(model, inputs((1, 8, 8))), FrozenNetwork)
    assert isinstance(fastest(small(nn.Dropout()).eval(), inputs((1, 8, 8))), FrozenNetwork)


def test_autocast_and_global_hooks_leave_the_model_as_it_is() -> None:
    model, x = small(), inputs((1, 8, 8))
    with torch.autocast("cpu", torch.bfloat16):
        assert isinstance(fastest(model, x), AsItIs)
    handle = nn.modules.module.register_module_forward_hook(lambda *given: None)
    try:
        assert isinstance(fastest(model, x), AsItIs)
    finally:
        handle.remove()


def test_weights_that_changed_in_between_are_seen() -> None:
    for spec in (MnistCnnSmall(), EluCnn(width=16)):
        model, x = spec.build((1, 28, 28), 10).double(), inputs((1, 28, 28))
        for _ in range(2):
            require_equal(model, x, 10)
            with torch.no_grad():
                for value in model.parameters():
                    value.mul_(1.1).add_(0.01)


def test_a_label_without_a_class_is_refused_like_elsewhere() -> None:
    model, x, y = small(), inputs((1, 8, 8)), torch.tensor([0, 1, 2, 3, 4])
    messages = []
    for form in (fastest(model, x), AsItIs(model)):
        with pytest.raises(ValueError, match="4") as refused:
            form.input_gradient(form.enter(x), y)
        messages.append(str(refused.value))
    assert messages[0] == messages[1]


@pytest.mark.parametrize("spec", [MnistCnnSmall(), EluCnn(width=16)])
@pytest.mark.parametrize("layer", [0, 2])
@pytest.mark.parametrize("value", [torch.inf, torch.nan, 3e38])
def test_what_is_not_finite_is_what_the_model_gives(spec: Any, layer: int, value: float) -> None:
    model, x = spec.build((1, 28, 28), 10), inputs((1, 28, 28), dtype=torch.float32)
    with torch.no_grad():
        model[layer].weight[0, 0, 1:3, 1] = value
    y = torch.arange(5)
    form, plain = FrozenNetwork(model, x), AsItIs(model)
    moving = form.enter(x)
    for found, expected in (
        (form.logits(moving), plain.logits(x)),
        (form.leave(form.input_gradient(moving, y)), plain.input_gradient(x, y)),
        (form.ascent(moving, lambda z: cross_entropy(z, y))[1], cross_entropy(plain.logits(x), y)),
    ):
        assert torch.equal(found.isfinite(), expected.isfinite())
        assert torch.equal(found.isnan(), expected.isnan())


def test_an_infinite_slope_stays_where_the_model_has_it() -> None:
    """On blocks an infinity would be multiplied by the zeros around a kernel."""
    model = nn.Sequential(*EluCnn(width=16).build((1, 28, 28), 10))  # its layers, not on blocks
    x, y = torch.zeros(2, 1, 28, 28), torch.arange(2)
    with torch.no_grad():
        nn.init.zeros_(model[0].bias)
        model[2].weight[0, 0, 2, 2] = 3e38
        model[7].weight.mul_(1e4)
    form, plain = FrozenNetwork(model, x), AsItIs(model)
    expected = plain.input_gradient(x, y)
    assert expected.isinf().sum() > 0
    for slope in (
        form.input_gradient(form.enter(x), y),
        form.ascent(form.enter(x), lambda z: cross_entropy(z, y))[2],
    ):
        assert torch.equal(form.leave(slope).isinf(), expected.isinf())
        assert torch.equal(form.leave(slope).isnan(), expected.isnan())


def test_infinite_logits_are_those_of_the_model() -> None:
    body = [nn.Conv2d(1, 1, 2, 2), nn.ReLU(), nn.Conv2d(1, 1, 3, 2), nn.Flatten()]
    model = initialised(*body, nn.Linear(9, 3))
    x = torch.zeros(1, 1, 16, 16, dtype=torch.float64)
    x[0, 0, 7, 7] = 100.0
    with torch.no_grad():
        for value in model.parameters():
            value.fill_(0.5)
        model[0].weight.fill_(1e307)
    form = FrozenNetwork(model, x)
    assert form.blocks is not None
    assert (model(x) == torch.inf).all()
    assert torch.equal(form.logits(form.enter(x)), model(x))
    assert torch.equal(form.ascent(form.enter(x), lambda z: z.sum(dim=1))[0], model(x))


def test_threads_with_a_model_each_do_not_see_each_other() -> None:
    model, x, y = (
        MnistCnnSmall().build((1, 28, 28), 10),
        inputs((1, 28, 28)).float(),
        torch.arange(5),
    )
    found: dict[int, Tensor] = {}

    def work(who: int) -> None:
        form = fastest(deepcopy(model), x)
        moving = form.enter(x + who / 10)
        for _ in range(50):
            found[who] = form.input_gradient(moving, y)

    alone = []
    for who in range(3):
        work(who)
        alone.append(found.pop(who))
    threads = [threading.Thread(target=work, args=(who,)) for who in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(found[who], alone[who]) for who in range(3))
