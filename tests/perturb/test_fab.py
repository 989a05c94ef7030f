"""FAB: its projection against solvers, its walk against a transcription, known distances."""

from typing import Any

import numpy as np
import pytest
import torch
from linear import Halfspaces, distances
from scipy.optimize import brentq, linprog, minimize
from torch import Tensor, nn

from fedrobust.perturb.fab import Fab, to_plane

NORMS = pytest.mark.parametrize("norm", ["linf", "l2"])


def shortest(x: np.ndarray, w: np.ndarray, value: float, norm: str) -> float:
    """The least norm of a d with value + ⟨w, d⟩ = 0 and x + d in [0, 1], by a general solver."""
    if norm == "linf":  # least t with |d_i| <= t
        n = len(x)
        rows = np.block([[np.eye(n), -np.ones((n, 1))], [-np.eye(n), -np.ones((n, 1))]])
        found = linprog(
            np.append(np.zeros(n), 1),
            A_ub=rows,
            b_ub=np.zeros(2 * n),
            A_eq=np.append(w, 0)[None],
            b_eq=[-value],
            bounds=[*zip(-x, 1 - x, strict=True), (0, None)],
        )
        return float(found.fun)
    found = minimize(
        lambda d: (d**2).sum(),
        np.zeros(len(x)),
        jac=lambda d: 2 * d,
        bounds=list(zip(-x, 1 - x, strict=True)),
        constraints={"type": "eq", "fun": lambda d: value + w @ d, "jac": lambda d: w},
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 500},
    )
    assert found.success
    return float(np.sqrt(found.fun))


@NORMS
def test_the_projection_is_the_shortest_way_to_the_plane_within_the_box(norm: Any) -> None:
    source = torch.Generator().manual_seed(3)
    x = torch.rand(60, 1, 2, 3, generator=source, dtype=torch.float64)
    x[::3] = x[::3].round()  # at the edge of the box, where half of the ways are closed
    w = torch.randn(60, 1, 2, 3, generator=source, dtype=torch.float64)
    w[::4, 0, 0] = 0
    # Values that some point of the box has: those at random points of it.
    z = torch.rand(60, 1, 2, 3, generator=source, dtype=torch.float64)
    value = -(w * (z - x)).flatten(1).sum(dim=1)
    d = to_plane(x, w, value, norm, box=True)
    assert (x + d).min() >= 0
    assert (x + d).max() <= 1
    torch.testing.assert_close((w * d).flatten(1).sum(dim=1), -value)
    length = d.flatten(1).norm(p=torch.inf if norm == "linf" else 2, dim=1)
    for i in range(60):
        best = shortest(x[i].flatten().numpy(), w[i].flatten().numpy(), float(value[i]), norm)
        assert length[i].item() == pytest.approx(best, rel=1e-5, abs=1e-9)
    free = to_plane(x, w, value, norm, box=False).flatten(1)
    dual = w.flatten(1).norm(p=1 if norm == "linf" else 2, dim=1)
    torch.testing.assert_close((w.flatten(1) * free).sum(dim=1), -value)
    length = free.norm(p=torch.inf if norm == "linf" else 2, dim=1)
    torch.testing.assert_close(length, value.abs() / dual)


@NORMS
@pytest.mark.parametrize("box", [True, False])
def test_planes_beyond_the_box_and_slopes_of_any_size(norm: Any, box: bool) -> None:
    x = torch.tensor([[0.25, 0.5, 1.0]])
    w = torch.tensor([[1.0, -2.0, 0.0]])
    corner = to_plane(x, w, torch.tensor([100.0]), norm, box=True)
    torch.testing.assert_close(x + corner, torch.tensor([[0.0, 1.0, 1.0]]))
    assert not to_plane(x, 0 * w, torch.tensor([1.0]), norm, box).any()
    assert not to_plane(x, w, torch.tensor([0.0]), norm, box).any()
    near = to_plane(x, w, torch.tensor([0.3]), norm, box)
    for scale in (1e-30, 1e-20, 1e20, 1e30):
        torch.testing.assert_close(
            to_plane(x, scale * w, torch.tensor([0.3 * scale]), norm, box), near
        )


