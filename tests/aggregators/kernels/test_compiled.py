"""The pruned network finds every rank; the compiled loops know no threads, locks or layouts."""

import importlib
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba
import numpy as np
import pytest
import torch
from torch import Tensor

from fedrobust.aggregators import bulyan
from fedrobust.aggregators.kernels import compiled, dispatch, loops
from fedrobust.aggregators.kernels.sorting_network import comparators


def normal(n: int, d: int, seed: int = 0) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def zeros_and_ones(n: int) -> Tensor:
    return (torch.arange(2**n) >> torch.arange(n)[:, None] & 1).float()


def test_every_window_of_ranks_is_found_in_every_pattern_of_zeros_and_ones() -> None:
    for n in range(1, 13):
        # What finds a rank in all of them finds it in everything (the zero-one principle).
        patterns = zeros_and_ones(n)
        ordered = patterns.sort(dim=0).values
        for first in range(n):
            got = compiled.mean_of_closest(patterns, None, first, first + 1, 1)
            assert torch.equal(got, ordered[first]), f"rank {first} of {n}"
            for last in range(first + 2, n + 1):
                got = compiled.mean_of_closest(patterns, None, first, last, last - first)
                # Their sum, and each smaller window's, leave no room for a wrong one.
                torch.testing.assert_close(got, ordered[first:last].mean(dim=0))


@pytest.mark.slow
def test_every_rank_of_many_rows_is_found() -> None:
    for n in (*range(13, 65), 100, 129):
        updates = normal(n, 60)
        updates[:, :20] = updates[:, :20].round()
        ordered = updates.sort(dim=0).values
        for rank in range(n):
            got = compiled.mean_of_closest(updates, None, rank, rank + 1, 1)
            assert torch.equal(got, ordered[rank]), f"rank {rank} of {n}"


@pytest.mark.parametrize("n", [7, 8])
def test_no_comparator_could_be_left_out(n: int) -> None:
    patterns = zeros_and_ones(n).numpy()
    middle = n // 2

    def found(network: Any) -> bool:
        block = patterns.copy()
        for i, j, needed in network:
            low, high = np.minimum(block[i], block[j]), np.maximum(block[i], block[j])
            block[i] = low if needed & 1 else np.nan  # what is not written must not be read
            block[j] = high if needed & 2 else np.nan
        return bool((block[middle] == np.sort(patterns, axis=0)[middle]).all())

    network = comparators(n, middle, middle + 1)
    assert found(network)
    for k in range(len(network)):
        assert not found(np.delete(network, k, axis=0))


KERNELS: dict[str, Callable[[Tensor], Tensor]] = {
    "row-mean": dispatch.row_mean,
    "middle-mean": lambda x: dispatch.middle_mean(x, 5),
    "mean-around-median": lambda x: dispatch.mean_around_median(x, 12),
    "of-rows": lambda x: dispatch.mean_around_median(x, 4, torch.arange(1, len(x), 2)),
    "squared-distances": dispatch.squared_distances,
}
every_kernel = pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)


def test_vectors_have_the_type_of_the_updates_whatever_the_default_is() -> None:
    updates = normal(8, 40_000)
    torch.set_default_dtype(torch.float64)
    try:
        assert dispatch.middle_mean(updates, 2).dtype == torch.float32
    finally:
        torch.set_default_dtype(torch.float32)


@every_kernel
def test_threads_change_no_bit(kernel: Callable[[Tensor], Tensor]) -> None:
    updates = normal(20, 70_000) * torch.logspace(-3, 3, 70_000)
    assert compiled.serves(updates)
    want = kernel(updates)
    for threads in (2, 3, 16):
        torch.set_num_threads(threads)
        assert torch.equal(kernel(updates), want)
        assert torch.get_num_threads() == threads
    torch.set_num_threads(1)


@every_kernel
def test_several_callers_at_once_disturb_nothing(kernel: Callable[[Tensor], Tensor]) -> None:
    many = [normal(20, 20_000, seed) for seed in range(6)]
    want = [kernel(updates) for updates in many]
    torch.set_num_threads(2)
    with ThreadPoolExecutor(6) as callers:
        got = list(callers.map(kernel, many))
    torch.set_num_threads(1)
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


def test_distances_of_many_rows_stand_in_their_places() -> None:
    # Three panels of rows, the last one ragged; each distance tells which rows it is of.
    place = torch.arange(150.0)
    updates = torch.zeros(150, 2000)
    updates[:, 1500] = place**2
    want = (place[:, None].double() ** 2 - place.double() ** 2) ** 2
    assert torch.equal(compiled.squared_distances(updates), want)


def test_a_loop_that_raises_raises_in_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr(loops, "mean_of_closest", fail)
    torch.set_num_threads(2)
    with pytest.raises(MemoryError, match="no room"):
        dispatch.middle_mean(normal(20, 100_000), 3)
    torch.set_num_threads(1)


def test_other_updates_go_to_pytorch() -> None:
    large = torch.zeros(4, compiled.LEAST // 4)
    assert compiled.serves(large)
    assert not compiled.serves(large[:, 1:])
    assert not compiled.serves(large, torch.arange(len(large) - 1))
    assert not compiled.serves(large.double())
    assert not compiled.serves(large.half())
    assert not compiled.serves(large.to("meta"))


@pytest.mark.long
def test_small_updates_do_not_wait_for_numba() -> None:
    code = (
        "import sys, torch; from fedrobust.aggregators import Bulyan; "
        "Bulyan(1)(torch.randn(11, 500)); sys.exit('numba' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
def test_where_nothing_can_be_kept_loops_compile_each_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compile = numba.njit

    def njit(**options: Any) -> Any:
        if options.get("cache"):
            raise RuntimeError("cannot cache function: no locator available")
        return compile(**options)

    monkeypatch.setattr(numba, "njit", njit)
    try:
        uncached = importlib.reload(loops)
        got = compiled.mean_of_closest(normal(9, 300), None, 4, 5, 1)
        assert uncached.mean_of_closest.stats.cache_path is None  # type: ignore[attr-defined]
        assert torch.equal(got, normal(9, 300).median(dim=0).values)
    finally:
        monkeypatch.undo()
        importlib.reload(loops)


def test_rows_are_taken_out_alike_by_the_compiled_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    for n, f in ((3, 0), (7, 1), (19, 4), (40, 0), (40, 9), (140, 30)):
        spread = normal(n, 30).double()
        alike = normal(3, 30)[torch.arange(n) % 3].double()
        far = spread.clone()
        far[::3] *= 1e200  # their distances are infinite
        for updates in (spread, alike, far, normal(n, 30).sign(), torch.zeros(n, 2)):
            monkeypatch.setattr(bulyan, "_MANY", sys.maxsize)
            apart = dispatch.squared_distances(updates)
            want = bulyan.iterated_krum(apart, f)
            monkeypatch.setattr(bulyan, "_MANY", 1)
            got = bulyan.iterated_krum(apart, f)
            assert torch.equal(got, want), f"n = {n}, f = {f}"
            assert len(got) == n - 2 * f, f"n = {n}, f = {f}"
