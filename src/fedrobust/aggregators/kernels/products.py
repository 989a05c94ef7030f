"""Products of the updates with weights, a vector and each other: in blocks, summed in float64.

Blocks of columns bound the extra memory. Float64 sums neither overflow nor lose digits on float32
input. Where the entries are float64 themselves, lengths are computed in units of the longest entry.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

from fedrobust.compute.units import workers
from fedrobust.typing import Updates, Vector

Result = TypeVar("Result")

_BLOCK = 1 << 18
"""Entries of one block of columns."""
_TURNS = 8
"""At most so many blocks are one worker's, before results are read: it bounds how many wait."""
_FEW, _MANY = 1e-290, 1e290
"""Counts between these bounds have a finite sum, and so do their shares."""


def weights(counts: Tensor, updates: Updates) -> Tensor:
    """Return the server's sample counts in float64 with a finite sum: [n], without history.

    Where counts are extremely large or small, all are divided by one power of two. This rounds
    nothing and changes no share. Ordinary counts stay as they are.
    """
    found = counts.detach().to(updates.device, torch.float64)
    greatest = found.max()
    if _FEW < greatest < _MANY:
        return found
    # The power itself must be finite in float64.
    return torch.ldexp(found, -torch.frexp(greatest).exponent.clamp(-1000, 1000))


def norms(updates: Updates, centre: Vector | None = None) -> Tensor:
    """Return ‖xᵢ − v‖₂ of every row, with v [d] the ``centre`` (default 0): [n], float64."""
    units = _units(updates, centre)

    def partial(columns: slice, block: Tensor) -> Tensor:
        if units is not None:
            block /= units
        if centre is not None:
            there = centre[columns].double()
            block -= there if units is None else there / units
        return block.square_().sum(dim=1)

    squares = torch.zeros(len(updates), dtype=torch.float64, device=updates.device)
    for found in _each(updates, partial):
        squares += found
    return squares.sqrt() if units is None else squares.sqrt() * units[:, 0]


def cosines(updates: Updates, lengths: Tensor, direction: Vector) -> Tensor:
    """Return ⟨xᵢ, u⟩ / ‖xᵢ‖ [n], 0 for zero rows; ``lengths`` are norms, u [d] is a unit vector."""
    lengths = torch.where(lengths > 0, lengths, 1.0)[:, None]
    wide = updates.dtype == torch.float64

    def partial(columns: slice, block: Tensor) -> Tensor:
        if wide:
            block /= lengths
        return block @ direction[columns].double()

    products = torch.zeros(len(updates), dtype=torch.float64, device=updates.device)
    for found in _each(updates, partial):
        products += found
    return products if wide else products / lengths[:, 0]


def gram(updates: Updates, centre: int, lengths: Tensor) -> Tensor:
    """Return ⟨yᵢ, yⱼ⟩ with yᵢ = (xᵢ − x_c) / ℓᵢ, for row c and ``lengths`` ℓ [n]: [n, n]."""
    n = len(updates)
    wide = updates.dtype == torch.float64

    def partial(columns: slice, block: Tensor) -> Tensor:
        if wide:  # half of each, since the difference of two float64 numbers may overflow
            block *= 0.5
        block -= block[centre].clone()
        if wide:
            block /= lengths[:, None] * 0.5
        return block @ block.T

    products = torch.zeros(n, n, dtype=torch.float64, device=updates.device)
    for found in _each(updates, partial):
        products += found
    products = (products + products.T) / 2
    return products if wide else products / lengths[:, None] / lengths


def combination(weights: Tensor, updates: Updates) -> Vector:
    """Return Σ wᵢ xᵢ, in float64: [d]."""
    out = torch.empty(updates.shape[1], dtype=torch.float64, device=updates.device)

    def share(columns: slice, block: Tensor) -> None:
        out[columns] = weights @ block

    for _ in _each(updates, share):
        pass
    return out


def group_means(members: Tensor, updates: Updates) -> Updates:
    """Return the mean of each group of rows: [m, d]; ``members`` [m, n] holds ones and zeros.

    The means have the dtype of the updates, as if they were a client's.
    """
    out = updates.new_empty(len(members), updates.shape[1])
    # A power of two rounds nothing, and shares that sum to at most 1 cannot overflow.
    largest = members.sum(dim=1).max().double()
    shares = members.double() / torch.ldexp(torch.ones_like(largest), torch.frexp(largest).exponent)
    totals = shares.sum(dim=1, keepdim=True)

    def share(columns: slice, block: Tensor) -> None:
        out[:, columns] = (shares @ block / totals).to(out.dtype)

    for _ in _each(updates, share):
        pass
    return out


def _units(updates: Updates, centre: Vector | None) -> Tensor | None:
    """Return a power of two near each row's greatest entry as seen from ``centre``: [n, 1].

    Return None for float32 entries: their squares are always finite in float64.
    """
    if updates.dtype != torch.float64:
        return None
    low, high = torch.aminmax(updates, dim=1)
    greatest = torch.maximum(-low, high) / 2
    if centre is not None:
        greatest = greatest + centre.abs().max() / 2
    # The power itself must be finite in float64.
    exponents = torch.frexp(greatest).exponent.clamp(-1000, 1000)
    return torch.ldexp(torch.ones_like(greatest), exponents)[:, None]


def _each(updates: Updates, work: Callable[[slice, Tensor], Result]) -> Iterator[Result]:
    """Yield ``work(columns, block)`` of each block of columns in float64, in order.

    The work may overwrite its block. On a CPU all workers share the blocks, each in one thread: the
    threads of PyTorch's own operations wait for each other at every one of them, which takes many
    times as long where other programs use the cores too. No bit depends on the number of workers.
    """
    n, d = updates.shape
    width = max(1, min(1 << 12, _BLOCK // n, d))
    parts = [slice(start, min(start + width, d)) for start in range(0, d, width)]
    count = min(workers(), len(parts)) if updates.device.type == "cpu" else 1
    if count == 1:
        yield from _in_turn(updates, work, parts)
        return
    length = min(_TURNS, -(-len(parts) // count))
    runs = [parts[i : i + length] for i in range(0, len(parts), length)]
    threads = torch.get_num_threads()
    infers, grads = torch.is_inference_mode_enabled(), torch.is_grad_enabled()

    def one(run: list[slice]) -> list[Result]:
        # Each thread has modes of its own, and the caller's must hold here.
        with torch.inference_mode(infers), torch.set_grad_enabled(grads):
            return list(_in_turn(updates, work, run))

    try:
        with ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            for i in range(0, len(runs), count):
                for found in pool.map(one, runs[i : i + count]):
                    yield from found
    finally:
        torch.set_num_threads(threads)  # it is also the number of the threads that begin later


def _in_turn(
    updates: Updates, work: Callable[[slice, Tensor], Result], parts: list[slice]
) -> Iterator[Result]:
    """Yield ``work`` of each of ``parts``, one after the other."""
    n, width = len(updates), parts[0].stop - parts[0].start
    # All blocks share this memory: freed memory would be fetched again page by page each time.
    room = torch.empty(n * width, dtype=torch.float64, device=updates.device)
    for columns in parts:
        block = room[: n * (columns.stop - columns.start)].view(n, -1)
        yield work(columns, block.copy_(updates[:, columns]))