@NORMS
def test_the_distance_to_the_nearest_mistake_of_a_linear_network(norm: Any) -> None:
    given = Halfspaces.made(classes=5, examples=40)
    exact = distances(given, norm)
    attack = Fab(eps=0.0, norm=norm, steps=60, box=False)
    found = attack.search(given.model, given.x, given.y, lambda: None)
    assert (found.distance >= exact * (1 - 1e-9)).all()
    assert ((found.distance / exact).max() - 1).item() < 0.01
    assert (given.model(found.x).argmax(dim=1) != given.y).all()
    offset = (found.x - given.x).flatten(1)
    size = offset.abs().amax(dim=1) if norm == "linf" else offset.norm(dim=1)
    torch.testing.assert_close(size, found.distance)


@NORMS
def test_within_the_box_too(norm: Any) -> None:
    given = Halfspaces.made(classes=4, examples=20)
    layer: Any = given.model[-1]
    weight, z = layer.weight.detach(), given.model(given.x).detach()
    attack = Fab(eps=0.0, norm=norm, steps=60)
    found = attack.search(given.model, given.x, given.y, lambda: None)
    assert found.x.min() >= 0
    assert found.x.max() <= 1
    for i, label in enumerate(given.y.tolist()):
        x = given.x[i].flatten().numpy()
        ways = []
        for other in range(4):
            w = (weight[label] - weight[other]).numpy()
            value = float(z[i, label] - z[i, other])
            if other == label or value > np.maximum(w * x, -w * (1 - x)).sum():
                continue  # no point of the box is of that class
            ways.append(shortest(x, w, value, norm))
        nearest = min(ways, default=np.inf)
        assert found.distance[i].item() == pytest.approx(nearest, rel=0.01)


class Bent(nn.Module):
    """A network with no plane in it."""

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(5)
            layers = [nn.Flatten(), nn.Linear(9, 20), nn.Tanh(), nn.Linear(20, classes)]
        self.layers = nn.Sequential(*layers).double()
        with torch.no_grad():
            self.layers[1].weight.mul_(4)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.layers(x)
        return logits


def bent(examples: int) -> tuple[nn.Module, Tensor, Tensor]:
    model = Bent()
    source = torch.Generator().manual_seed(6)
    x = torch.rand(examples, 1, 3, 3, generator=source, dtype=torch.float64)
    return model, x, model(x).argmax(dim=1)


def plane(x: Tensor, w: Tensor, value: float, norm: str) -> Tensor:
    """P(x) for one example: all move against the value until it is gone, or the box ends."""
    speed = w.sign() if norm == "linf" else w
    sign = 1.0 if value > 0 else -1.0

    def moved(t: float) -> Tensor:
        return (x - sign * t * speed).clamp(0, 1)

    def left(t: float) -> float:
        return value + float((w * (moved(t) - x)).sum())

    end = 1e6
    if left(end) * sign > 0:
        return moved(end)
    return moved(float(brentq(left, 0, end, xtol=1e-15, maxiter=500)))


def walked(model: nn.Module, x0: Tensor, y: Tensor, target: int, steps: int, norm: str) -> float:
    """Algorithm 1 for one example and one target: how near a mistake was met."""
    x, nearest = x0, float("inf")
    order: Any = torch.inf if norm == "linf" else 2
    for _ in range(steps):
        x = x.detach().requires_grad_(True)
        z = model(x[None])[0]
        lead = z[y] - z[target]
        (w,) = torch.autograd.grad(lead, x)
        x = x.detach()
        p = plane(x, w, lead.item(), norm)
        p0 = plane(x0, w, lead.item() + float((w * (x0 - x)).sum()), norm)
        far, far0 = ((a - b).flatten().norm(p=order).item() for a, b in ((p, x), (p0, x0)))
        alpha = min(far / (far + far0), 0.1)
        x = (1 - alpha) * (x + 1.05 * (p - x)) + alpha * (x0 + 1.05 * (p0 - x0))
        x = x.clamp(0, 1)
        if model(x[None]).argmax() != y:
            nearest = min(nearest, (x - x0).flatten().norm(p=order).item())
            x = x0 + 0.9 * (x - x0)
    return nearest


