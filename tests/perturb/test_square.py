"""Square Attack: what it promises, and what it finds without seeing a gradient."""

from typing import Any

import pytest
import torch
from linear import Halfspaces, distances
from torch import Tensor, nn

from fedrobust.perturb.square import Square, _moved, _Numbers, _sides, _window


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
    return attack.maximize(
        model, given.x, given.y, lambda: attack.draw(given.x, source), **keys
    ), model


@pytest.mark.slow
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


@pytest.mark.slow
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
        attack.maximize(given.model, given.x + 1, given.y, lambda: torch.zeros(10))


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_an_examples_points_depend_on_its_seed_alone(norm: Any) -> None:
    """Neither on the size of a batch, nor on which other examples are still to be attacked."""
    given = Halfspaces.made(classes=4, examples=150, shape=(1, 8, 8))
    attack = Square(eps=1.0 if norm == "l2" else 0.2, norm=norm, queries=20, box=False)
    seeds = attack.draw(given.x, torch.Generator().manual_seed(3))
    assert seeds is not None

    def points(some: Tensor, batch: int) -> Tensor:
        x, y = given.x[some], given.y[some]
        return attack.maximize(given.model, x, y, lambda: seeds[some], batch=batch)

    whole = points(torch.arange(150), 150)
    for some, batch in (
        (torch.arange(150), 7),
        (torch.arange(1, 150, 3), 64),
        (torch.arange(149, -1, -1), 100),
    ):
        torch.testing.assert_close(points(some, batch), whole[some])
    assert not torch.equal(whole[0] - given.x[0], whole[64] - given.x[64])
    assert not torch.equal(whole[0] - given.x[0], whole[1] - given.x[1])


def test_nobody_to_attack_is_no_trouble() -> None:
    given = Halfspaces.made(classes=4, examples=3)
    attack = Square(eps=0.1)
    none = attack.maximize(given.model, given.x[:0], given.y[:0], lambda: torch.zeros(0))
    assert none.shape == (0, 1, 4, 4)


def test_rows_of_numbers_are_a_row_of_pixels() -> None:
    given = Halfspaces.made(classes=4, examples=20, shape=(12,))
    eps = 2 * float(distances(given, "linf").median())
    found, _ = attacked(Square(eps=eps, queries=200, box=False), given)
    assert found.shape == given.x.shape
    with torch.no_grad():
        assert (given.model(found).argmax(dim=1) != given.y).double().mean() > 0.5


@pytest.mark.parametrize(
    ("h", "w"), [(28, 28), (1, 784), (784, 1), (7, 112), (112, 7), (3, 5), (1, 1)]
)
def test_a_window_has_its_share_of_images_of_any_form(h: int, w: int) -> None:
    for p in (0.8, 0.4, 0.1, 0.02):
        rows, columns = _sides(p, h, w)
        assert 1 <= rows <= h
        assert 1 <= columns <= w
        assert abs(rows * columns - p * h * w) <= (rows + columns) / 2 + 1
        side = (p * h * w) ** 0.5
        if side <= min(h, w):
            assert rows == columns == max(round(side), 1)


def test_it_is_as_strong_on_a_row_as_on_a_square() -> None:
    """The same halfspace, given as an image and as numbers: about as many mistakes are found."""
    draw = torch.Generator().manual_seed(0)
    x, model = torch.rand(40, 1, 28, 28, generator=draw), nn.Linear(784, 2)
    with torch.no_grad():
        model.weight[:] = torch.tensor([-1.0, 1.0])[:, None]
        model.bias[:] = torch.tensor([1.0, -1.0]) * (x.flatten(1).sum(dim=1).mean() - 0.7 * 78.4)
    y, attack = torch.ones(40).long(), Square(eps=0.1, queries=300)
    shapes = ((1, 28, 28), (784,), (1, 784, 1))
    models = [nn.Sequential(nn.Flatten(), model)] * 3
    found = [attack(m, x.view(40, *s), y) for m, s in zip(models, shapes, strict=True)]
    wrong = [
        float((m(f).argmax(dim=1) != y).float().mean()) for m, f in zip(models, found, strict=True)
    ]
    assert wrong[0] > 0.5
    assert min(wrong[1:]) > wrong[0] - 0.3


