"""The arithmetic of the rules: means and selection per coordinate, and distances between rows.

Everything works on blocks of columns and sums in float64, so that the extra memory is bounded and
float32 input neither overflows nor loses digits. Vectors are returned in the dtype of the updates.

Large float32 updates on a CPU go to compiled loops. The code here serves GPUs, the other dtypes,
and small updates, for which it is as fast. Both follow the same definitions.
"""

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from fedrobust.aggregators.kernels import compiled
from fedrobust.aggregators.kernels.sorting_network import sort_columns
from fedrobust.typing import Indices, Updates, Vector

_BLOCK = 1 << 20
"""Entries of one block of columns: it stays in the processor's cache, or close to it."""
_PRODUCT = 1 << 12
"""Columns of one matrix product: the rounding error grows with the length of its sums."""
_FEW = 1 << 11
"""Up to so many numbers, one call of a general sort is faster than the stages of the network."""
_CANCELLED = 1 / 64
"""Below this share of ‖a‖² + ‖b‖² a squared distance has lost digits that may matter."""


def row_mean(
    updates: Updates, weights: Tensor | None = None, rows: Indices | None = None
) -> Vector:
    """Return Σ wᵢ xᵢ / Σ wᵢ over ``rows`` (default all), ``weights`` [rows] (default equal)."""
    n = len(updates) if rows is None else len(rows)
    if weights is None:
        weights = torch.ones(n, dtype=torch.float64)
    weights = weights.to(updates.device, torch.float64)
    # A power of two rounds nothing, and weights that sum to at most 1 cannot overflow.
    weights = torch.ldexp(weights, -torch.frexp(weights.sum()).exponent)
    if compiled.serves(updates, rows):
        return compiled.weighted_mean(updates, weights, rows)
    total = weights.sum()
    return _per_column(updates, rows, lambda block: weights @ block.double() / total)


def middle_mean(updates: Updates, drop: int) -> Vector:
    """Return, per coordinate, the mean without the ``drop`` least and greatest values."""
    n = len(updates)
    if compiled.serves(updates):
        return compiled.mean_of_closest(updates, None, drop, n - drop, n - 2 * drop)
    return _per_column(updates, None, lambda block: _mean(_sorted(block)[drop : n - drop]))


def _sorted(block: Tensor) -> Tensor:
    """Return the columns of ``block`` [n, b] in ascending order; the block may be overwritten."""
    few = block.numel() <= _FEW and block.device.type == "cpu"
    return block.sort(dim=0).values if few else sort_columns(block)


def mean_around_median(updates: Updates, drop: int, rows: Indices | None = None) -> Vector:
    """Return, per coordinate, the mean of ``rows`` without the ``drop`` farthest from the median.

    Of two values equally far from the median, one below and one above, the lower is kept.
    """
    if compiled.serves(updates, rows):
        n = len(updates) if rows is None else len(rows)
        middle, keep = (n - 1) // 2, n - drop
        # The lower middle value is always among the closest, so only these ranks are needed.
        first, last = max(0, middle - keep + 1), min(n, middle + keep)
        return compiled.mean_of_closest(updates, rows, first, last, keep)
    return _per_column(updates, rows, lambda block: _closest_mean(_sorted(block), drop))


def squared_distances(updates: Updates) -> Tensor:
    """Return ‖xᵢ − xⱼ‖² of every pair of rows: [n, n], float64, symmetric, 0 for equal rows.

    Compiled loops sum squared differences, in which nothing cancels. The code here uses a Gram
    matrix, which gives all pairs at the price of one product. The Gram matrix cancels where two
    rows are closer to each other than to the origin. Such pairs are computed again as seen from one
    of these rows. The new distances are exact for that row's own pairs and, where the rows form a
    cluster, accurate for all the others. Pairs that still cancel are computed again from another
    such row. All relative errors stay near 1e-13, whatever offset the rows share. Float64 entries
    larger than 1e150, whose squares overflow, give infinity; entries below 1e-150 count as 0.
    """
    if compiled.serves(updates):
        return compiled.squared_distances(updates)
    distances, limits = _gram_distances(updates)
    # Written so that NaN (infinity minus infinity) also counts as cancelled.
    cancelled = ~(distances >= limits)
    while bool(cancelled.any()):
        # Take the row with the most cancelled pairs, and among equals the one nearest to its
        # partners: closeness is in [1, 2].
        closeness = (2 - (distances / limits).nan_to_num(nan=0.0)) * cancelled
        centre = int(closeness.sum(dim=1).argmax())
        members = cancelled[centre].clone()
        members[centre] = True
        rows = members.nonzero()[:, 0]
        block = (rows[:, None], rows)
        seen, seen_limits = _gram_distances(updates, rows, int((rows == centre).nonzero()))
        again = cancelled[block]
        distances[block] = torch.where(again, seen, distances[block])
        limits[block] = torch.where(again, seen_limits, limits[block])
        cancelled[block] = again & ~(seen >= seen_limits)
        cancelled[centre] = False
        cancelled[:, centre] = False
    return distances


