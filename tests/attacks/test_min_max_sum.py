"""Min-Max and Min-Sum: as far as their constraint lets them go, and no further."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from crafting import BENIGN, OWN, Quadratic, float64, normal, rows_of, view_of
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fedrobust.aggregators import MultiKrum
from fedrobust.attacks import MinMax, MinSum

Room = Callable[[Tensor, Tensor], tuple[float, float]]
DIRECTIONS = ("std", "unit", "sign")


def squared(a: Tensor, b: Tensor) -> float:
    return math.fsum((x - y) ** 2 for x, y in zip(a.tolist(), b.tolist(), strict=True))


def furthest(row: Tensor, honest: Tensor) -> tuple[float, float]:
    """What Min-Max bounds, and its bound."""
    limit = max(squared(a, b) for a in honest for b in honest)
    return max(squared(row, x) for x in honest), limit


def total(row: Tensor, honest: Tensor) -> tuple[float, float]:
    """What Min-Sum bounds, and its bound."""
    limit = max(math.fsum(squared(a, b) for b in honest) for a in honest)
    return math.fsum(squared(row, x) for x in honest), limit


ATTACKS: dict[str, tuple[Any, Room]] = {"min-max": (MinMax, furthest), "min-sum": (MinSum, total)}
both = pytest.mark.parametrize(("make", "room"), ATTACKS.values(), ids=ATTACKS)
each_way = pytest.mark.parametrize("direction", DIRECTIONS)


def against(honest: Tensor, direction: str) -> Tensor:
    """The paper's perturbation vector, as long as the paper has it."""
    mean = honest.mean(dim=0)
    if direction == "std":
        return -honest.std(dim=0, correction=1)
    return -mean / mean.norm() if direction == "unit" else -mean.sign()


def searched(honest: Tensor, direction: str, room: Room) -> Tensor:
    """The paper's search: γ grows by half the last step where it fits, else shrinks by it."""
    mean, p = honest.mean(dim=0), against(honest, direction)
    gamma, step, fits = 50.0, 25.0, 0.0
    while step > 1e-10:
        used, limit = room(mean + gamma * p, honest)
        if used <= limit:
            fits, gamma = gamma, gamma + step
        else:
            gamma -= step
        step /= 2
    return mean + fits * p


@both
@each_way
def test_goes_as_far_as_the_papers_search(make: Any, room: Room, direction: str) -> None:
    for honest in (normal(2, 3), normal(8, 5, seed=1), 0.1 * normal(12, 30, seed=2) + 0.3):
        row = rows_of(make(direction), view_of(honest))[0]
        torch.testing.assert_close(row, searched(honest, direction, room), rtol=0, atol=1e-8)


def test_min_max_by_hand() -> None:
    """Rows 0 and 4: μ = 2, limit 4. Against the mean the row may go to 0, where 4 is 4 away."""
    rows = rows_of(MinMax("unit"), view_of(float64([0.0], [4.0])))
    torch.testing.assert_close(rows, float64([0.0], [0.0]))
    # (0, 0), (4, 0), (2, 1): μ = (2, 1/3), limit 4; down from there, (0, 0) and (4, 0) let y be
    # -√12 and (2, 1) lets it be -3.
    honest = float64([0.0, 0.0], [4.0, 0.0], [2.0, 1.0])
    steep = rows_of(MinMax("sign"), view_of(honest - float64([2.0, 0.0])))[0]
    torch.testing.assert_close(steep, float64([0.0, -3.0])[0])


def test_min_sum_by_hand() -> None:
    """Rows 0, 1, 5: μ = 2, and the row 5 is furthest, 3 away: the crafted row is 2 - 3."""
    rows = rows_of(MinSum("unit"), view_of(float64([0.0], [1.0], [5.0])))
    torch.testing.assert_close(rows, float64([-1.0], [-1.0], [-1.0]))


@pytest.mark.slow
@both
@settings(derandomize=True, deadline=None, max_examples=60, database=None)
@given(
    n=st.integers(2, 7),
    d=st.integers(1, 5),
    seed=st.integers(0, 1000),
    scale=st.sampled_from([1e-12, 1e-3, 1.0, 1e8]),
    offset=st.sampled_from([0.0, 1.0, 100.0]),
    direction=st.sampled_from(DIRECTIONS),
)
def test_the_constraint_holds_and_is_tight(
    make: Any, room: Room, n: int, d: int, seed: int, scale: float, offset: float, direction: str
) -> None:
    honest = scale * (normal(n, d, seed) + offset)
    row = rows_of(make(direction), view_of(honest))[0]
    used, limit = room(row, honest)
    assert used <= limit * (1 + 1e-9)
    mean = honest.mean(dim=0)
    further, _ = room(mean + (1 + 1e-6) * (row - mean), honest)
    assert further > limit
    # And it goes against the direction, not along it.
    assert (row - mean) @ against(honest, direction) >= 0


@both
@each_way
def test_takes_the_benign_rows_where_it_sees_them(make: Any, room: Room, direction: str) -> None:
    seen = rows_of(make(direction), view_of(OWN, BENIGN))
    assert torch.equal(seen[:2], rows_of(make(direction), view_of(BENIGN)))
    assert torch.equal(seen[0], seen[2])


@both
@each_way
def test_one_row_or_equal_rows_leave_no_room(make: Any, room: Room, direction: str) -> None:
    for rows in (OWN[:1], OWN[:1].expand(3, -1), torch.zeros(2, 3, dtype=torch.float64)):
        torch.testing.assert_close(rows_of(make(direction), view_of(rows)), rows)


@both
def test_keeps_single_precision(make: Any, room: Room) -> None:
    honest = normal(6, 50).float()
    row = rows_of(make(), view_of(honest))[0]
    exact = rows_of(make(), view_of(honest.double()))[0]
    torch.testing.assert_close(row.double(), exact, rtol=0, atol=1e-6)


@both
def test_multi_krum_takes_rows_that_it_would_not_take_flipped(make: Any, room: Room) -> None:
    toy, rule = Quadratic(), MultiKrum(f=3)
    honest = toy.error(rule, None)
    assert toy.error(rule, make("unit"), knows=("benign",)) > 2 * honest
