"""Auto-PGD: on linear networks, where the nearest mistake is known, and against a transcription."""

import math
from copy import deepcopy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from linear import Halfspaces, distances
from torch import Tensor, nn

from fedrobust.perturb.apgd import Apgd, checkpoints


def drawn(attack: Any, x: Tensor, seed: int = 0) -> Any:
    source = torch.Generator().manual_seed(seed)
    return lambda: attack.draw(x, source)


@pytest.fixture(scope="module")
def halfspaces() -> Halfspaces:
    return Halfspaces.made(classes=5, examples=40)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize(("loss", "share"), [("ce", 0.9), ("dlr", 0.9), ("dlr-targeted", 1.0)])
def test_it_finds_the_mistake_where_there_is_one(
    halfspaces: Halfspaces, norm: Any, loss: Any, share: float
) -> None:
    """The ball just beyond the nearest mistake of a linear network, and the one just before it."""
    model, x, y = halfspaces
    nearest = distances(halfspaces, norm)
    eps = float(nearest.median())
    attack = Apgd(eps=eps, norm=norm, loss=loss, steps=60, box=False)
    found = attack.maximize(model, x, y, drawn(attack, x))
    wrong = model(found).argmax(dim=1) != y
    assert not wrong[nearest > eps * 1.0001].any()
    assert wrong[nearest < eps * 0.98].double().mean() >= share
    offset = (found - x).flatten(1)
    size = offset.abs().amax(dim=1) if norm == "linf" else offset.norm(dim=1)
    assert (size <= eps * (1 + 1e-6)).all()


def test_the_checkpoints_are_those_of_the_paper() -> None:
    assert sorted(checkpoints(100)) == [22, 41, 57, 70, 80, 87, 93, 99]


def test_no_scale_of_the_logits_hides_anything_from_dlr(halfspaces: Halfspaces) -> None:
    """At logits × 1e4 the float32 cross-entropy has no gradient left; DLR sees what it saw."""
    model, x, y = deepcopy(halfspaces.model).float(), halfspaces.x.float(), halfspaces.y
    eps = float(distances(halfspaces, "linf").median())

    class Loud(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return 1e4 * model(x)

    def kept(network: nn.Module, loss: Any) -> float:
        attack = Apgd(eps=eps, loss=loss, steps=30, box=False)
        found = attack.maximize(network, x, y, drawn(attack, x))
        return (network(found).argmax(dim=1) == y).double().mean().item()

    assert kept(Loud(), "dlr") == kept(model, "dlr")
    assert kept(Loud(), "ce") > kept(model, "ce") + 0.2


def literal(attack: Apgd, model: nn.Module, x0: Tensor, y: Tensor, noise: Tensor) -> float:
    """Algorithm 1 of the paper for one example that never becomes wrong, linf, CE: the best f."""

    def look(x: Tensor) -> tuple[float, Tensor]:
        x = x.detach().requires_grad_(True)
        value = F.cross_entropy(model(x[None]), y[None])
        return value.item(), torch.autograd.grad(value, x)[0]

    def project(x: Tensor) -> Tensor:
        return x.clamp(x0 - attack.eps, x0 + attack.eps).clamp(0, 1)

    eta, x = 2 * attack.eps, project(x0 + noise)
    f, g = look(x)
    values, points, slopes, previous = [f], [x], [g], x
    best, best_before, eta_before, since = f, -math.inf, math.nan, 0
    for k in range(attack.steps):
        z = project(x + eta * g.sign())
        a = 0.75 if k else 1.0
        x, previous = project(x + a * (z - x) + (1 - a) * (x - previous)), x
        f, g = look(x)
        values.append(f)
        points.append(x)
        slopes.append(g)
        if k + 1 in checkpoints(attack.steps):
            rises = sum(values[i + 1] > values[i] for i in range(since, k + 1))
            best = max(values)
            stalled = rises < 0.75 * (k + 1 - since) or (eta == eta_before and best == best_before)
            eta_before, best_before, since = eta, best, k + 1
            if stalled:
                eta /= 2
                at = values.index(best)
                x, g = points[at], slopes[at]
                values[-1] = f
    return max(values)


@pytest.mark.slow
@pytest.mark.parametrize(("eps", "steps"), [(0.2, 50), (0.05, 20)])
def test_it_is_the_published_algorithm(eps: float, steps: int) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(36, 16), nn.Tanh(), nn.Linear(16, 3)).double()
    with torch.no_grad():
        model[1].weight.mul_(8)  # bent, so that the ascent has to look for its way
        model[3].bias.copy_(torch.tensor([4.0, 0.0, 0.0]))  # always class 0
    x = torch.rand(40, 1, 6, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    y = torch.zeros(40, dtype=torch.long)
    attack = Apgd(eps=eps, steps=steps)
    noise = attack.draw(x, torch.Generator().manual_seed(2))
    assert noise is not None
    found = attack.maximize(model, x, y, lambda: noise)
    assert (model(found).argmax(dim=1) == y).all()
    ours = F.cross_entropy(model(found), y, reduction="none")
    for i in range(40):
        expected = literal(attack, model, x[i], y[i], noise[i])
        assert ours[i].item() == pytest.approx(expected, rel=1e-12)


def test_classes_too_few_for_a_loss_are_refused() -> None:
    model, x, y = Halfspaces.made(classes=3, examples=4)
    attack = Apgd(eps=0.1, loss="dlr-targeted", box=False)
    with pytest.raises(ValueError, match="dlr-targeted needs 4 classes"):
        attack.maximize(model, x, y, drawn(attack, x))
    with pytest.raises(ValueError, match="box: false"):
        Apgd(eps=0.1).maximize(model, x * 9, y, drawn(attack, x))


def test_batches_change_nothing() -> None:
    model, x, y = Halfspaces.made(classes=5, examples=12)
    attack = Apgd(eps=0.3, steps=20, restarts=2, box=False)
    whole = attack.maximize(model, x, y, drawn(attack, x))
    parts = attack.maximize(model, x, y, drawn(attack, x), batch=5)
    torch.testing.assert_close(whole, parts)
