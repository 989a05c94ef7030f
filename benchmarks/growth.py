"""Measure how the time of a round grows: with clients, parameters, PGD steps and workers.

    python benchmarks/growth.py --out results/benchmarks/growth.json

Each curve changes one thing. A point is the median of a few rounds, played in turns with the other
points of its curve. ``--table FILE`` prints the tables of a stored file, and measures nothing.
"""

import statistics
import time
from argparse import Namespace
from collections.abc import Iterator
from typing import Any

from torch import nn

from fedrobust.bench.paths import MNIST, prepared
from fedrobust.bench.table import described
from fedrobust.clients.client import Client
from fedrobust.clients.optimizers import Adam
from fedrobust.compute.units import shared_by, workers
from fedrobust.federation.round import run_round
from fedrobust.models import MnistCnnSmall
from fedrobust.models.build import ModelSpec
from fedrobust.objectives import Adversarial
from fedrobust.perturb import Pgd
from fedrobust.runs.prepare import Prepared
from stored import command

CURVES = ("clients", "parameters", "PGD steps", "workers")


class Wide:
    """A network of one hidden layer with so many parameters."""

    def __init__(self, parameters: int) -> None:
        self.hidden = max(1, parameters // 795)

    def build(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        """Return the network."""
        first, last = nn.Linear(784, self.hidden), nn.Linear(self.hidden, classes)
        return nn.Sequential(nn.Flatten(), first, nn.ReLU(), last)


def points(curve: str, most: int) -> Iterator[tuple[int, Prepared, int]]:
    """Yield the points of a curve: what changes, a federation, and its workers."""
    if curve == "clients":
        for clients in (10, 51, 200, 1000, 3500):
            yield clients, ready(clients=clients, batch=8), most
    elif curve == "parameters":
        for parameters in (10**4, 10**5, 10**6, 10**7):
            yield parameters, ready(spec=Wide(parameters)), most
    elif curve == "PGD steps":
        for steps in (1, 5, 10, 20, 40):
            yield steps, ready(steps=steps), most
    else:
        for count in range(1, most + 1):
            yield count, ready(steps=20), count


def ready(
    spec: ModelSpec | None = None, clients: int = 51, batch: int = 64, steps: int = 2
) -> Prepared:
    """Return a federation of FAT on made-up images; optimisers are not kept, to bound memory."""
    attack = Pgd(eps=0.3, step_size=0.01, steps=steps)
    client = Client(batch_size=batch, batches=1, optimizer=Adam(0.001))
    objective = Adversarial(ratio=0.5, attack=attack)
    return prepared(spec or MnistCnnSmall(), MNIST, clients, batch, objective, client)


def seconds(federation: Prepared, count: int) -> float:
    """Return the time of one round."""
    with shared_by(count), federation.plan.active():
        state = federation.federation.start(federation.start)
        start = time.perf_counter()
        run_round(state, federation.federation, federation.streams, backend=federation.backend)
        return time.perf_counter() - start


def measured(curve: str, turns: int) -> list[dict[str, float]]:
    """Return the points of a curve, after one round of each that warms up."""
    found = list(points(curve, workers()))
    spent = [[seconds(one, count) for _, one, count in found] for _ in range(turns + 1)][1:]
    medians = [statistics.median(column) for column in zip(*spent, strict=True)]
    return [
        {"at": at, "seconds": median, "clients": one.federation.clients}
        for (at, one, _), median in zip(found, medians, strict=True)
    ]


def table(content: dict[str, Any]) -> str:
    """Return the tables as Markdown."""
    found = []
    for curve, rows in content["curves"].items():
        first = rows[0]["seconds"]
        found.append(
            f"| {curve} | seconds a round | × the first | ms a client |\n|---|---|---|---|"
        )
        for row in rows:
            each = 1000 * row["seconds"] / row["clients"]
            ratio = row["seconds"] / first
            found.append(f"| {row['at']:,} | {row['seconds']:.3g} | {ratio:.2f} | {each:.2f} |")
        found.append("")
    return "\n".join(found)


def curves(arguments: Namespace) -> dict[str, Any]:
    """Return all curves, and the machine."""
    found = {curve: measured(curve, arguments.turns) for curve in CURVES}
    return described() | {"turns": arguments.turns, "curves": found}


def main() -> None:
    """Measure or load, and print the tables."""
    command(__doc__, curves, table, turns=3)


if __name__ == "__main__":
    main()
