"""An attack on inputs is one call, and does what its search does."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from fedrobust.models import DigitsCnn, build_model
from fedrobust.perturb import Apgd, Fab, Pgd, Square, pgd
from fedrobust.perturb.geometry import allowed

EPS = 0.1
ATTACKS: list[Any] = [
    Pgd(eps=EPS, step_size=0.03, steps=4, restarts=2),
    Apgd(eps=EPS, steps=4),
    Fab(eps=EPS, steps=4, targets=3),
    Square(eps=EPS, queries=20),
]


def network() -> nn.Module:
    return build_model(DigitsCnn(), (1, 8, 8), 10, torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_half_precision_moves_the_points_as_single_precision_does(
    attack: Any, norm: Any, kind: torch.dtype
) -> None:
    """In a small ball, where a step is less than the distance of two numbers of bfloat16."""
    changes = {"eps": 0.02 if norm == "linf" else 0.1, "norm": norm}
    if isinstance(attack, Pgd):
        changes |= {"step_size": changes["eps"] / 40, "steps": 40, "random_start": False}
    attack = replace(attack, **changes)
    draw = torch.Generator().manual_seed(1)
    model, x = network(), (0.5 + torch.rand(6, 1, 8, 8, generator=draw) / 2).to(kind)
    with torch.no_grad():
        y = model(x.float()).argmax(dim=1)  # none is wrong from the start
    single = attack(model, x.float(), y)
    found = attack(model.to(kind), x, y)
    assert found.dtype == kind
    assert found.isfinite().all()
    assert bool(allowed(found, x, attack.eps, norm, box=True).all())
    moved, wanted = ((each.float() - x.float()).flatten(1).norm(dim=1) for each in (found, single))
    if not isinstance(attack, Fab):  # it moves to mistakes alone, and the rounded model has others
        assert moved.sum() > 0.5 * wanted.sum() > 0


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_points_that_were_only_rounded_are_in_the_ball(norm: Any, kind: torch.dtype) -> None:
    """Features lie anywhere, and rounding grows with them; a point twice as far is outside."""
    x = (3 * torch.randn(40, 30, generator=torch.Generator().manual_seed(0))).to(kind)
    model, y = nn.Linear(30, 3).to(kind), torch.arange(40) % 3
    found = Pgd(eps=0.3, step_size=0.05, steps=10, norm=norm, box=False)(model, x, y)
    assert bool(allowed(found, x, 0.3, norm, box=False).all())
    far = (x.float() + 2.5 * (found.float() - x.float())).to(kind)
    assert not bool(allowed(far, x, 0.3, norm, box=False).any())


def test_the_nearest_mistake_has_the_type_of_the_input() -> None:
    model, x = nn.Sequential(nn.Flatten(), nn.Linear(64, 3)).bfloat16(), torch.rand(4, 1, 8, 8)
    fab = Fab(eps=0.1, steps=4)
    source = torch.Generator().manual_seed(0)
    given = x.bfloat16()
    found = fab.search(model, given, torch.arange(4) % 3, lambda: fab.draw(given, source))
    assert model(found.x).dtype == torch.bfloat16


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_a_call_is_the_search_from_seed_0(attack: Any) -> None:
    model, x, y = network(), torch.rand(6, 1, 8, 8), torch.arange(6)
    source = torch.Generator().manual_seed(0)
    wanted = attack.maximize(model, x, y, lambda: attack.draw(x, source), batch=4)
    found = attack(model, x, y, batch_size=4)
    assert torch.equal(found, wanted)
    assert (found - x).abs().max() <= EPS + 1e-6
    assert (found.min() >= 0) & (found.max() <= 1)
    again = attack(model, x, y, generator=torch.Generator().manual_seed(3), batch_size=4)
    assert attack.name in ("fab", "apgd") or not torch.equal(found, again)  # one start is x itself
    with pytest.raises(ValueError, match="y must"):
        attack(model, x, y.float())
    with pytest.raises(ValueError, match="batch_size"):
        attack(model, x, y, batch_size=0)


def test_it_is_the_function() -> None:
    model, x, y = network(), torch.rand(6, 1, 8, 8), torch.arange(6)
    keys = {"eps": EPS, "step_size": 0.03, "steps": 4}
    assert torch.equal(Pgd(**keys)(model, x, y), pgd(model, x, y, **keys))
