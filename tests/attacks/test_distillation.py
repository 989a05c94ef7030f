"""Distillation: its two trainings against a transcription, its one layer, and what it sends when.

Runs are in test_distillation_runs.py, whether Krum falls for it in test_distillation_takeover.py.
"""

from typing import Any

import numpy as np
import pytest
import torch
from component_table import MODELS
from crafting import normal, rows_of, seeded, view_of
from numpy.typing import NDArray
from pydantic import TypeAdapter
from torch import Tensor, nn

from fedrobust.attacks import Distillation
from fedrobust.attacks.distillation import layer_of
from fedrobust.clients.optimizers import Adam, Sgd
from fedrobust.compute.parameters import Layout, read
from fedrobust.compute.randomness import isolated
from fedrobust.data import Split
from fedrobust.errors import ConfigError
from fedrobust.federation.threat import View
from fedrobust.models import AnyModel

Array = NDArray[np.float64]
WHOLE = 1000
"""A batch that holds all examples, so that their order does not matter."""


def network(seed: int = 0) -> nn.Sequential:
    """5 features, 4 hidden units, 3 classes, in float64: 20 and 12 weight entries."""
    with isolated():
        model = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3)).double()
    for i, parameter in enumerate(model.parameters()):
        parameter.data = normal(1, parameter.numel(), seed + i).reshape(parameter.shape)
    return model


def examples(n: int, seed: int) -> Split:
    return Split(normal(n, 5, seed), torch.randint(3, (n,), generator=seeded(seed)))


def seen(model: nn.Module, /, *data: Split, **more: Any) -> View:
    """What colluders with ``data`` see of a federation that has ``model``."""
    theta = read(model)
    own = torch.ones(len(data), len(theta), dtype=theta.dtype)

    def copied() -> nn.Module:
        copy = network()
        copy.load_state_dict(model.state_dict())
        return copy

    given = {"model": copied, "parameters": theta, "data": lambda: data} | more
    return view_of(own, **given)


def softened(z: Array, t: float) -> Array:
    e = np.exp(z / t - (z / t).max(axis=1, keepdims=True))
    return np.asarray(e / e.sum(axis=1, keepdims=True))


def descend(
    theta: list[Array], x: Array, target: Array, t: float, lr: float, steps: int, moving: set[int]
) -> list[Array]:
    """Gradient descent on E CE(softmax(z / t), target), worked out by hand."""
    theta = [a.copy() for a in theta]
    for _ in range(steps):
        w1, b1, w2, b2 = theta
        hidden = np.maximum(x @ w1.T + b1, 0)
        dz = (softened(hidden @ w2.T + b2, t) - target) / (t * len(x))
        dh = (dz @ w2) * (hidden > 0)
        slopes = [dh.T @ x, dh.sum(axis=0), dz.T @ hidden, dz.sum(axis=0)]
        theta = [a - lr * s * (i in moving) for i, (a, s) in enumerate(zip(theta, slopes))]  # noqa: B905
    return theta


def logits(theta: list[Array], x: Array) -> Array:
    w1, b1, w2, b2 = theta
    return np.asarray(np.maximum(x @ w1.T + b1, 0) @ w2.T + b2)