@NORMS
def test_it_walks_as_published(norm: Any) -> None:
    model, x, y = bent(12)
    found = Fab(eps=0.0, norm=norm, steps=15, targets=1).search(model, x, y, lambda: None)
    likeliest = model(x).topk(2, dim=1).indices[:, 1]
    for i in range(12):
        expected = walked(model, x[i], y[i], int(likeliest[i]), 15, norm)
        assert found.distance[i].item() == pytest.approx(expected, rel=1e-6)


@NORMS
def test_more_targets_and_restarts_find_nearer_mistakes(norm: Any) -> None:
    model, x, y = bent(60)

    def reached(**keys: Any) -> Tensor:
        attack = Fab(eps=0.0, norm=norm, steps=10, **keys)
        source = torch.Generator().manual_seed(1)
        return attack.search(model, x, y, lambda: attack.draw(x, source)).distance

    one, all_, again = reached(targets=1), reached(targets=9), reached(targets=9, restarts=4)
    for more, fewer in ((all_, one), (again, all_)):
        assert (more <= fewer).all()
        assert (more < 0.999 * fewer).sum() >= 3


@NORMS
def test_a_random_start_lies_at_half_of_what_is_reached_or_asked_for(norm: Any) -> None:
    x = torch.full((3, 1, 2, 2), 0.5)
    reached = torch.tensor([0.04, 9.0, torch.inf])
    way = Fab(eps=0.1, norm=norm).draw(x, torch.Generator().manual_seed(0))
    order: Any = torch.inf if norm == "linf" else 2
    for eps, far in ((0.1, [0.02, 0.05, 0.05]), (0.0, [0.02, 0.5, 0.0])):
        begun = Fab(eps=eps, norm=norm)._begin(x, way, reached)
        length = (begun - x).flatten(1).norm(p=order, dim=1)
        if far[1] == 0.5:  # cut by the box
            assert begun.min() >= 0
            assert begun.max() <= 1
            length[1] = 0.5
        torch.testing.assert_close(length, torch.tensor(far))


def test_examples_with_a_mistake_within_the_radius_are_left_alone() -> None:
    model, x, y = bent(30)
    free = Fab(eps=0.0, steps=30).search(model, x, y, lambda: None).distance
    eps = float(free.median())
    asked = 0

    class Counted(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            nonlocal asked
            asked += len(x)
            logits: Tensor = model(x)
            return logits

    points = Fab(eps=eps, steps=30).maximize(Counted(), x, y, lambda: None)
    # Two looks a step at each of four targets for those that stay, few for those that fall.
    far, near = int((free > eps).sum()), int((free <= eps).sum())
    assert asked < 30 + far * 4 * 30 * 2 + near * 30
    size = (points - x).flatten(1).abs().amax(dim=1)
    assert (size <= eps).all()
    wrong = model(points).argmax(dim=1) != y
    assert torch.equal(wrong, free <= eps)
    assert torch.equal(points[~wrong], x[~wrong])


def test_mistakes_lie_at_distance_0_and_the_unreachable_at_none() -> None:
    model, x, y = Halfspaces.made(classes=5, examples=10)
    found = Fab(eps=0.1, box=False).search(model, x, (y + 1) % 5, lambda: None, batch=4)
    assert not found.distance.any()
    assert torch.equal(found.x, x)

    class Constant(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.tensor([1.0, 0.0]).to(x) + 0 * x.flatten(1)[:, :1]

    for box in (True, False):
        attack = Fab(eps=0.1, box=box)
        stuck = attack.search(Constant(), x, torch.zeros(10, dtype=torch.long), lambda: None)
        assert stuck.distance.isinf().all()
        assert torch.equal(stuck.x, x)


def test_batches_change_nothing_and_bad_input_is_refused() -> None:
    model, x, y = bent(11)
    attack = Fab(eps=0.05, norm="l2", steps=5, restarts=2)

    def found(batch: int | None) -> Tensor:
        source = torch.Generator().manual_seed(1)
        return attack.maximize(model, x, y, lambda: attack.draw(x, source), batch=batch)

    torch.testing.assert_close(found(None), found(4))
    with pytest.raises(ValueError, match="box: false"):
        attack.maximize(model, x + 1, y, lambda: None)
    with pytest.raises(ValueError, match="/255"):
        Fab(eps=8.0)
