"""Square Attack: what it promises, and what it finds without seeing a gradient."""

from typing import Any

import pytest
import torch
from linear import Halfspaces, distances
from torch import Tensor, nn

from fedrobust.perturb.square import Square


class Counted(nn.Module):
    """A model that counts what it is asked, and lets no gradient through."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.asked, self.seen = model, 0, torch.zeros(0)

    def forward(self, x: Tensor) -> Tensor:
        assert not torch.is_grad_enabled()
        self.asked += len(x)
        self.seen = x.clone()
        logits: Tensor = self.model(x)
        return logits


def attacked(attack: Square, given: Halfspaces, **keys: Any) -> tuple[Tensor, Counted]:
    model = Counted(given.model)
    source = torch.Generator().manual_seed(0)
    return attack.maximise(
        model, given.x, given.y, lambda: attack.draw(given.x, source), **keys
    ), model


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 8, 6)])
def test_it_finds_mistakes_and_stays_in_the_ball(norm: Any, shape: tuple[int, ...]) -> None:
    given = Halfspaces.made(classes=4, examples=30, shape=shape)
    nearest = distances(given, norm)
    eps = 1.5 * float(nearest.median())
    found, model = attacked(Square(eps=eps, norm=norm, queries=400, box=False), given)
    offset = (found - given.x).flatten(1)
    size = offset.abs().amax(dim=1) if norm == "linf" else offset.norm(dim=1)
    torch.testing.assert_close(size, torch.full_like(size, eps))
    with torch.no_grad():
        wrong = given.model(found).argmax(dim=1) != given.y
    assert not wrong[nearest > eps * 1.0001].any()
    assert wrong[nearest < 0.5 * eps].double().mean() > 0.6
    assert model.asked <= 400 * 30


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_more_queries_find_more(norm: Any) -> None:
    given = Halfspaces.made(classes=4, examples=60, shape=(1, 8, 8))
    eps = 1.3 * float(distances(given, norm).median())

    def share(queries: int) -> float:
        found, _ = attacked(Square(eps=eps, norm=norm, queries=queries, box=False), given)
        with torch.no_grad():
            return (given.model(found).argmax(dim=1) != given.y).double().mean().item()

    assert share(1) + 0.2 < share(400)


def test_every_query_spends_the_budget_and_asks_standing_examples_only() -> None:
    given = Halfspaces.made(classes=4, examples=10, shape=(1, 8, 8))
    attack = Square(eps=1e-4, queries=30, box=False)
    _, model = attacked(attack, given)
    assert ((model.seen - given.x[: len(model.seen)]).abs() - 1e-4).abs().max() < 1e-12
    assert model.asked == 30 * 10  # nobody falls at this radius
    _, model = attacked(Square(eps=9.0, queries=30, box=False), given)
    assert model.asked < 30 * 10


def test_it_keeps_to_the_box_and_its_seed() -> None:
    given = Halfspaces.made(classes=4, examples=10, shape=(1, 8, 8))
    attack = Square(eps=0.4, queries=20)
    first, _ = attacked(attack, given)
    again, _ = attacked(attack, given)
    assert torch.equal(first, again)
    assert first.min() >= 0
    assert first.max() <= 1
    with pytest.raises(ValueError, match="box: false"):
        attack.maximise(given.model, given.x + 1, given.y, lambda: torch.zeros(10))


def test_nobody_to_attack_is_no_trouble() -> None:
    given = Halfspaces.made(classes=4, examples=3)
    attack = Square(eps=0.1)
    none = attack.maximise(given.model, given.x[:0], given.y[:0], lambda: torch.zeros(0))
    assert none.shape == (0, 1, 4, 4)


def test_rows_of_numbers_are_a_row_of_pixels() -> None:
    given = Halfspaces.made(classes=4, examples=20, shape=(12,))
    eps = 2 * float(distances(given, "linf").median())
    found, _ = attacked(Square(eps=eps, queries=200, box=False), given)
    assert found.shape == given.x.shape
    with torch.no_grad():
        assert (given.model(found).argmax(dim=1) != given.y).double().mean() > 0.5