@pytest.mark.parametrize(("layer", "moving"), [(None, {2, 3}), ("2", {2, 3}), ("0", {0, 1})])
@pytest.mark.parametrize("t", [1.0, 7.0, 100.0])
def test_teacher_and_student_are_those_of_the_paper(
    t: float, layer: str | None, moving: set[int]
) -> None:
    model, own = network(), examples(20, seed=9)
    theta = [p.detach().numpy() for p in model.parameters()]
    x, hard = own.x.numpy(), np.eye(3)[own.y.numpy()]
    lr = 0.4 * t  # so that the rows are not tiny
    teacher = descend(theta, x, hard, t, lr, 6, {0, 1, 2, 3})
    student = descend(theta, x, softened(logits(teacher, x), t), t, lr, 6, moving)
    expected = np.concatenate([(a - b).ravel() for a, b in zip(student, theta, strict=True)])
    attack = Distillation(t, epochs=6.0, batch_size=WHOLE, optimizer=Sgd(lr), layer=layer)
    row = rows_of(attack, seen(model, own))[0]
    assert np.abs(expected).max() > 1e-3
    np.testing.assert_allclose(row.numpy(), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", MODELS)
def test_the_layer_is_the_one_with_the_fewest_weight_entries(name: str) -> None:
    row = MODELS[name]
    model = TypeAdapter(AnyModel).validate_python(name).build(row.shape, row.classes)
    assert layer_of(model) == row.layer
    assert model.get_submodule(row.layer).weight.numel() == row.weights
    kept = [p.numel() for n, p in model.named_parameters() if n.endswith("weight") and p.ndim > 1]
    assert min(kept) == row.weights


def test_nothing_but_the_layer_is_sent_and_frozen_parameters_are_no_layer() -> None:
    model, own = network(), examples(20, seed=9)
    attack = Distillation(epochs=3.0, optimizer=Adam(lr=0.01))
    for layer, chosen in ((None, "2"), ("0", "0")):
        own_attack = Distillation(epochs=3.0, optimizer=Adam(lr=0.01), layer=layer)
        (row,) = rows_of(own_attack, seen(model, own))
        for name, piece in Layout.of(model).slices.items():
            assert bool((row[piece] != 0).all()) == name.startswith(chosen), name
            assert bool((row[piece] == 0).all()) != name.startswith(chosen), name

    half = network()
    half[2].requires_grad_(False)

    def frozen() -> nn.Module:
        copy = network()
        copy[2].requires_grad_(False)
        return copy

    view = seen(half, own, model=frozen)
    assert layer_of(half) == "0"
    assert rows_of(attack, view).shape == (1, 24)
    with pytest.raises(ConfigError, match=r"'2' is frozen; the layers.*are: 0$"):
        rows_of(Distillation(layer="2"), view)
    with pytest.raises(ConfigError, match=r"'1' is no layer.*; the layers.*are: 0, 2$"):
        rows_of(Distillation(layer="1", start=50), seen(model, own))  # before its start as well


def test_it_draws_from_its_generator_alone() -> None:
    view = seen(network(), examples(30, seed=9), examples(30, seed=10))
    attack = Distillation(batch_size=4, optimizer=Adam(lr=0.01))
    torch.manual_seed(1)
    first, before = rows_of(attack, view, seed=5), torch.get_rng_state()
    torch.manual_seed(2)
    assert torch.equal(rows_of(attack, view, seed=5), first)
    assert not torch.equal(rows_of(attack, view, seed=6), first)
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), before)


class Watched(nn.Module):
    """A network with dropout that notes how it is called."""

    calls: list[tuple[bool, bool]] = []  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__()
        self.drop, self.last = nn.Dropout(0.5), nn.Linear(5, 3).double()
        nn.init.zeros_(self.last.bias)
        nn.init.ones_(self.last.weight)

    def forward(self, x: Tensor) -> Tensor:
        self.calls.append((self.training, torch.is_grad_enabled()))
        return self.last(self.drop(x))  # type: ignore[no-any-return]


def test_dropout_is_drawn_in_training_and_is_off_in_the_teachers_labels() -> None:
    model = Watched()
    view = seen(model, examples(30, seed=9), model=Watched)
    attack = Distillation(optimizer=Adam(lr=0.01), batch_size=8)
    Watched.calls.clear()
    torch.manual_seed(1)
    rows = rows_of(attack, view)
    # Two leads, 4 batches of each training, and the labels of the student's.
    assert Watched.calls.count((True, True)) == 8
    assert Watched.calls.count((False, False)) == 6
    assert len(Watched.calls) == 14
    torch.manual_seed(2)
    assert torch.equal(rows_of(attack, view), rows)


