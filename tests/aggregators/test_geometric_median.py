"""The geometric median is where the rows' pulls balance, exactly a row where that is a row."""

import pytest
import rule_oracles as oracles
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fedrobust.aggregators import Context, GeometricMedian, Median

exact = GeometricMedian(tolerance=1e-10, iterations=20_000)


def normal(n: int, d: int, seed: int = 0) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def mean_pull(updates: Tensor, v: Tensor) -> float:
    """The norm of the least subgradient of the mean distance, in float64."""
    return oracles.excess_pull(updates.double().numpy(), v.double().numpy()) / len(updates)


def total_distance(updates: Tensor, v: Tensor) -> float:
    return float((updates.double() - v.double()).norm(dim=1).sum())


SPREAD: dict[str, Tensor] = {
    "normal": normal(20, 10),
    "more rows than coordinates": normal(60, 2),
    "more coordinates than rows": normal(3, 500),
    "heavy tails": normal(40, 5) * torch.exp(2 * normal(40, 1, seed=1)),
    "offset": 1e3 + 1e-3 * normal(30, 20),
    "tiny": 1e-20 * normal(30, 20),
    "large": 1e15 * normal(30, 20),
    "nearly half far away": normal(31, 8) + 1e30 * (torch.arange(31) < 15)[:, None],
    "far on all sides": normal(31, 8) * 10.0 ** (2 * torch.arange(31) - 30)[:, None].clamp(0, 30),
    "nearly on a line": normal(21, 1) * normal(1, 6, seed=2) + 1e-3 * normal(21, 6, seed=3),
    "two points, unequal shares": normal(2, 4)[torch.arange(9) // 6],
    "four corners and the middle": torch.tensor([[1.0, 0], [-1, 0], [0, 1], [0, -1], [0.01, 0]]),
    "a triangle with an angle above 120 degrees": torch.tensor([[0.0, 0], [5, 1], [-5, 1]]),
}


@pytest.mark.parametrize("updates", SPREAD.values(), ids=SPREAD)
def test_the_rows_pulls_balance(updates: Tensor) -> None:
    updates = updates.double()
    assert mean_pull(updates, exact(updates)) <= 2e-9
    assert mean_pull(updates, GeometricMedian()(updates)) <= 2e-8


def test_no_point_near_or_far_has_a_smaller_sum_of_distances() -> None:
    updates = normal(15, 6).double()
    least = total_distance(updates, GeometricMedian()(updates))
    for seed in range(50):
        for size in (1e-4, 1e-1, 10.0):
            other = GeometricMedian()(updates) + size * normal(1, 6, seed)[0]
            assert total_distance(updates, other) >= least


@pytest.mark.slow
@settings(derandomize=True, deadline=None, max_examples=100, database=None)
@given(data=st.data())
def test_no_row_and_no_median_is_better_whatever_ties(data: st.DataObject) -> None:
    n, d = data.draw(st.integers(1, 7)), data.draw(st.integers(1, 3))
    value = st.sampled_from([-1e-3, 1e-3, 0.0, 1.0, 1.0 + 2**-23, -1.0, 3.0, 1e30, -1e30])
    rows = data.draw(st.lists(st.lists(value, min_size=d, max_size=d), min_size=n, max_size=n))
    updates = torch.tensor(rows, dtype=torch.float64)
    got = total_distance(updates, GeometricMedian()(updates))
    others = [*updates, Median()(updates), updates.mean(dim=0)]
    assert got <= min(total_distance(updates, v) for v in others) * (1 + 1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n", [1, 3, 8, 51])
def test_a_row_that_more_than_half_sent_is_the_answer_bit_for_bit(
    n: int, dtype: torch.dtype
) -> None:
    updates = 1e3 + normal(n, 30).to(dtype)
    updates[n // 2 :] = updates[-1].clone()
    updates[: (n - 1) // 3] *= 1e30
    assert torch.equal(GeometricMedian()(updates), updates[-1])


def test_a_row_amid_the_others_is_the_answer_bit_for_bit() -> None:
    corners = torch.tensor([[1.0, 0.0], [-1, 0], [0, 1], [0, -1], [0.1, 0.2]])
    assert torch.equal(GeometricMedian()(corners), corners[4])


@pytest.mark.parametrize("n", [1, 2, 5, 8, 60])
def test_in_one_dimension_it_is_the_median(n: int) -> None:
    unequal = torch.tensor([0.0, 0, 1, 5])[:, None]
    for updates in (normal(n, 1), normal(n, 1).round(), 1e3 + 1e-3 * normal(n, 1), unequal):
        torch.testing.assert_close(
            GeometricMedian()(updates), Median()(updates), rtol=2e-7, atol=1e-9
        )


def test_of_two_rows_it_is_the_middle_and_rows_on_a_line_know_no_order() -> None:
    updates = normal(2, 9)
    middle = updates.double().mean(dim=0).float()
    torch.testing.assert_close(GeometricMedian()(updates), middle, rtol=2e-7, atol=1e-8)
    line = torch.tensor([0.0, 1.0, 4.0, 9.0])[:, None] * normal(1, 9)
    torch.testing.assert_close(GeometricMedian()(line), GeometricMedian()(line.flip(0)))
    torch.testing.assert_close(GeometricMedian()(line), line[1:3].mean(dim=0))


def test_float64_rows_whose_distances_are_no_numbers() -> None:
    updates = normal(9, 20).double()
    updates[:4] = 1.7e308 * normal(4, 20, seed=1).double().sign()
    far = updates.clone()
    far[:4] *= 1e-200
    torch.testing.assert_close(GeometricMedian()(updates), GeometricMedian()(far))
    with pytest.raises(ValueError, match="half of the rows lie more than 1e150 apart"):
        GeometricMedian()(updates[:6])


def test_counts_weigh_only_when_asked_for() -> None:
    updates, counts = normal(6, 4), torch.tensor([1, 2, 0, 3, 1, 4])
    repeated = updates.repeat_interleave(counts, dim=0)
    context = Context(counts=counts)
    weighted = GeometricMedian(weighted=True)
    torch.testing.assert_close(weighted(updates, context), weighted(repeated), rtol=0, atol=1e-6)
    assert torch.equal(GeometricMedian()(updates, context), GeometricMedian()(updates))
    assert torch.equal(weighted(updates), GeometricMedian()(updates))
    counts[1] = 50
    assert torch.equal(weighted(updates, Context(counts=counts)), updates[1])


def test_more_smoothing_and_fewer_iterations_do_what_they_say() -> None:
    # One step from the central row, which it leaves out; and, with every row inside ν, the mean.
    updates = normal(12, 5).double()
    lengths = torch.cdist(updates, updates)
    centre = int(lengths.sum(dim=1).argmin())
    pulls = torch.where(lengths[centre] > 0, 1 / lengths[centre], 0)
    first = pulls @ updates / pulls.sum()
    shares = 1 / (updates - first).norm(dim=1)
    second = shares @ updates / shares.sum()
    torch.testing.assert_close(GeometricMedian(iterations=1)(updates), second)
    torch.testing.assert_close(GeometricMedian(smoothing=1e6)(updates), updates.mean(dim=0))
