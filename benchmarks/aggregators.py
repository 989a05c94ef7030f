"""Time every aggregation rule against plain PyTorch, ByzFL and Flower, and check their answers.

All rules get the same matrix: normal rows of width 1e-3 about an offset of 1e3, which a float32
product cannot tell apart. The contestants take turns. Each time is given as a ratio to two others
of the same turn: copying the updates into an existing matrix, and their product with their
transpose, both in float32. Memory is the peak beyond the process's memory before, in copies of the
updates. The error is the largest of all coordinates, in widths, against the same rule in float64.

ByzFL and Flower take part if they can be imported. ByzFL needs a torchvision that fits torch, and
so an environment of its own:

    python3.11 -m venv others
    others/bin/pip install torch==2.14.1 torchvision==0.29.1 byzfl==0.0.11 flwr==1.41.0 -e .
    others/bin/python benchmarks/aggregators.py --out results/benchmarks/aggregators.json

``--table FILE`` prints the table of a stored file, and measures nothing.
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from contestants import Case, cases
from fedrobust.bench.turns import resident
from right import Right

OFFSET, WIDTH = 1e3, 1e-3
UNITS = ("copy", "product")
HEAD = """| rule | by | seconds | × copy | × product | memory | error |
|---|---|---|---|---|---|---|"""


def main() -> None:
    """Parse the arguments, measure or load, print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clients", type=int, default=51)
    parser.add_argument("--coordinates", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--patience", type=float, default=5.0, help="slower ones run only once")
    parser.add_argument("--rules", nargs="*", help="class names; all by default (for 51 clients)")
    parser.add_argument("--out", type=Path, help="where to store the results as JSON")
    parser.add_argument("--table", type=Path, metavar="FILE", help="print the table of FILE")
    arguments = parser.parse_args()
    if arguments.table:
        results = json.loads(arguments.table.read_text())
        print(heading(results), *map(line, results["rows"]), sep="\n")
        return
    torch.set_num_threads(arguments.threads)
    generator = torch.Generator().manual_seed(0)
    shape = (arguments.clients, arguments.coordinates)
    updates = OFFSET + WIDTH * torch.randn(shape, generator=generator)
    results = described(arguments)
    print(heading(results), flush=True)
    for name, case in cases(updates, Right(updates)).items():
        if not arguments.rules or name in arguments.rules:
            for row in measured(case, updates, arguments.repeats, arguments.patience):
                results["rows"].append(row)
                print(line(row), flush=True)
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(results, indent=1) + "\n")


def described(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the settings and versions of the measurement, without rows yet."""
    versions = {"python": platform.python_version()}
    for library in ("fedrobust", "torch", "numba", "numpy", "byzfl", "flwr"):
        try:
            versions[library] = version(library)
        except PackageNotFoundError:
            continue
    return {
        "clients": arguments.clients,
        "coordinates": arguments.coordinates,
        "repeats": arguments.repeats,
        "threads": arguments.threads,
        "platform": platform.platform(),
        "versions": versions,
        "rows": [],
    }


def measured(case: Case, updates: Tensor, repeats: int, patience: float) -> list[dict[str, Any]]:
    """Measure the contestants of ``case`` in turns, and return a row for each."""
    room = torch.empty_like(updates)
    calls: dict[str, Callable[[], Any]] = {
        "copy": lambda: room.copy_(updates),
        "product": lambda: updates @ updates.T,
        "fedrobust": lambda: case.rule(updates, case.context),
    }
    for name, call in case.others.items():
        calls[name] = lambda call=call: call(updates)
    runs: dict[str, list[tuple[float, int | None]]] = {name: [] for name in calls}
    rows: dict[str, dict[str, Any]] = {}
    for name, call in calls.items():  # also loads, compiles and warms up
        run, answer = timed(call)
        if name in UNITS:
            continue
        rows[name] = {"rule": shown(case.rule), "by": name, "error": None}
        if isinstance(answer, Exception):
            rows[name]["failed"] = f"{type(answer).__name__}: {answer}".splitlines()[0]
        else:
            right = case.right.get(name, case.right[""])
            if right:
                rows[name]["error"] = error(answer, right())
            if run[0] > patience:
                runs[name].append(run)
        del answer
    once = [name for name in rows if runs[name] or "failed" in rows[name]]
    for _ in range(repeats):
        for name, call in calls.items():
            if name not in once:
                runs[name].append(timed(call)[0])
    units = {unit: statistics.median(seconds for seconds, _ in runs[unit]) for unit in UNITS}
    for name, row in rows.items():
        if "failed" not in row:
            row |= summary(runs[name], runs, units, updates.numel() * updates.element_size())
    return list(rows.values())


def summary(
    own: list[tuple[float, int | None]],
    runs: dict[str, list[tuple[float, int | None]]],
    units: dict[str, float],
    size: int,
) -> dict[str, Any]:
    """Return the medians of a contestant's runs; ratios are taken turn by turn where possible."""
    found: dict[str, Any] = {"runs": len(own)}
    found["seconds"] = statistics.median(seconds for seconds, _ in own)
    for unit in UNITS:
        turns = [run[0] for run in runs[unit]] if len(own) > 1 else [units[unit]]
        ratios = [run[0] / turn for run, turn in zip(own, turns, strict=True)]
        found[unit] = statistics.median(ratios)
    peaks = [peak for _, peak in own if peak is not None]
    found["memory"] = min(peaks) / size if peaks else None
    return found


def timed(call: Callable[[], Any]) -> tuple[tuple[float, int | None], Any]:
    """Return (seconds, bytes at the peak beyond those before), and the answer or the exception."""
    before = resident("VmRSS", reset=True)
    start = time.perf_counter()
    try:
        answer = call()
    except (ValueError, RuntimeError, MemoryError) as raised:
        answer = raised
    seconds = time.perf_counter() - start
    peak = resident("VmHWM")
    return (seconds, None if before is None or peak is None else max(0, peak - before)), answer


def error(answer: Any, right: Tensor) -> float:
    """Return the largest difference in widths. Flower answers with a list of layers."""
    got = np.concatenate([np.ravel(a) for a in answer]) if isinstance(answer, list) else answer
    return float((torch.as_tensor(got).double() - right).abs().max() / WIDTH)


def shown(rule: Any) -> str:
    """Return the rule with its fields, without the name that repeats the class."""
    return repr(rule).replace(f", name='{rule.name}'", "").replace(f"name='{rule.name}'", "")


def heading(results: dict[str, Any]) -> str:
    """Return the settings of the measurement, and the head of the table."""
    versions = ", ".join(f"{name} {number}" for name, number in results["versions"].items())
    return (
        f"{results['clients']} × {results['coordinates']:,} float32, {results['threads']} threads, "
        f"median of {results['repeats']} turns. {versions}.\n\n{HEAD}"
    )


def line(row: dict[str, Any]) -> str:
    """Return one row of the table."""
    if "failed" in row:
        return f"| `{row['rule']}` | {row['by']} | {row['failed']} | | | | |"
    cells = [
        f"{row['seconds']:.3f}",
        f"{row['copy']:.1f}",
        f"{row['product']:.2f}",
        "–" if row["memory"] is None else f"{row['memory']:.2f}",
        "–" if row["error"] is None else f"{row['error']:.2g}",
    ]
    return f"| `{row['rule']}` | {row['by']} | {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
