"""Measure rules in blocks of coordinates: 200 clients × 2²² coordinates, never one matrix.

    python benchmarks/rule_in_blocks.py --out results/benchmarks/rule_in_blocks.json

The matrix would take 3.1 GiB. Its blocks are drawn when they are asked for; the time of that is
told apart. Each case is measured once, in a process of its own, whose peak memory is that of the
process before the case and what the case adds. ``--table FILE`` prints the table of a stored file,
and measures nothing.
"""

import multiprocessing
import time
from argparse import Namespace
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from threading import Event, Thread
from typing import Any

import psutil
import torch

from fedrobust.aggregators import Aggregator, Bulyan, Context, Krum, Median, TrimmedMean
from fedrobust.aggregators.in_blocks import aggregate_in_blocks
from fedrobust.bench.table import described
from fedrobust.typing import Updates
from stored import command

CLIENTS, COORDINATES, TOLERATED = 200, 2**22, 20
RULES: tuple[Aggregator, ...] = (
    Median(),
    TrimmedMean(TOLERATED),
    Krum(TOLERATED),
    Bulyan(TOLERATED),
)
BLOCKS = (2**16, 2**20)


@dataclass
class Drawn:
    """Uniform updates, drawn by block and row; ``seconds`` is the time that this took."""

    n: int
    d: int
    width: int
    seconds: float = 0.0
    dtype: torch.dtype = torch.float32

    def blocks(self, rows: Sequence[int] | None = None) -> Iterator[Updates]:
        """Yield the blocks, in the same memory one after another."""
        wanted, generator = range(self.n) if rows is None else rows, torch.Generator()
        room = torch.empty(len(wanted), min(self.width, self.d))
        for start in range(0, self.d, self.width):
            began = time.perf_counter()
            block = room[:, : min(self.width, self.d - start)]
            for k, row in enumerate(wanted):
                generator.manual_seed(start * self.n + row)
                block[k].uniform_(-1, 1, generator=generator)
            self.seconds += time.perf_counter() - began
            yield block


def measured(rule: Aggregator, width: int) -> dict[str, Any]:
    """Return the seconds and the peak memory of one case."""
    aggregate_in_blocks(rule, Drawn(CLIENTS, 2**13, 2**12), Context())  # compile or load the loops
    columns, done, process = Drawn(CLIENTS, COORDINATES, width), Event(), psutil.Process()
    before = peak = process.memory_info().rss

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.01):
            peak = max(peak, process.memory_info().rss)

    watching = Thread(target=watch)
    watching.start()
    began = time.perf_counter()
    aggregate_in_blocks(rule, columns, Context())
    seconds = time.perf_counter() - began
    done.set()
    watching.join()
    return {
        "rule": getattr(rule, "name", ""),
        "block": width,
        "seconds": seconds - columns.seconds,
        "drawing": columns.seconds,
        "before": before,
        "peak": peak,
    }


def table(content: dict[str, Any]) -> str:
    """Return the table as Markdown."""
    found = [
        f"{content['clients']} clients × {content['coordinates']:,} coordinates: "
        f"{content['matrix'] / 2**30:.1f} GiB as a matrix\n",
        "| rule | block | seconds | peak memory, MiB | of these before |\n|---|---|---|---|---|",
    ]
    found += [
        f"| {row['rule']} | {row['block']:,} | {row['seconds']:.0f} | {row['peak'] / 2**20:,.0f} | "
        f"{row['before'] / 2**20:,.0f} |"
        for row in content["cases"]
    ]
    return "\n".join(found)


def cases(arguments: Namespace) -> dict[str, Any]:
    """Return all cases, and the machine."""
    fresh = multiprocessing.get_context("spawn")
    found = []
    for rule in RULES:
        for width in BLOCKS:
            with fresh.Pool(1) as pool:
                found.append(pool.apply(measured, (rule, width)))
    whole = CLIENTS * COORDINATES * 4
    return described() | {
        "clients": CLIENTS,
        "coordinates": COORDINATES,
        "f": TOLERATED,
        "matrix": whole,
        "cases": found,
    }


def main() -> None:
    """Measure or load, and print the table."""
    command(__doc__, cases, table)


if __name__ == "__main__":
    main()
