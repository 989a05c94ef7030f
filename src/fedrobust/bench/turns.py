"""Time two ways to do the same in turns, beside a matrix product, in one process."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

_SIDE = 2048


@dataclass(frozen=True)
class HotPath:
    """A hot path, and the plain way to do the same.

    ``ours`` and ``plain`` are called in turns. ``flops`` are the floating-point operations that the
    arithmetic of one call needs, and ``cores`` are the cores that ``ours`` may use. ``per`` is what
    one call does, and ``count`` is how many of these it does. A long path has its own number of
    ``turns``, and no call to warm up.
    """

    name: str
    ours: Callable[[], object]
    plain: Callable[[], object] | None
    per: str
    count: float = 1.0
    flops: float | None = None
    cores: int = 1
    turns: int | None = None


@dataclass(frozen=True)
class Timed:
    """The medians of a hot path over the turns.

    ``rate`` is how many a second. ``ratio`` is the plain way's time over ours, turn by turn.
    ``share`` is our rate of operations over that of a float32 product on as many cores. ``memory``
    are the bytes at our peak beyond those before the call.
    """

    name: str
    per: str
    seconds: float
    rate: float
    ratio: float | None
    share: float | None
    memory: int | None
    turns: int


def timed(path: HotPath, turns: int) -> Timed:
    """Measure ``path``, after one call of each way to warm up, unless it has its own ``turns``."""
    if path.turns is None:
        path.ours()
        if path.plain is not None:
            path.plain()
    turns = path.turns or turns
    ours, ratios, shares, peaks = list[float](), list[float](), list[float](), list[int]()
    for _ in range(turns):
        before = resident("VmRSS", reset=True)
        spent = _seconds(path.ours)
        peak = resident("VmHWM")
        ours.append(spent)
        if before is not None and peak is not None:
            peaks.append(max(0, peak - before))
        if path.plain is not None:
            ratios.append(_seconds(path.plain) / spent)
        if path.flops is not None:
            shares.append(path.flops / spent / (path.cores * product_rate()))
    seconds = statistics.median(ours)
    return Timed(
        name=path.name,
        per=path.per,
        seconds=seconds,
        rate=path.count / seconds,
        ratio=statistics.median(ratios) if ratios else None,
        share=statistics.median(shares) if shares else None,
        memory=min(peaks) if peaks else None,
        turns=turns,
    )


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def product_rate() -> float:
    """Return the operations a second of a 2048³ float32 product on one core."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        a = torch.full((_SIDE, _SIDE), 0.5)
        return 2 * _SIDE**3 / _seconds(lambda: a @ a)
    finally:
        torch.set_num_threads(threads)


def resident(which: str, reset: bool = False) -> int | None:
    """Return this process's memory now (VmRSS) or its peak since the reset (VmHWM), on Linux."""
    process = Path("/proc/self")
    try:
        if reset:
            (process / "clear_refs").write_text("5")
        status = (process / "status").read_text()
    except OSError:
        return None
    return 1024 * next(int(li.split()[1]) for li in status.splitlines() if li.startswith(which))
