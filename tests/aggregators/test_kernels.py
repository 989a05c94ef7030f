"""Distances are right where the quick formula cancels or overflows; blocks leave no seam."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from rule_oracles import distances as exact_distances
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from fedrobust.aggregators import (
    Bulyan,
    Krum,
    Mean,
    MeanAroundMedian,
    Median,
    MultiKrum,
    TrimmedMean,
    kernels,
)
from fedrobust.aggregators.kernels import mean_around_median, middle_mean, row_mean
from fedrobust.aggregators.sorting_network import sort_columns


def normal(n: int, d: int, seed: int = 0) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("n", [*range(1, 36), 63, 64, 65, 100, 129, 300])
def test_the_network_sorts(n: int) -> None:
    block = normal(n, 40)
    block[:, :20] = block[:, :20].round()
    assert torch.equal(sort_columns(block.clone()), block.sort(dim=0).values)


def test_the_network_sorts_every_pattern_of_zeros_and_ones() -> None:
    # A network that sorts all of them sorts everything (the zero-one principle).
    for n in range(1, 13):
        patterns = (torch.arange(2**n) >> torch.arange(n)[:, None] & 1).float()
        assert torch.equal(sort_columns(patterns.clone()), patterns.sort(dim=0).values)


def clusters(offsets: list[float], each: int, spread: float, d: int = 30) -> Tensor:
    rows = [o + spread * normal(each, d, seed) for seed, o in enumerate(offsets)]
    return torch.cat(rows)


HARD = {
    "plain": normal(20, 100),
    "one-coordinate": normal(20, 1),
    "one-row": normal(1, 5),
    "common-offset": 1e3 + 1e-3 * normal(40, 100),
    "huge-offset": 1e8 + normal(20, 100).double(),
    "two-clusters": clusters([1e3, -1e3], 10, 1e-2),
    "clusters-in-clusters": clusters([1e9, 1e9 + 1e4, 1e9 + 2e4, -5.0], 6, 1.0).double(),
    "chain": (2.0 ** torch.arange(-40, 40).double())[:, None] * normal(1, 9).double(),
    "outliers": torch.cat([normal(10, 50), 1e30 * normal(4, 50), 1e30 + normal(2, 50)]),
    "tiny": 1e-20 * normal(20, 50),
    "large": 1e15 * normal(20, 50),
    "duplicates": normal(4, 50).repeat(5, 1),
    "duplicates-at-an-offset": (1e4 + 1e-2 * normal(4, 50)).repeat(5, 1),
    "signs": 1e-3 * normal(20, 300).sign(),
    "zeros": torch.zeros(6, 4),
    "half": normal(9, 30).half(),
}


@pytest.mark.parametrize("updates", HARD.values(), ids=HARD)
def test_distances_have_twelve_right_digits(updates: Tensor) -> None:
    got = kernels.squared_distances(updates)
    want = torch.tensor(exact_distances(updates.double().tolist()), dtype=torch.float64)
    assert got.dtype == torch.float64
    assert torch.equal(got, got.T)
    torch.testing.assert_close(got, want, rtol=5e-13, atol=0)


def test_long_rows_that_nearly_cancel_keep_twelve_digits() -> None:
    # Just above the share of the norms below which a distance is taken again.
    updates = (normal(1, 200_000) + 0.13 * normal(16, 200_000, seed=1)).double()
    want = torch.stack([((updates - row) ** 2).sum(dim=1) for row in updates])
    torch.testing.assert_close(kernels.squared_distances(updates), want, rtol=1e-12, atol=0)


def test_float64_entries_whose_squares_overflow_give_infinity_and_equal_rows_zero() -> None:
    updates = normal(8, 20).double()
    updates[1] = 1e200
    updates[2] = -1e200
    updates[4] = 1e200 * normal(1, 20, seed=5).double()[0]
    updates[6] = updates[4]
    updates[7] = 1.7e308
    updates[3] = -1.7e308
    got = kernels.squared_distances(updates)
    want = torch.tensor(exact_distances(updates.tolist()), dtype=torch.float64)
    assert got[4, 6] == 0
    assert got[3, 7] == got[0, 1] == torch.inf
    torch.testing.assert_close(got, want, rtol=1e-12, atol=0)


# Ten rows ever nearer to the others: seen from one of them, all that are nearer still cancel.
DECOYS = (10.0 ** torch.arange(10, -290, -1).double()).clamp(min=1)[:, None]


@pytest.mark.parametrize(
    ("updates", "most"),
    [
        (normal(300, 200), 1),
        (1e3 + 1e-3 * normal(300, 200), 2),
        (1e3 + 1e-3 * normal(300, 200).index_select(0, torch.arange(300) // 150 * 299), 4),
        (clusters([1e3, -1e3, 1e5], 100, 1e-3, d=200), 10),
        (1e12 + DECOYS * normal(300, 50).double(), 4),
    ],
    ids=["plain", "common-offset", "two-distinct-rows", "three-clusters", "decoys-come-first"],
)
def test_cancelled_pairs_are_taken_again_together(
    monkeypatch: pytest.MonkeyPatch, updates: Tensor, most: int
) -> None:
    passes = []
    once = kernels._gram_distances
    monkeypatch.setattr(
        kernels, "_gram_distances", lambda *args: passes.append(args) or once(*args)
    )
    kernels.squared_distances(updates)
    assert len(passes) <= most


KERNELS: dict[str, Callable[[Tensor], Tensor]] = {
    "row-mean": lambda x: row_mean(x, torch.arange(1.0, len(x) + 1)),
    "middle-mean": lambda x: middle_mean(x, 2),
    "mean-around-median": lambda x: mean_around_median(x, 4),
    "mean-around-median-of-rows": lambda x: mean_around_median(x, 2, torch.tensor([0, 2, 5])),
    "squared-distances": kernels.squared_distances,
}


@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
@pytest.mark.parametrize("d", [1, 7, 8, 9, 15, 16, 17, 50])
def test_blocks_of_columns_leave_no_seam(
    monkeypatch: pytest.MonkeyPatch, kernel: Callable[[Tensor], Tensor], d: int
) -> None:
    updates = normal(7, d)
    before = updates.clone()
    whole = kernel(updates)
    monkeypatch.setattr(kernels, "_BLOCK", 8 * 7)
    torch.testing.assert_close(kernel(updates), whole, rtol=1e-6, atol=0)
    assert torch.equal(updates, before)
    torch.testing.assert_close(kernel(updates.T.contiguous().T), whole, rtol=1e-6, atol=0)


class LargestTensor(TorchDispatchMode):
    """Remembers the size in bytes of the largest tensor that any operation allocates."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in result if isinstance(result, tuple | list) else (result,):
            if isinstance(value, Tensor):
                given = {a.untyped_storage().data_ptr() for a in args if isinstance(a, Tensor)}
                if value.untyped_storage().data_ptr() not in given:
                    self.bytes = max(self.bytes, value.numel() * value.element_size())
        return result


@pytest.mark.parametrize(
    "rule",
    [
        Mean(),
        Median(),
        TrimmedMean(70),
        MeanAroundMedian(70),
        Krum(70),
        MultiKrum(70),
        Bulyan(70),
    ],
    ids=lambda rule: rule.name,
)
def test_three_hundred_clients_need_no_second_copy(rule: Any) -> None:
    updates = 1e3 + normal(300, 20_000)
    with LargestTensor() as largest:
        rule(updates)
    assert largest.bytes <= 8 * kernels._BLOCK < updates.numel() * 4