def pyramid(rows: int, columns: int) -> Tensor:
    """η of the paper's section on l2: a hill and its negative, one above the other, of norm 1."""
    half, both = rows // 2, torch.zeros(rows, columns, dtype=torch.float64)
    for sign, top, height in ((1.0, 0, half), (-1.0, half, rows - half)):
        n = max(height, columns) // 2
        for r in range(height):
            for s in range(columns):
                reach = n - max(abs(r - height // 2), abs(s - columns // 2))
                both[top + r, s] = sign * sum(1 / (n + 1 - k) ** 2 for k in range(reach + 1))
    return both / both.norm()


@pytest.mark.parametrize("seed", range(6))
def test_an_l2_query_moves_the_mass_of_one_window_into_another(seed: int) -> None:
    """Algorithm 3 of the paper for one image, with the windows and signs that were drawn."""
    side, eps = 5, 2.0
    delta = torch.randn(1, 3, 12, 12, generator=torch.Generator().manual_seed(0)).double()
    delta *= 1.5 / delta.norm()
    found = _moved(delta, side, side, eps, _Numbers(torch.tensor([seed])))
    again = _Numbers(torch.tensor([seed]))
    first, second = (_window(12, 12, side, again)[0, 0] for _ in range(2))
    turned = bool(again.below(2, 1, 1, 1))
    eta = pyramid(side, side).T if turned else pyramid(side, side)
    signs = again.signs(3, 1, 1).flatten()
    expected = delta[0].clone()
    for channel in range(3):
        old = delta[0, channel]
        way = signs[channel] * eta + old[first].view(side, side) / old[first].norm()
        mass = (eps**2 - delta.square().sum()) / 3 + old[first | second].square().sum()
        expected[channel, first | second] = 0
        expected[channel, first] = (way / way.norm() * mass.sqrt()).flatten()
    torch.testing.assert_close(found[0], expected, rtol=1e-6, atol=1e-7)
    assert found.norm().item() == pytest.approx(eps)


class Stubborn(nn.Module):
    """Right about everything, and keeps what it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x.clone())
        # The lead falls with every query, so that every change is kept.
        lead = torch.full((len(x),), 1.0 / len(self.seen), dtype=x.dtype)
        return torch.stack([lead, torch.zeros_like(lead)], dim=1)


@pytest.mark.parametrize("queries", [10_000, 2_000])
def test_the_windows_shrink_as_published(queries: int) -> None:
    """p = 0.8, halved after 10, 50, 200, … of 10,000 queries, at other counts in proportion."""
    attack, model = Square(eps=0.1, queries=queries, box=False), Stubborn()
    source, numbers = torch.Generator().manual_seed(1), _Numbers(torch.arange(20))
    x = torch.zeros(20, 1, 28, 28)
    y = torch.zeros(20, dtype=torch.long)
    looked_at = [q * queries // 10_000 for q in (5, 35, 150, 400, 900, 1900, 3900)]
    delta = torch.zeros_like(x)
    for query, p in zip(looked_at, (0.8, 0.4, 0.2, 0.1, 0.05, 0.025, 0.0125), strict=True):
        changed = attack._changed(delta, query, numbers).ne(0).flatten(1).sum(dim=1)
        assert changed.tolist() == [round((p * 784) ** 0.5) ** 2] * 20, (query, p)
    few = Square(eps=0.1, queries=3, box=False)
    few.maximize(model, x, y, lambda: few.draw(x, source))
    stripes, then, _ = model.seen
    # It begins with stripes, a sign for each column, and goes on from what it had.
    assert torch.equal(stripes, stripes[:, :, :1].expand_as(stripes))
    assert torch.equal(stripes.abs(), torch.full_like(x, 0.1))
    assert 5 < (stripes[0, 0, 0] > 0).sum() < 23
    assert 0 < (then != stripes).float().mean() < 0.1  # one small window, so late


def test_in_l2_it_begins_with_a_grid_of_pyramids() -> None:
    attack, model = Square(eps=0.7, norm="l2", queries=2, box=False), Stubborn()
    x, y = torch.zeros(6, 1, 20, 20), torch.zeros(6, dtype=torch.long)
    source = torch.Generator().manual_seed(1)
    attack.maximize(model, x, y, lambda: attack.draw(x, source))
    grid = model.seen[0]
    torch.testing.assert_close(grid.flatten(1).norm(dim=1), torch.full((6,), 0.7))
    tile = pyramid(4, 4).float() / 5 * 0.7  # 25 tiles of 4 × 4
    for down in range(5):
        for across in range(5):
            part = grid[:, 0, 4 * down : 4 * down + 4, 4 * across : 4 * across + 4]
            sign = part[:, 0, 0].sign().view(-1, 1, 1)
            torch.testing.assert_close(part * sign, tile.expand(6, 4, 4), rtol=1e-4, atol=1e-6)


def test_calls_of_draw_have_streams_of_their_own() -> None:
    """PyTorch's generator reads 32 bits of a seed, and a call's number must not be above them."""
    numbers = [
        _Numbers(torch.tensor([call * 2**20])).below(2**31, 1)[0].item() for call in range(5000)
    ]
    assert len(set(numbers)) > 4990
