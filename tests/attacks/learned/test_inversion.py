"""Gradient matching on gradients whose examples are known."""

from typing import Any

import pytest
import torch
from ring import normal, seeded
from torch import nn

from fedrobust.attacks.learned.inversion import Inversion, invert
from fedrobust.clients.compiled_mlp import CompiledMlp
from fedrobust.compute.network import parameter_gradient
from fedrobust.data import Digits
from fedrobust.objectives import ERM, WassersteinDRO
from fedrobust.perturb.wasserstein import Ascent


def digit_network() -> nn.Module:
    torch.manual_seed(3)
    body = [nn.Conv2d(1, 12, 3, padding=1), nn.ELU(), nn.Conv2d(12, 12, 3), nn.ELU()]
    return nn.Sequential(*body, nn.Flatten(), nn.Linear(12 * 36, 10)).double()


@pytest.fixture(scope="module")
def digits() -> tuple[torch.Tensor, torch.Tensor]:
    train = Digits().load().train
    return train.images(torch.arange(40)).double(), train.y[:40]


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        Inversion(iterations=150),
        Inversion(method="adam", distance="cosine", lr=0.1, iterations=400),
        Inversion(method="adam", distance="cosine", lr=0.1, total_variation=1e-4, iterations=400),
    ],
    ids=["dlg", "geiping", "total variation"],
)
def test_a_small_batch_is_reconstructed_from_its_gradient(
    settings: Inversion, digits: tuple[torch.Tensor, torch.Tensor]
) -> None:
    """Two digits, started from two others of the attacker's: the pictures and the labels."""
    x, y = digits[0][[0, 1]], digits[1][[0, 1]]
    start, labels = digits[0][[11, 22]], digits[1][[11, 22]]
    model = digit_network()
    gradient = parameter_gradient(model, x, y)
    kept, network = start.clone(), digit_network().float()
    found = invert(network, gradient.float(), start, labels, settings)
    assert {p.dtype for p in network.parameters()} == {torch.float32}
    torch.testing.assert_close(start, kept, rtol=0, atol=0)
    order = found.y.argsort()
    assert found.y[order].tolist() == y.sort().values.tolist()
    error = (found.x[order] - x[y.argsort()]).square().mean()
    assert error < 0.01 * (start - x).square().mean()
    assert found.reached < 0.01 * found.before
    assert found.after < 0.1 * found.before
    assert found.x.min() >= 0
    assert found.x.max() <= 1


def test_labels_that_are_kept_stay(digits: tuple[torch.Tensor, torch.Tensor]) -> None:
    x, y = digits[0][:2], digits[1][:2]
    model = digit_network()
    settings = Inversion(labels="kept", iterations=60)
    found = invert(model, parameter_gradient(model, x, y), digits[0][20:22], y, settings)
    assert torch.equal(found.y, y)
    assert (found.x - x).square().mean() < 0.1 * (digits[0][20:22] - x).square().mean()


@pytest.mark.parametrize("method", ["lbfgs", "adam"])
def test_a_shift_that_stays_interrupts_nothing(
    method: Any, digits: tuple[torch.Tensor, torch.Tensor]
) -> None:
    """Clients of ERM move nothing: looking for a shift often finds what looking once does."""
    x, y = digits[0][:2], digits[1][:2]
    model, start = digit_network(), digits[0][20:22]
    gradient, lr = parameter_gradient(model, x, y), 0.3 if method == "adam" else 1.0
    often, once = (
        invert(
            model,
            gradient,
            start,
            y,
            Inversion(method=method, lr=lr, labels="kept", iterations=30, refresh=n),
        )
        for n in (10, 30)
    )
    assert often.after == once.after < 0.9 * once.before
    assert torch.equal(often.x, once.x)


@pytest.mark.slow
def test_the_shift_of_the_objective_is_taken_out() -> None:
    """The gradient was taken at z + δ(z): what comes back is z, and not the point it moved to."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 8), nn.ELU(), nn.Linear(8, 8), nn.ELU(), nn.Linear(8, 2))
    model = model.double()
    for parameter in model.parameters():
        parameter.data *= 2.5
    objective = WassersteinDRO(0.5, Ascent(steps=10, rule="decaying"))
    z, y = normal(1, 2), torch.tensor([1])
    moved = objective.maximize(model, z, y, lambda: None)
    assert (moved - z).norm() > 0.2
    gradient = parameter_gradient(model, moved, y)
    settings = Inversion(labels="kept", iterations=200, refresh=10)
    found = invert(model, gradient, z + 0.3, y, settings, objective=objective)
    assert (found.x - z).norm() < 0.1 * (moved - z).norm()
    blind = invert(model, gradient, z + 0.3, y, settings, objective=ERM())
    assert (blind.x - moved).norm() < 0.1 * (moved - z).norm()


@pytest.mark.slow
def test_a_model_in_float32_and_its_mode_are_left_as_they_were() -> None:
    """The caller's model is not a workspace."""
    model = nn.Sequential(nn.Linear(2, 4), nn.Dropout(0.5), nn.Linear(4, 2)).train()
    gradient = parameter_gradient(model.eval(), normal(1, 2).float(), torch.tensor([0]))
    model.train()
    before = [p.clone() for p in model.parameters()]
    found = invert(model, gradient, normal(1, 2, seed=1).float(), torch.tensor([0]), Inversion())
    assert found.x.dtype == torch.float32
    assert model.training
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


