"""How far each step rule of the Wasserstein ascent comes, on the ring and on MNIST.

``python benchmarks/ascent.py --out results/benchmarks/ascent.json`` trains the paper's ring for
1,500 rounds, and takes the mean residual that each rule leaves on the test points. It trains the
MNIST network of ``experiments/drfl/mnist.yaml`` for four epochs, and takes how much of the
surrogate's rise each rule reaches on 1,000 held-out examples, and in what time. ``--table FILE``
prints the tables of a stored file.
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from drfl import RING
from fedrobust import Experiment, run
from fedrobust.bench.table import described
from fedrobust.compute.parameters import write
from fedrobust.config.component import from_config
from fedrobust.data import SyntheticRing
from fedrobust.evaluation import worst_shift
from fedrobust.federation.round import run_round
from fedrobust.perturb import Ascent
from fedrobust.runs.grid import load_sweep
from fedrobust.runs.prepare import prepare
from stored import command

MNIST = Path(__file__).parents[1] / "experiments" / "drfl" / "mnist.yaml"
STEPS = (8, 15, 30, 100)
MNIST_STEPS = (5, 8, 15, 30)
RULES: tuple[tuple[Any, float], ...] = (
    ("constant", 1.0),
    ("constant", 0.5),
    ("decaying", 1.0),
    ("decaying", 1.5),
    ("decaying", 2.0),
    ("decaying", 3.0),
    ("backtracking", 1.0),
)


def ring() -> dict[str, Any]:
    """Return the mean residual ‖∇(l − γc)‖ that each rule leaves on the ring's test points."""
    trained = run(replace(from_config(Experiment, RING), rounds=1500))
    test = SyntheticRing(n=55000).load().test
    rules: tuple[Any, ...] = ("constant", "decaying", "backtracking")
    rows, curvature = dict[str, dict[str, float]](), 0.0
    for rule in rules:
        rows[rule] = {}
        for steps in STEPS:
            ascent = Ascent(steps=steps, rule=rule)
            shift = worst_shift(trained.model, test.x, test.y, gamma=2.0, ascent=ascent)
            found = shift.certificate()
            rows[rule][str(steps)] = found.residual
            curvature = max(curvature, found.curvature)
    return {"gamma": 2.0, "points": len(test.y), "curvature": curvature, "residual": rows}


def mnist() -> dict[str, Any]:
    """Return which share of the surrogate's rise above the clean loss each rule reaches on MNIST.

    The rise after 30 steps of backtracking counts as 1.
    """
    experiment = replace(load_sweep(MNIST).cells[0].experiment, rounds=344)
    ready = prepare(experiment)
    state = ready.federation.start(ready.start)
    with ready.plan.active():
        for _ in range(experiment.rounds):
            state, _ = run_round(state, ready.federation, ready.streams, backend=ready.backend)
        write(ready.model, state.parameters)
        index = ready.held_out[:1000]
        x, y = ready.chooses.images(index), ready.chooses.y[index]

        def judged(ascent: Ascent) -> tuple[float, float, float]:
            start = time.perf_counter()
            found = worst_shift(ready.model, x, y, gamma=ready.gamma, ascent=ascent).certificate()
            spent = time.perf_counter() - start
            return found.surrogate - found.clean_loss, found.curvature, spent

        whole, curvature, _ = judged(Ascent(steps=30, rule="backtracking"))
        rows = []
        for rule, size in RULES:
            line: dict[str, Any] = {"rule": rule, "size": size, "rise": {}, "seconds": {}}
            for steps in MNIST_STEPS:
                gain, _, spent = judged(Ascent(steps=steps, rule=rule, size=size))
                line["rise"][str(steps)], line["seconds"][str(steps)] = gain / whole, spent
            rows.append(line)
    return {"gamma": ready.gamma, "examples": len(y), "curvature": curvature, "rows": rows}


def measured(_: argparse.Namespace) -> dict[str, Any]:
    """Measure on one thread, which makes the times of the rules comparable."""
    torch.set_num_threads(1)
    return described() | {"ring": ring(), "mnist": mnist()}


def table(content: dict[str, Any]) -> str:
    """Return both tables."""
    one, other = content["ring"], content["mnist"]
    lines = [
        f"**The ring.** The mean residual ‖∇(l − γc)‖ on {one['points']:,} test points, for a step "
        f"of size 1. The loss curves there by up to {one['curvature']:.2g}, where 2γ = "
        f"{2 * one['gamma']:g}.",
        "",
        "| rule |" + "".join(f" {steps} steps |" for steps in STEPS),
        "|---|" + "---|" * len(STEPS),
    ]
    for rule, row in one["residual"].items():
        lines.append(f"| {rule} |" + "".join(f" {row[str(s)]:.2g} |" for s in STEPS))
    lines += [
        "",
        "**MNIST.** The rise of the surrogate above the clean loss, as a share of what 30 steps of "
        f"backtracking reach, and the seconds that it takes, on {other['examples']:,} examples. "
        f"The loss curves by up to {other['curvature']:.2g}, where 2γ = {2 * other['gamma']:.2g}.",
        "",
        "| rule | size |" + "".join(f" {steps} steps |" for steps in MNIST_STEPS),
        "|---|---|" + "---|" * len(MNIST_STEPS),
    ]
    for row in other["rows"]:
        cells = (
            f" {100 * row['rise'][str(s)]:.0f} %, {row['seconds'][str(s)]:.1f} s |".replace(
                "-", "−"
            )
            for s in MNIST_STEPS
        )
        lines.append(f"| {row['rule']} | {row['size']:g} |" + "".join(cells))
    return "\n".join(lines)


def main() -> None:
    """Measure or load, and print the tables."""
    command(__doc__, measured, table)


if __name__ == "__main__":
    main()
