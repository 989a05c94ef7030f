"""The kernels for float32 updates on a CPU: compiled by numba, threads share the columns.

The module starts its own threads and ends them with the call: a second pool of idle threads that
spin beside PyTorch's would slow down what comes next. Which thread takes which columns changes no
bit of the result.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fedrobust.aggregators.kernels.sorting_network import comparators
from fedrobust.compute.units import workers
from fedrobust.typing import Floats, Indices, Updates, Vector

LEAST = 1 << 18
"""From this number of entries on, compiled loops are used. They are faster at any size, here by 1
to 10 ms a call (2 cores, 11 to 200 rows), but importing numba takes half a second."""
_SHARE = 1 << 19
"""The number of entries that a thread takes at a time."""


def serves(updates: Updates, rows: Indices | None = None) -> bool:
    """Whether these kernels serve ``rows`` (default all) of ``updates``.

    Only the kind and the number of these entries decide, so that runs repeat.
    """
    n = len(updates) if rows is None else len(rows)
    here = updates.device.type == "cpu" and updates.dtype == torch.float32
    return here and n * updates.shape[1] >= LEAST


def weighted_mean(updates: Updates, weights: Tensor, rows: Indices | None) -> Vector:
    """Return Σ wᵢ xᵢ / Σ wᵢ over ``rows``."""
    from fedrobust.aggregators.kernels import loops

    used, shares, total = _rows(updates, rows), weights.numpy(), float(weights.sum())

    def reduce(part: Floats, stride: int, out: Floats) -> None:
        loops.weighted_mean(part, stride, used, shares, total, out)

    return _per_column(updates, len(used), reduce)


def mean_of_closest(
    updates: Updates, rows: Indices | None, first: int, last: int, keep: int
) -> Vector:
    """Return, per coordinate, the mean of the ``keep`` neighbours that are closest to the median.

    Only the ranks ``first`` to ``last`` - 1 are considered.
    """
    from fedrobust.aggregators.kernels import loops

    used = _rows(updates, rows)
    network = comparators(len(used), first, last)

    def reduce(part: Floats, stride: int, out: Floats) -> None:
        block = _block(len(used), np.float32)
        loops.mean_of_closest(part, stride, used, network, first, last, keep, block, out)

    return _per_column(updates, len(used), reduce)


def squared_distances(updates: Updates) -> Tensor:
    """Return Σ (xᵢ − xⱼ)² of every pair of rows, [n, n], in float64 throughout."""
    from fedrobust.aggregators.kernels import loops

    n = len(updates)
    padded = -(-n // loops.TILE) * loops.TILE
    # The n² sums of distances must not take more memory than the columns themselves.
    width = max(1 << 12, 4 * n)

    def partial(columns: slice) -> npt.NDArray[np.float64]:
        part, stride = _flat(updates, columns)
        block, sums = _block(padded, np.float64), np.zeros((padded, padded))
        loops.add_squared_distances(part, stride, n, columns.stop - columns.start, block, sums)
        return sums

    total = np.zeros((padded, padded))
    for sums in _shared(partial, updates.shape[1], width):
        total += sums
    below = np.tril(total[:n, :n], -1)
    return torch.from_numpy(below + below.T)


def _per_column(updates: Updates, n: int, reduce: Callable[[Floats, int, Floats], None]) -> Vector:
    """Apply ``reduce`` to each share of the columns; it fills its part of the result."""
    from fedrobust.aggregators.kernels.loops import WIDTH

    result = updates.new_empty(updates.shape[1])
    out = result.numpy()

    def share(columns: slice) -> None:
        part, stride = _flat(updates, columns)
        reduce(part, stride, out[columns])

    for _ in _shared(share, len(out), max(1, _SHARE // n // WIDTH) * WIDTH):
        pass
    return result


def _shared(work: Callable[[slice], Any], d: int, width: int) -> Iterator[Any]:
    """Call ``work`` on each ``width`` columns, by all workers."""
    parts = [slice(start, min(start + width, d)) for start in range(0, d, width)]
    threads = min(workers(), len(parts))
    if threads == 1:
        yield from map(work, parts)
        return
    with ThreadPoolExecutor(threads) as pool:
        yield from pool.map(work, parts)


def _rows(updates: Updates, rows: Indices | None) -> npt.NDArray[np.int64]:
    return np.arange(len(updates)) if rows is None else rows.numpy()


def _block(n: int, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Return room for n rows, aligned to a cache line: otherwise loops take 1.5 times as long."""
    from fedrobust.aggregators.kernels.loops import WIDTH

    line = 64 // np.dtype(dtype).itemsize
    room = np.zeros(n * WIDTH + line, dtype)
    start = -room.ctypes.data % 64 // room.itemsize
    return room[start : start + n * WIDTH]


def _flat(updates: Updates, columns: slice) -> tuple[Floats, int]:
    """Return the columns as one array, and the distance in it from one row to the next."""
    part: Floats = updates.numpy(force=True)[:, columns]
    if part.strides[1] != part.itemsize:
        part = np.ascontiguousarray(part)
    n, width = part.shape
    stride = part.strides[0] // part.itemsize
    # A view from the first entry to the last, without the other columns of the last row.
    flat = np.lib.stride_tricks.as_strided(part, ((n - 1) * stride + width,), (part.itemsize,))
    return flat, stride