@pytest.mark.parametrize(
    ("epochs", "batches"), [(1.0, 3), (2.0, 6), (0.5, 2), (0.01, 1), (1.5, 5), (2.3, 7)]
)
def test_epochs_are_passes_over_the_data_or_a_part_of_one(epochs: float, batches: int) -> None:
    """25 examples in batches of 10."""
    Watched.calls.clear()
    view = seen(Watched(), examples(25, seed=9), model=Watched)
    rows_of(Distillation(epochs=epochs, batch_size=10), view)
    assert Watched.calls.count((True, True)) == 2 * batches


def test_a_part_of_a_pass_has_no_example_more_by_rounding() -> None:
    """1.1 − 1 is a little more than a tenth."""
    found = Distillation(epochs=1.1)._batches(10, torch.Generator().manual_seed(0))
    assert sum(len(batch) for batch in found) == 11


def test_each_on_its_own_data_or_all_one_vector_from_the_data_of_all() -> None:
    model, data = network(), [examples(n, seed=n) for n in (8, 12, 15)]
    fields: dict[str, Any] = {"epochs": 4.0, "batch_size": WHOLE, "optimizer": Sgd(30.0)}
    alone = [rows_of(Distillation(**fields), seen(model, own))[0] for own in data]
    apart = rows_of(Distillation(**fields), seen(model, *data))
    torch.testing.assert_close(apart, torch.stack(alone))
    assert (torch.cdist(apart, apart) + torch.eye(3)).min() > 1e-3

    pool = Split(torch.cat([own.x for own in data]), torch.cat([own.y for own in data]))
    shared = rows_of(Distillation(shared=True, **fields), seen(model, *data))
    assert torch.equal(shared[0], shared[1])
    assert torch.equal(shared[0], shared[2])
    assert shared.is_contiguous()
    torch.testing.assert_close(shared[:1], rows_of(Distillation(**fields), seen(model, pool)))


def test_it_sends_honest_updates_up_to_its_start_and_trains_none_without_a_wait() -> None:
    model, own = network(), examples(20, seed=9)
    attack = Distillation(start=3)
    for round_, honest in ((1, True), (2, True), (3, False), (4, False)):
        rows = rows_of(attack, seen(model, own, round=round_))
        assert bool((rows == 1).all()) == honest, round_
    assert attack.requires.uses_honest_updates
    assert not Distillation().requires.uses_honest_updates
    assert Distillation(shared=True).requires.knowledge == {"colluders"}
    assert Distillation().requires.knowledge == frozenset()


def test_what_it_reports_is_how_far_it_drove_the_logits_apart() -> None:
    model, own = network(), examples(40, seed=9)
    attack, state = Distillation(start=2, epochs=60.0, optimizer=Adam(lr=0.05)), {}
    truth: Any = None
    for round_ in (1, 2, 3):
        rows, state = attack.craft(state, seen(model, own, round=round_), seeded())
        assert (attack.report(state, truth) is None) == (round_ == 1)
        with torch.no_grad():
            top = model(own.x).topk(2).values
        lead = float((top[:, 0] - top[:, 1]).median())
        if round_ == 2:
            first = lead
        if round_ > 1:
            for parameter, piece in zip(
                model.parameters(), Layout.of(model).slices.values(), strict=True
            ):
                parameter.data += rows[0, piece].reshape(parameter.shape)
    report = attack.report(state, truth)
    assert report is not None
    assert report["layer"] == "2"
    assert report["rounds"] == 2
    assert report["lead"]["found"] == pytest.approx(first)
    with torch.no_grad():
        top = model(own.x).topk(2).values
    assert report["lead"]["sent"] == pytest.approx(float((top[:, 0] - top[:, 1]).median()))
    assert report["lead"]["sent"] > 5 * first


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"temperature": 0.0}, r"temperature: should be greater than 0"),
        ({"temperature": -1.0}, r"temperature: should be greater than 0"),
        ({"epochs": 0.0}, r"epochs: should be greater than 0"),
        ({"batch_size": 0}, r"batch_size: should be greater than or equal to 1"),
        ({"start": 0}, r"start: should be greater than or equal to 1"),
        ({"shared": 1}, r"shared: should be a valid boolean"),
        ({"optimizer": {"name": "adm", "lr": 1.0}}, "unknown optimizer 'adm'"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Distillation(**fields)
