"""An attack on inputs is one call, and does what its search does."""

from typing import Any

import pytest
import torch
from torch import nn

from fedrobust.models import DigitsCnn, build_model
from fedrobust.perturb import Apgd, Fab, Pgd, Square, pgd

EPS = 0.1
ATTACKS: list[Any] = [
    Pgd(eps=EPS, step_size=0.03, steps=4, restarts=2),
    Apgd(eps=EPS, steps=4),
    Fab(eps=EPS, steps=4, targets=3),
    Square(eps=EPS, queries=20),
]


def network() -> nn.Module:
    return build_model(DigitsCnn(), (1, 8, 8), 10, torch.Generator().manual_seed(0))


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
