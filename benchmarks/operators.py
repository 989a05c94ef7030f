"""Where the time of a round goes, operator by operator, on one core.

    python benchmarks/operators.py --out results/benchmarks/operators.json

A round is played once to warm up, and once under PyTorch's profiler. *outside* is the time between
operators: Python, and the profiler itself. ``--table FILE`` prints the tables of a stored file.
"""

import time
from collections.abc import Iterator
from typing import Any

from torch.profiler import ProfilerActivity, profile

from fedrobust.bench.paths import MNIST, drfl_round, fat_round
from fedrobust.bench.table import described
from fedrobust.bench.turns import HotPath
from fedrobust.compute.units import shared_by
from fedrobust.models import EluCnn, MnistCnn, MnistCnnSmall
from stored import command

_SHOWN = 10
_PRODUCTS = ("conv", "mm", "mv", "linear", "matmul")
"""Operators whose name holds one of these are the products of the network."""


def paths() -> Iterator[HotPath]:
    """Yield the rounds: their own way is the one that is profiled."""
    yield fat_round(MnistCnnSmall(), "small", 40)
    yield fat_round(MnistCnn(), "Madry's", 10)
    yield drfl_round("MNIST", EluCnn(width=16), MNIST, 64)


def profiled(path: HotPath) -> dict[str, Any]:
    """Return the seconds of one round, and of each operator in it without those it calls."""
    with shared_by(1):
        path.ours()
        began = time.perf_counter()
        path.ours()
        plain = time.perf_counter() - began
        with profile(activities=[ProfilerActivity.CPU]) as found:
            began = time.perf_counter()
            path.ours()
            seconds = time.perf_counter() - began
    rows = [
        {"operator": row.key, "seconds": row.self_cpu_time_total / 1e6, "calls": row.count}
        for row in found.key_averages()
    ]
    rows.sort(key=lambda row: -row["seconds"])
    return {"name": path.name, "seconds": seconds, "unprofiled": plain, "operators": rows}


def table(content: dict[str, Any]) -> str:
    """Return a table for each round, as Markdown."""
    found = []
    for path in content["rounds"]:
        whole = path["seconds"]
        inside = sum(row["seconds"] for row in path["operators"])
        products = sum(
            row["seconds"]
            for row in path["operators"]
            if any(part in row["operator"] for part in _PRODUCTS)
        )
        found += [
            f"**{path['name']}**, one core: {path['unprofiled']:.2f} s; under the profiler "
            f"{whole:.2f} s. Products and convolutions {products / whole:.0%}, other operators "
            f"{(inside - products) / whole:.0%}, outside of operators {1 - inside / whole:.0%}.\n",
            "| operator | of the round | calls |\n|---|---|---|",
        ]
        for row in path["operators"][:_SHOWN]:
            name = row["operator"].removeprefix("aten::")
            found.append(f"| `{name}` | {row['seconds'] / whole:.1%} | {row['calls']:,} |")
        found.append("")
    return "\n".join(found)


def main() -> None:
    """Measure or load, and print the tables."""
    command(
        __doc__, lambda _: described() | {"rounds": [profiled(path) for path in paths()]}, table
    )


if __name__ == "__main__":
    main()