def _gram_distances(
    updates: Updates, rows: Indices | None = None, here: int | None = None
) -> tuple[Tensor, Tensor]:
    """Return squared distances by ‖a‖² + ‖b‖² − 2a·b, and the limits below which they cancel.

    a and b are seen from the row at index ``here`` of ``rows``, or from the origin.
    """
    n = len(updates) if rows is None else len(rows)
    gram = torch.zeros(n, n, dtype=torch.float64, device=updates.device)
    for columns in _columns(n, updates.shape[1], widest=_PRODUCT):
        block = _block(updates, rows, columns).to(torch.float64, copy=True)
        if here is not None:
            block -= block[here].clone()
        # Not addmm_: it carries one running sum through all the blocks and rounds at each term.
        gram += block @ block.T
    gram = (gram + gram.T) / 2
    norms = gram.diagonal()
    sums = norms[:, None] + norms
    distances = (sums - 2 * gram).clamp_(min=0)
    limits = sums * _CANCELLED
    if here is not None:
        # Seen from the centre, a row's norm is its distance, and nothing cancels.
        distances[here] = norms
        distances[:, here] = norms
        limits[here] = 0
        limits[:, here] = 0
    distances.fill_diagonal_(0)
    limits.fill_diagonal_(0)
    return distances, limits


def _closest_mean(ordered: Tensor, drop: int) -> Tensor:
    """Return the mean of the n − ``drop`` values closest to the median of each sorted column.

    These values are neighbours in sorted order. The window of n − ``drop`` values starts at the
    lowest and moves up while the value that enters is closer to the median m than the value that
    leaves: enters − m < m − leaves. With m = (a + b) / 2 of the middle values this is
    enters − b < a − leaves. This form needs no rounded median, so an exact tie is recognised as
    one.
    """
    n = len(ordered)
    keep = n - drop
    below, above = ordered[(n - 1) // 2].double(), ordered[n // 2].double()
    window = ordered[:keep].clone()
    # A window of `keep` neighbours has one value of each residue modulo `keep`, so the entering
    # value takes the place of the leaving one, and no sum needs a subtraction.
    for start in range(0, drop, keep):
        leaving = ordered[start : min(start + keep, drop)]
        entering = ordered[start + keep : start + keep + len(leaving)]
        moves = entering.double() - above < below - leaving.double()
        place = window[: len(leaving)]
        torch.where(moves, entering, place, out=place)
    return _mean(window)


def _mean(values: Tensor) -> Tensor:
    """Return the float64 mean of each column of ``values`` [m, b]; no sum overflows."""
    m = len(values)
    scale = 0.5 ** m.bit_length()
    return (values.double() * scale).sum(dim=0) / (m * scale)


def _per_column(
    updates: Updates, rows: Indices | None, reduce: Callable[[Tensor], Tensor]
) -> Vector:
    """Apply ``reduce``, which may overwrite its block [rows, b], to every block of columns."""
    out = updates.new_empty(updates.shape[1])
    n = len(updates) if rows is None else len(rows)
    for columns in _columns(n, updates.shape[1]):
        block = _block(updates, rows, columns)
        out[columns] = reduce(block.clone(memory_format=torch.contiguous_format))
    return out


def _columns(n: int, d: int, widest: int = _BLOCK) -> Iterator[slice]:
    width = min(widest, columns_at_a_time(n))
    return (slice(start, min(start + width, d)) for start in range(0, d, width))


def columns_at_a_time(n: int) -> int:
    """Return how many columns of n rows are one block."""
    return max(1, _BLOCK // n)


def recut(blocks: Iterable[Updates], n: int) -> Iterator[Updates]:
    """Yield the columns of ``blocks`` [n, w], in order, cut such that no bit of a result depends
    on the cuts.

    What is computed per coordinate is computed in blocks of :func:`columns_at_a_time`, and how a
    sum is rounded may depend on the size of its block. So each piece begins at a multiple of this
    width, as in the whole matrix. No piece is smaller than that unless the whole is, so that the
    same kernels serve them. At most two widths of columns are copied and wait for the next block.
    """
    width, rest, held = columns_at_a_time(n), list[Tensor](), 0
    for block in blocks:
        total = held + block.shape[1]
        leave = max(0, total // width - 1) * width
        if leave <= held:
            rest.append(block.clone())
            if leave:
                joined = torch.cat(rest, dim=1)
                yield joined[:, :leave]
                rest = [joined[:, leave:].clone()]
        else:
            first = -held % width
            if held:
                yield torch.cat([*rest, block[:, :first]], dim=1)
            if leave > held + first:
                yield block[:, first : leave - held]
            rest = [block[:, leave - held :].clone()]
        held = total - leave
    if rest:
        yield torch.cat(rest, dim=1)


def _block(updates: Updates, rows: Indices | None, columns: slice) -> Tensor:
    return updates[:, columns] if rows is None else updates[rows, columns]
