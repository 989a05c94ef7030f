"""What a policy sees and what its actions mean, from the definitions."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from ring import Seen, normal, seeded, watched

from fedrobust.attacks.learned.encoding import (
    ActionContext,
    Basis,
    Compact,
    Encoding,
    Full,
)
from fedrobust.attacks.learned.observation import Observation, layer_of
from fedrobust.attacks.learned.simulation import Harm
from fedrobust.clients.gradients import gradient_engine
from fedrobust.compute.network import parameter_gradient
from fedrobust.compute.parameters import Layout
from fedrobust.federation.threat import View
from fedrobust.models import CifarCnn, build_model
from fedrobust.perturb import Ascent


@pytest.fixture(scope="module")
def seen() -> Seen:
    return watched()


def means_of(seen: Seen) -> ActionContext:
    sample = seen.own.take(torch.arange(12))
    tools = gradient_engine(seen.view.model())
    harm = Harm("robustness", tools, sample, 2.0, Ascent(steps=15, rule="decaying"))
    return ActionContext(tools, sample, harm, seen.view.history[-1])


def layout_of(seen: Seen) -> Layout:
    return Layout.of(seen.view.model())


ENCODINGS: list[Any] = [
    Full(budget=0.3),
    Full(budget=10.0),
    Compact(budget=2.0),
    Basis(budget=0.3),
    Basis(budget=10.0, directions=("own", "parameters", "last-step", "benign")),
]


@pytest.mark.parametrize("encoding", ENCODINGS, ids=repr)
def test_no_action_exceeds_the_budget_and_some_reach_it(encoding: Any, seen: Seen) -> None:
    view = replace(
        seen.view, rows=3, own=torch.cat([seen.view.own, 2 * seen.view.own, 0 * seen.view.own])
    )
    k, means = encoding.actions(layout_of(seen)), means_of(seen)
    limit = encoding.budget * view.own.norm(dim=1)
    longest = torch.zeros(3)
    for i in range(60):
        action = normal(k, seed=i).clamp(-1, 1).float()
        action = action.sign() if i % 2 else action
        rows = encoding.rows(action, view, means)
        assert rows.shape == view.own.shape
        assert (rows.norm(dim=1) <= limit * (1 + 1e-5)).all()
        longest = torch.maximum(longest, rows.norm(dim=1))
    assert (longest >= 0.5 * limit).all()
    assert not encoding.rows(torch.zeros(k), view, means).any()


def test_a_basis_action_goes_where_it_says(seen: Seen) -> None:
    """One direction at a time, by hand; and a mix of two."""
    view, means = seen.view, means_of(seen)
    basis = Basis(directions=("own", "parameters", "last-step", "benign", "harm"), budget=2.0)
    size = view.own[0].norm()
    x, y = means.sample.x, means.sample.y
    model = view.model()
    moved = view.objective.maximize(model, x, y, lambda: None)
    benign = -parameter_gradient(model, moved, y)
    step = view.parameters - view.history[-1]
    assert means.harm is not None
    harm = means.harm.gradient(view.parameters)
    vectors = [view.own[0], view.parameters, step, benign, harm]
    units = [v / v.norm() for v in vectors]
    for j, unit in enumerate(units):
        action = torch.zeros(5)
        action[j] = -0.5
        row = basis.rows(action, view, means)[0]
        torch.testing.assert_close(row, -0.5 * 2 * size * unit, rtol=1e-4, atol=1e-6)
    for first, second in ((0.2, 0.3), (1.0, 1.0)):
        mixed = basis.rows(torch.tensor([first, second, 0.0, 0.0, 0.0]), view, means)[0]
        total = first * units[0] + second * units[1]
        expected = 2 * size * total / max(1.0, float(total.norm()))
        torch.testing.assert_close(mixed, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("encoding", [Full(scale="zeta"), Compact(scale="zeta")], ids=repr)
def test_zeta_is_the_papers_rescaling(encoding: Any, seen: Seen) -> None:
    """a′ = a (ζmax − ζmin)/2 + (ζmax + ζmin)/2, over coordinates of single examples' gradients."""
    view, means = seen.view, means_of(seen)
    model = view.model()
    gradients = torch.stack(
        [
            parameter_gradient(model, means.sample.x[i : i + 1], means.sample.y[i : i + 1])
            for i in range(12)
        ]
    )
    low, high = float(gradients.min()), float(gradients.max())
    action = normal(encoding.actions(layout_of(seen))).clamp(-1, 1).float()
    rescaled = action * (high - low) * 0.5 + (high + low) * 0.5
    expected = rescaled * view.own[0] if len(action) == 1 else -0.3 * rescaled
    torch.testing.assert_close(
        encoding.rows(action, view, means)[0], expected, rtol=1e-4, atol=1e-6
    )


