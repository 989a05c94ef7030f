"""Means and selections are those of their definitions, on both paths; no block or layout shows."""

import sys
import tracemalloc
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
from largest_tensor import LargestTensor
from rule_oracles import closest_to_median
from torch import Tensor

from fedrobust.aggregators import (
    Bulyan,
    Krum,
    Mean,
    MeanAroundMedian,
    Median,
    MultiKrum,
    TrimmedMean,
)
from fedrobust.aggregators.kernels import compiled, dispatch
from fedrobust.aggregators.kernels.dispatch import mean_around_median, middle_mean, row_mean
from fedrobust.aggregators.kernels.sorting_network import sort_columns

SIZES = [*range(1, 36), 50, 51, 63, 64, 65, 100, 129, 300]
"""Numbers of rows."""


def normal(n: int, d: int, seed: int = 0) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def awkward(n: int) -> Tensor:
    """Columns of ordinary values, of many equal ones, of ±0, and of very large and small ones."""
    values = [normal(n, 20), normal(n, 20, seed=1).round(), 0.0 * normal(n, 5)]
    values += [3e38 * normal(n, 9).clamp(-1, 1), 1e-40 * normal(n, 5), 1e3 + 1e-3 * normal(n, 9)]
    return torch.cat(values, dim=1)


def mean_of(values: Tensor) -> Tensor:
    """The float64 mean [d] of ``values`` [m, d]."""
    return (values.double() / len(values)).sum(dim=0)


def agree(got: Tensor, want: Tensor, updates: Tensor, case: str = "") -> None:
    """Equal but for one rounding to float32 and the cancellation of float64 sums."""
    assert got.dtype == updates.dtype
    slack = 1e-7 * want.abs() + 1e-14 * updates.abs().amax(dim=0) + 1e-45
    assert ((got.double() - want).abs() <= slack).all(), f"{len(updates)} rows, {case}"


