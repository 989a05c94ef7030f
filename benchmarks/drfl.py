"""Time one round of distributionally robust training against one of ERM.

``python benchmarks/drfl.py`` plays rounds of the paper's ring (10 clients, batches of 32, 15 ascent
steps, 2 → 4 → 2 → 2) with the Wasserstein objective and with ERM in turns, in one process, and
prints the median of each and of their ratio. ``--mnist`` does so for MNIST (batches of 64, the
quarter-width ELU network). ``--blocks`` times five ascent steps on 640 images through the MNIST
network on blocks of pixels and through its layers one after the other, in turns, in each precision
that the processor has.
"""

import argparse
import statistics
import time
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from fedrobust import Experiment
from fedrobust.compute.execution import emulates_bfloat16
from fedrobust.config.component import from_config
from fedrobust.federation.round import run_round
from fedrobust.models import EluCnn
from fedrobust.objectives import ERM
from fedrobust.perturb import Ascent
from fedrobust.runs.prepare import Prepared, prepare

RING: dict[str, Any] = {
    "name": "ring",
    "rounds": 1,
    "data": {"name": "synthetic-ring", "n": 55000, "validation": 5000},
    "partition": {"name": "iid", "clients": 10},
    "model": {"name": "ring-mlp"},
    "objective": {"name": "wasserstein-dro", "gamma": 2.0, "ascent": {"steps": 15}},
    "client": {"batch_size": 32, "batches": 1, "optimizer": {"name": "sgd", "lr": 0.3}},
    "evaluation": {
        "attack": {
            "name": "pgd",
            "norm": "l2",
            "eps": 0.3,
            "step_size": 0.1,
            "steps": 1,
            "box": False,
        }
    },
    "execution": {"device": "cpu", "batch": 1024},
}
MNIST: dict[str, Any] = RING | {
    "name": "mnist",
    "data": {"name": "mnist", "validation": 5000},
    "model": {"name": "elu-cnn", "width": 16},
    "objective": {
        "name": "wasserstein-dro",
        "gamma": {"relative": 0.04},
        "ascent": {"steps": 15},
    },
    "client": {"batch_size": 64, "batches": 1, "optimizer": {"name": "sgd", "lr": 0.1}},
    "execution": {"device": "cpu", "batch": 128},
}


def milliseconds(ready: Prepared, rounds: int) -> float:
    """Return the mean time of one round, over ``rounds`` rounds from the start."""
    state = ready.federation.start(ready.start)
    with ready.plan.active():
        start = time.perf_counter()
        for _ in range(rounds):
            state, _ = run_round(state, ready.federation, ready.streams, backend=ready.backend)
        return 1000 * (time.perf_counter() - start) / rounds


def blocks(turns: int) -> None:
    """Print how much longer the network's layers take than its own forward pass on blocks."""
    fast = EluCnn(width=16).build((1, 28, 28), 10).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    slow = nn.Sequential(*fast.children())
    x, y = torch.rand(640, 1, 28, 28), torch.randint(10, (640,))
    ascent = Ascent(steps=5, rule="decaying")

    def seconds(model: nn.Module) -> float:
        start = time.perf_counter()
        ascent.move(model, x, y, 0.05, batch=256)
        return time.perf_counter() - start

    for name in ("float32", "bfloat16")[: 1 if emulates_bfloat16() else 2]:
        low = torch.autocast("cpu", torch.bfloat16, enabled=name == "bfloat16")
        with low:
            seconds(fast), seconds(slow)
            found = [(seconds(fast), seconds(slow)) for _ in range(turns)]
        rate = 5 * len(x) / statistics.median(a for a, _ in found)
        ratio = statistics.median(b / a for a, b in found)
        print(f"{name}: {rate:,.0f} image steps a second; by layers {ratio:.2f} times as long")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mnist", action="store_true")
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--blocks", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.blocks:
        blocks(options.turns)
        return
    config, rounds = (MNIST, 2) if options.mnist else (RING, 40)
    robust = from_config(Experiment, config)
    ready = prepare(robust), prepare(replace(robust, objective=ERM()))
    for one in ready:
        milliseconds(one, 1)
    turns = [[milliseconds(one, rounds) for one in ready] for _ in range(options.turns)]
    dro, erm = (statistics.median(column) for column in zip(*turns, strict=True))
    ratio = statistics.median(a / b for a, b in turns)
    print(f"{config['name']}: DRO {dro:.1f} ms, ERM {erm:.1f} ms a round; ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