def sight(seen: Seen, **changes: Any) -> Observation:
    view: View = seen.view
    parts = {
        "layout": layout_of(seen),
        "parameters": view.parameters,
        "previous": view.history[-1],
        "start": view.history[-1],
    }
    return Observation(**(parts | changes))


@pytest.mark.parametrize("encoding", [*ENCODINGS, Compact(scale="zeta")], ids=repr)
def test_an_observation_has_its_length_and_is_finite(encoding: Encoding, seen: Seen) -> None:
    zero = torch.zeros_like(seen.view.parameters)
    for changes in ({}, {"parameters": zero}, {"start": zero}, {"parameters": zero + torch.inf}):
        found = encoding.observe(sight(seen, **changes))
        assert found.shape == (encoding.seen(layout_of(seen)),)
        assert found.dtype == np.float32
        assert np.isfinite(found).all()
        assert np.abs(found).max() <= 100


def test_full_sees_every_parameter_and_compact_the_output_layer(seen: Seen) -> None:
    view, start = seen.view, normal(28, seed=4).float()
    unit = start.square().mean().sqrt()
    full = Full().observe(sight(seen, start=start, waited=3))
    torch.testing.assert_close(torch.from_numpy(full[:-1]), (view.parameters - start) / unit)
    assert full[-1] == pytest.approx(np.log(4))
    compact = Compact().observe(sight(seen, start=start))
    last, unit = start[-6:], start[-6:].square().mean().sqrt()
    torch.testing.assert_close(torch.from_numpy(compact[:-1]), (view.parameters[-6:] - last) / unit)
    assert compact[-1] == 0


def test_basis_sees_norms_angles_and_the_last_step(seen: Seen) -> None:
    view, start = seen.view, normal(28, seed=4).float()
    found = Basis().observe(sight(seen, start=start, waited=1))
    model = view.model()
    names = [name for name, _ in model.named_parameters()]
    slices = layout_of(seen).slices
    expected = []
    for name in names:
        now, then = view.parameters[slices[name]], start[slices[name]]
        expected += [now.norm() / then.norm() - 1, (now - then).norm() / then.norm()]
    step = view.parameters - view.history[-1]
    expected += [
        100 * step.norm() / view.parameters.norm(),
        torch.cosine_similarity(step, view.parameters, dim=0),
        torch.tensor(2.0).log(),
    ]
    torch.testing.assert_close(torch.from_numpy(found), torch.stack(expected), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("budget", [0.0, -1.0, float("nan"), float("inf")])
def test_an_empty_budget_is_refused(budget: float) -> None:
    for encoding in (Full, Compact, Basis):
        with pytest.raises(ValueError, match="budget"):
            encoding(budget=budget)


def test_directions_are_needed_once_each() -> None:
    with pytest.raises(ValueError, match="at least one direction"):
        Basis(directions=())
    with pytest.raises(ValueError, match="twice"):
        Basis(directions=("own", "own"))


@pytest.mark.parametrize("ratio", [0.5, 1.0, 0.0])
def test_a_client_in_adversarial_training_is_expected_at_its_adversarial_points(
    ratio: float,
) -> None:
    """K = ⌊ratio · N + ½⌋ of the sample are attacked, as FAT's clients do; the others are not."""
    objective = {
        "name": "adversarial",
        "ratio": ratio,
        "attack": {"name": "pgd", "eps": 0.2, "step_size": 0.1, "steps": 3, "box": False},
    }
    seen = watched(20, objective=objective)
    view, sample = seen.view, seen.own.take(torch.arange(40))
    model = view.model()
    found = ActionContext(gradient_engine(model), sample, None, view.parameters).expected_gradient(
        view
    )
    k = int(40 * ratio)
    x = sample.x.clone()
    if k:
        draw = view.objective.draw(x[:k], torch.Generator().manual_seed(view.round))
        x[:k] = view.objective.maximize(model, sample.x[:k], sample.y[:k], lambda: draw)
        assert ((x[:k] - sample.x[:k]).abs() > 0.01).any()
    torch.testing.assert_close(found, parameter_gradient(model, x, sample.y), rtol=1e-4, atol=1e-6)


def test_a_normalisation_is_no_layer() -> None:
    """The last hidden layer of the CIFAR-10 network is a convolution; a GroupNorm follows it."""
    layout = Layout.of(build_model(CifarCnn(width=16), (3, 32, 32), 10, seeded()))
    part = layer_of(layout, "last-hidden")
    assert part.stop - part.start == 64 * 64 * 3 * 3

    class Bare(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = torch.nn.Parameter(torch.zeros(3, 2))
            self.second = torch.nn.Parameter(torch.zeros(2, 3))

    bare = Layout.of(Bare())
    assert layer_of(bare, "last-hidden") == slice(0, 6)
    assert layer_of(bare, "output") == slice(6, 12)