@pytest.mark.usefixtures("path")
def test_the_middle_mean_is_that_of_sorted_columns() -> None:
    for n in SIZES:
        updates = awkward(n)
        ordered = updates.sort(dim=0).values
        for drop in {0, 1, n // 4, (n - 1) // 2}:
            if n > 2 * drop:
                agree(
                    middle_mean(updates, drop),
                    mean_of(ordered[drop : n - drop]),
                    updates,
                    f"drop = {drop}",
                )


@pytest.mark.slow
@pytest.mark.usefixtures("path")
def test_the_mean_around_the_median_is_that_of_the_closest_values() -> None:
    for n in SIZES:
        updates = awkward(n)
        for drop in {0, 1, 2, n // 2, 3 * n // 4, n - 2, n - 1}:
            if 0 <= drop < n:
                columns = [closest_to_median(c, n - drop) for c in updates.double().T.tolist()]
                want = mean_of(torch.tensor(columns, dtype=torch.float64).T)
                agree(mean_around_median(updates, drop), want, updates, f"drop = {drop}")


@pytest.mark.slow
@pytest.mark.usefixtures("path")
def test_of_values_equally_far_the_lower_is_kept() -> None:
    for n in range(1, 7):
        # Every column of n values out of four: most have ties, on both sides of the median.
        patterns = torch.arange(4**n) // 4 ** torch.arange(n)[:, None] % 4
        updates = torch.tensor([-3.0, -1.0, 1.0, 3.0])[patterns]
        for drop in range(n):
            columns = [closest_to_median(c, n - drop) for c in updates.double().T.tolist()]
            want = mean_of(torch.tensor(columns, dtype=torch.float64).T)
            torch.testing.assert_close(mean_around_median(updates, drop).double(), want)


@pytest.mark.usefixtures("path")
def test_distances_from_the_median_are_compared_in_float64() -> None:
    # Both neighbours are about 1 away, and which is nearer lies below float32's rounding.
    step = torch.arange(4.0) * 2**-23
    middle = torch.arange(-8.0, 9.0) * 2**-26
    updates = torch.cartesian_prod(-1 - step, middle, 1 + step).T.contiguous()
    columns = [closest_to_median(c, 2) for c in updates.double().T.tolist()]
    want = mean_of(torch.tensor(columns, dtype=torch.float64).T)
    torch.testing.assert_close(mean_around_median(updates, 1).double(), want, rtol=1e-6, atol=0)


@pytest.mark.usefixtures("path")
def test_the_row_mean_is_weighted() -> None:
    for n in SIZES:
        updates = awkward(n)
        weights = torch.rand(n, generator=torch.Generator().manual_seed(n)) + 0.1
        shares = (weights.double() / weights.double().sum())[:, None]
        agree(row_mean(updates, weights), (shares * updates.double()).sum(dim=0), updates)
        rows = torch.arange(0, n, 3)
        agree(row_mean(updates, rows=rows), mean_of(updates[rows]), updates)


def test_the_network_sorts() -> None:
    for n in SIZES:
        block = normal(n, 40)
        block[:, :20] = block[:, :20].round()
        assert torch.equal(sort_columns(block.clone()), block.sort(dim=0).values), f"{n} rows"


def test_the_network_sorts_every_pattern_of_zeros_and_ones() -> None:
    # A network that sorts all of them sorts everything (the zero-one principle).
    for n in range(1, 13):
        patterns = (torch.arange(2**n) >> torch.arange(n)[:, None] & 1).float()
        assert torch.equal(sort_columns(patterns.clone()), patterns.sort(dim=0).values)


KERNELS: dict[str, Callable[[Tensor], Tensor]] = {
    "row-mean": lambda x: row_mean(x, torch.arange(1.0, len(x) + 1)),
    "middle-mean": lambda x: middle_mean(x, 2),
    "mean-around-median": lambda x: mean_around_median(x, 4),
    "mean-around-median-of-rows": lambda x: mean_around_median(x, 2, torch.tensor([0, 2, 5])),
    "squared-distances": dispatch.squared_distances,
}


@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
def test_blocks_of_columns_leave_no_seam(
    monkeypatch: pytest.MonkeyPatch, kernel: Callable[[Tensor], Tensor]
) -> None:
    for d in (1, 7, 8, 9, 15, 16, 17, 50):
        updates = normal(7, d)
        before = updates.clone()
        whole = kernel(updates)
        with monkeypatch.context() as small:
            small.setattr(dispatch, "_BLOCK", 8 * 7)
            torch.testing.assert_close(kernel(updates), whole, rtol=1e-6, atol=0)
        assert torch.equal(updates, before), f"d = {d}"


@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
def test_compiled_loops_agree_with_pytorch_across_blocks(
    monkeypatch: pytest.MonkeyPatch, kernel: Callable[[Tensor], Tensor]
) -> None:
    whole = compiled._SHARE
    for d in (1, 255, 256, 257, 1000, 4095, 4097, 9000):
        updates = normal(7, d)
        before = updates.clone()
        monkeypatch.setattr(compiled, "LEAST", sys.maxsize)
        want = kernel(updates)
        monkeypatch.setattr(compiled, "LEAST", 1)
        for share in (1, 7 * 600, whole):
            monkeypatch.setattr(compiled, "_SHARE", share)
            torch.testing.assert_close(kernel(updates), want, rtol=1e-6, atol=0)
            assert torch.equal(updates, before), f"d = {d}, share = {share}"


VIEWS: dict[str, Callable[[Tensor], Tensor]] = {
    "transposed": lambda x: x.T.contiguous().T,
    "columns": lambda x: torch.cat([x, x], dim=1)[:, 3 : 3 + x.shape[1]],
    "other-columns": lambda x: x.repeat_interleave(2, dim=1)[:, ::2],
    "other-rows": lambda x: x.repeat_interleave(3, dim=0)[1::3],
    "one-row-for-all": lambda x: x[:1].expand(len(x), -1),
    "one-column-for-all": lambda x: x[:, :1].expand(-1, x.shape[1]),
    "a-parameter": lambda x: x.clone().requires_grad_().detach(),
}


@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
@pytest.mark.usefixtures("path")
def test_the_layout_of_the_updates_changes_nothing(kernel: Callable[[Tensor], Tensor]) -> None:
    for (name, view), d in product(VIEWS.items(), (1, 40, 9000)):
        updates = view(normal(7, d))
        want = kernel(updates.clone(memory_format=torch.contiguous_format))
        got = kernel(updates)
        torch.testing.assert_close(got, want, rtol=1e-6, atol=0, msg=f"{name}, d = {d}")


@pytest.mark.slow
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
@pytest.mark.usefixtures("path")
def test_three_hundred_clients_need_no_second_copy(rule: Any) -> None:
    updates = 1e3 + normal(300, 20_000)
    with LargestTensor():
        rule(updates)  # the first time also imports, and compiles or loads what was
    tracemalloc.start()  # sees NumPy's arrays, among them all that the compiled loops work on
    with LargestTensor() as largest:
        rule(updates)
    arrays = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert largest.bytes + arrays <= 10 * dispatch._BLOCK < updates.numel() * 4
