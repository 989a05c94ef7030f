"""PGD against a transcription of its definition, and against what it promises."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedrobust.perturb import Pgd, pgd
from fedrobust.perturb.pgd import frozen


def network(seed: int = 0, dtype: torch.dtype = torch.float64) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Conv2d(1, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 16, 3)).to(
            dtype
        )


def examples(b: int = 7, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(5)
    return torch.rand(b, 1, 6, 6, generator=g, dtype=dtype), torch.arange(b) % 3


def literal(
    model: nn.Module,
    x0: Tensor,
    y: Tensor,
    noise: Tensor,
    eps: float,
    alpha: float,
    k: int,
    l2: bool,
) -> Tensor:
    """The definition, one example and one coordinate rule at a time."""
    found = []
    for i in range(len(x0)):
        x = x0[i] + noise[i]
        for step in range(k + 1):
            delta = x - x0[i]
            if l2:
                length = math.sqrt(float((delta**2).sum()))
                delta = delta * min(1.0, eps / length) if length > 0 else delta
            else:
                delta = delta.clamp(-eps, eps)
            x = (x0[i] + delta).clamp(0, 1)
            if step == k:
                break
            x = x.detach().requires_grad_(True)
            loss = F.cross_entropy(model(x[None]), y[i : i + 1])
            (g,) = torch.autograd.grad(loss, x)
            x = x.detach() + alpha * (g / math.sqrt(float((g**2).sum())) if l2 else g.sign())
        found.append(x)
    return torch.stack(found).detach()


@pytest.mark.parametrize(("norm", "eps", "alpha"), [("linf", 0.2, 0.05), ("l2", 1.0, 0.3)])
@pytest.mark.parametrize("batch", [None, 1, 3])
def test_follows_the_definition(norm: str, eps: float, alpha: float, batch: int | None) -> None:
    model, (x, y) = network(), examples()
    attack = Pgd(eps=eps, step_size=alpha, steps=6, norm=norm)
    noise = attack.draw(x, torch.Generator().manual_seed(1))
    assert noise is not None
    found = attack.maximize(model, x, y, lambda: noise, batch=batch)
    expected = literal(model, x, y, noise, eps, alpha, 6, norm == "l2")
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_stays_in_ball_and_box_and_raises_the_loss(norm: str, dtype: torch.dtype) -> None:
    model, (x, y) = network(dtype=dtype), examples(dtype=dtype)
    x[0], x[1] = 0, 1
    eps = 0.3 if norm == "linf" else 1.5
    found = pgd(model, x, y, eps=eps, step_size=eps / 4, steps=20, norm=norm)
    delta = (found - x).flatten(1)
    length = delta.abs().amax(1) if norm == "linf" else delta.norm(dim=1)
    assert found.dtype == dtype
    assert length.max() <= eps * (1 + 4 * torch.finfo(dtype).eps)
    assert length.min() > eps / 10
    assert found.min() >= 0
    assert found.max() <= 1
    before = F.cross_entropy(model(x), y, reduction="none")
    after = F.cross_entropy(model(found), y, reduction="none")
    assert (after > before).all()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_random_start_fills_the_ball(norm: str) -> None:
    x = torch.zeros(4000, 2)
    attack = Pgd(eps=2.0, step_size=1, steps=1, norm=norm, box=False)
    noise = attack.draw(x, torch.Generator().manual_seed(0))
    assert noise is not None
    if norm == "linf":
        inside = (noise.abs() <= 1).all(1).double().mean()  # a quarter of the square
    else:
        inside = (noise.norm(dim=1) <= 1).double().mean()  # a quarter of the disc
        assert noise.norm(dim=1).max() <= 2
    assert abs(inside - 0.25) < 0.03
    assert noise.abs().max() > 1.9


def test_zero_gradient_moves_nothing() -> None:
    """sign(0) = 0: a constant model leaves every input where its start put it."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 3))
    nn.init.zeros_(model[1].weight)
    x, y = examples(dtype=torch.float32)
    for norm in ("linf", "l2"):
        kept = pgd(model, x, y, eps=0.3, step_size=0.1, steps=5, norm=norm, random_start=False)
        assert torch.equal(kept, x)


def test_tiny_gradients_still_give_a_unit_l2_step() -> None:
    """A gradient of 1e-30 squares to 0 in float32; its direction must survive."""
    weight = torch.tensor([[3.0, 4.0], [0.0, 0.0]]) * 1e-30
    model = nn.Linear(2, 2, bias=False)
    model.weight.data = weight
    x = torch.full((1, 2), 0.5)
    moved = pgd(
        model, x, torch.tensor([1]), eps=0.1, step_size=0.05, steps=1, norm="l2", random_start=False
    )
    torch.testing.assert_close(moved - x, torch.tensor([[0.03, 0.04]]))


def test_more_restarts_never_help_the_model() -> None:
    model, (x, y) = network(3), examples(60)
    wrong = []
    for restarts in (1, 2, 5, 20):
        attack = Pgd(eps=0.08, step_size=0.05, steps=1, restarts=restarts)
        g = torch.Generator().manual_seed(0)
        found = attack.maximize(model, x, y, lambda a=attack, g=g: a.draw(x, g), batch=16)
        wrong.append(model(found).argmax(1) != y)
    for fewer, more in itertools.pairwise(wrong):
        assert not (fewer & ~more).any()
    assert wrong[-1].sum() > wrong[0].sum()


def test_leaves_the_model_as_it_was() -> None:
    model, (x, y) = network(), examples()
    model[0].bias.requires_grad_(False)
    before = [p.clone() for p in model.parameters()]
    model.train()
    with torch.no_grad():
        pgd(model, x, y, eps=0.1, step_size=0.1, steps=2)
    assert model.training
    assert [p.requires_grad for p in model.parameters()] == [True, False, True, True]
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_builds_no_graph_over_the_parameters() -> None:
    model, (x, _) = network(), examples()
    with frozen(model):
        assert not model(x).requires_grad
    assert model(x).requires_grad


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": examples()[0] * 255}, r"not in \[0, 1\].*1/255.*box: false"),
        ({"x": examples()[0] * float("nan")}, "NaN"),
        ({"y": torch.zeros(3, dtype=torch.long)}, "7 examples but 3 labels"),
        ({"eps": -0.1}, "greater than or equal to 0"),
        ({"steps": 0}, "greater than or equal to 1"),
        ({"norm": "l1"}, "linf"),
    ],
)
def test_bad_input_is_refused(change: dict[str, object], message: str) -> None:
    x, y = examples()
    settings: dict[str, object] = {
        "x": x,
        "y": y,
        "eps": 0.1,
        "step_size": 0.1,
        "steps": 1,
    } | change
    with pytest.raises(ValueError, match=message):
        pgd(network(), settings.pop("x"), settings.pop("y"), **settings)  # type: ignore[arg-type]


def test_no_examples_give_none() -> None:
    x, y = examples(0)
    assert pgd(network(), x, y, eps=0.1, step_size=0.1, steps=1).shape == (0, 1, 6, 6)