@pytest.mark.parametrize(("method", "lr"), [("lbfgs", 1.0), ("adam", 0.01)])
def test_it_does_no_more_iterations_than_it_was_told_to(
    method: Any, lr: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a shift is kept for 15 and the end comes after 40."""
    kind: Any = {"lbfgs": torch.optim.LBFGS, "adam": torch.optim.Adam}[method]
    step, asked = kind.step, list[int]()

    def spied(self: Any, closure: Any) -> Any:
        asked.append(self.param_groups[0].get("max_iter", 1))
        return step(self, closure)

    monkeypatch.setattr(kind, "step", spied)
    model = nn.Sequential(nn.Linear(2, 4), nn.ELU(), nn.Linear(4, 2)).double()
    gradient = parameter_gradient(model, normal(3, 2), torch.tensor([0, 1, 0]))
    settings = Inversion(method=method, lr=lr, iterations=40, refresh=15)
    invert(model, gradient, normal(3, 2, seed=1), torch.tensor([0, 1, 1]), settings)
    assert asked == ([10, 5, 10, 5, 10] if method == "lbfgs" else [1] * 40)


@pytest.mark.parametrize("labels", ["learned", "kept"])
@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
def test_small_networks_are_matched_by_compiled_loops(
    labels: Any, distance: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the first steps, before the line search magnifies the rounding, to the last digits."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 4), nn.ELU(), nn.Linear(4, 2), nn.ELU(), nn.Linear(2, 3))
    y, start, objective = torch.arange(37) % 3, normal(37, 2, seed=1), WassersteinDRO(1.0)
    moved = objective.maximize(model.double(), normal(37, 2), y, lambda: None)
    gradient = parameter_gradient(model, moved, y)
    settings = Inversion(labels=labels, distance=distance, iterations=8, refresh=4)
    take = lambda: invert(model, gradient, start, y.flip(0), settings, objective=objective)  # noqa: E731
    fast = take()
    with monkeypatch.context() as patch:
        patch.setattr(CompiledMlp, "of", lambda model: None)
        plain = take()
    assert plain.after < 0.5 * plain.before
    assert fast.before == pytest.approx(plain.before, rel=1e-12)
    assert fast.after == pytest.approx(plain.after, rel=1e-8)
    torch.testing.assert_close(fast.x, plain.x, rtol=1e-8, atol=1e-8)
    assert torch.equal(fast.y, plain.y)


def apart(model: nn.Module, gradient: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> float:
    """Return ‖∇ − g‖² / ‖g‖² of examples with labels, from the definition."""
    found = parameter_gradient(model, x, y)
    return float((found - gradient).square().sum() / gradient.square().sum())


@pytest.mark.parametrize("iterations", [1, 2, 30, 200])
@pytest.mark.parametrize("small", [True, False], ids=["compiled", "autograd"])
def test_the_distances_are_those_of_the_examples_with_their_labels(
    small: bool, iterations: int, digits: tuple[torch.Tensor, torch.Tensor]
) -> None:
    """Where the optimisation moves a softmax, D of the softmax says nothing of the examples."""
    torch.manual_seed(0)
    model, x, y = digit_network(), digits[0][:4], digits[1][:4]
    others, labels = digits[0][4:], digits[1][4:]
    if small:
        model = nn.Sequential(nn.Linear(2, 4), nn.ELU(), nn.Linear(4, 2)).double()
        x, y, others, labels = (
            normal(8, 2),
            torch.arange(8) % 2,
            normal(72, 2, seed=2),
            torch.arange(72) % 2,
        )
    gradient = parameter_gradient(model, others, labels)
    found = invert(model, gradient, x, y, Inversion(iterations=iterations, refresh=20))
    assert found.before == pytest.approx(apart(model, gradient, x, y), rel=1e-9)
    assert found.after == pytest.approx(apart(model, gradient, found.x, found.y), rel=1e-9)
    assert iterations < 30 or found.reached < 0.1 * found.before
    kept = Inversion(iterations=iterations, refresh=20, labels="kept")
    found = invert(model, gradient, x, y, kept)
    assert found.after == pytest.approx(apart(model, gradient, found.x, found.y), rel=1e-9)
    assert found.reached == found.after


@pytest.mark.parametrize("box", [True, False, None])
def test_data_beyond_the_unit_box_may_leave_it(box: bool | None) -> None:
    """One starting point between 0 and 1 does not make the data pixels."""
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(2, 8), nn.ELU(), nn.Linear(8, 2)).double()
    gradient = parameter_gradient(model, torch.tensor([[-1.5, -0.7]]).double(), torch.tensor([1]))
    start = torch.tensor([[0.5, 0.5]]).double()
    found = invert(model, gradient, start, torch.tensor([1]), Inversion(labels="kept"), box=box)
    assert bool((found.x >= 0).all()) == (box is not False)
    assert (found.after < 1e-6) == (box is False)


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf")])
def test_a_gradient_that_says_nothing_is_refused(value: float) -> None:
    model = nn.Linear(2, 2)
    with pytest.raises(ValueError, match="nothing to match"):
        invert(model, torch.full((6,), value), normal(1, 2), torch.tensor([0]), Inversion())


def test_the_same_generator_gives_the_same_examples() -> None:
    model = nn.Sequential(nn.Linear(2, 4), nn.ELU(), nn.Linear(4, 2)).double()
    gradient = parameter_gradient(model, normal(3, 2), torch.tensor([0, 1, 0]))
    x, y = normal(3, 2, seed=1), torch.tensor([0, 1, 1])
    found = [
        invert(model, gradient, x, y, Inversion(iterations=20), generator=seeded()).x
        for _ in range(2)
    ]
    assert torch.equal(*found)
