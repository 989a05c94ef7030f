"""Measure rounds on Ray beside rounds in one process, turn by turn.

    python benchmarks/ray_rounds.py --out results/benchmarks/ray_rounds.json

FAT's MNIST setting on made-up images: 51 clients, batches of 64, the small network, Adam's state
kept. Raylets of this machine are the nodes, with one worker each. The first table has 1 to 4
workers beside 1 and 2 threads. The second has 2 workers beside 2 threads, for rounds of more and
more steps of PGD. It needs the extra ``ray``. ``--table FILE`` prints the tables of a stored file,
and measures nothing.
"""

import os
import statistics
import time
from argparse import Namespace
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from fedrobust.bench.paths import MNIST, prepared
from fedrobust.bench.table import described
from fedrobust.clients.client import Client
from fedrobust.clients.optimizers import Adam
from fedrobust.compute.units import shared_by
from fedrobust.federation.backends import LOCAL, Backend, Settles
from fedrobust.federation.round import run_round
from fedrobust.models import MnistCnnSmall
from fedrobust.objectives import Adversarial
from fedrobust.perturb import Pgd
from fedrobust.runs.prepare import Prepared
from stored import command

CLIENTS, BATCH = 51, 64
WORKERS = (1, 2, 3, 4)
STEPS = (0, 1, 4, 10, 40)
STORE = 600 * 2**20


def ready(steps: int) -> Prepared:
    """Return the federation; without ``steps`` clients train on clean examples."""
    attack = Pgd(eps=0.3, step_size=0.01, steps=max(steps, 1))
    client = Client(batch_size=BATCH, batches=1, optimizer=Adam(0.001), keep_optimizer=True)
    objective = Adversarial(ratio=0.5 if steps else 0.0, attack=attack)
    return prepared(MnistCnnSmall(), MNIST, CLIENTS, BATCH, objective, client)


def seconds(run: Prepared, backend: Backend, threads: int, rounds: int = 3) -> float:
    """Return the time of a round: the mean of some rounds that follow each other."""
    with shared_by(threads), run.plan.active():
        state = run.federation.start(run.start)
        state, _ = run_round(state, run.federation, run.streams, backend=backend)
        start = time.perf_counter()
        for _ in range(rounds):
            state, _ = run_round(state, run.federation, run.streams, backend=backend)
        spent = (time.perf_counter() - start) / rounds
        if isinstance(backend, Settles):
            backend.settle(state)
    return spent


def on_workers(count: int, stack: ExitStack) -> Callable[[Prepared], Backend]:
    """Start a cluster of ``count`` nodes with one worker each; it ends with the ``stack``."""
    from ray.cluster_utils import Cluster

    from fedrobust.cluster.workers import Workers
    from fedrobust.federation.on_ray import Ray, on_ray

    settings = {"object_store_memory": STORE, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **settings})
    stack.callback(cluster.shutdown)
    for _ in range(count):
        cluster.add_node(num_cpus=1, **settings)
    cluster.wait_for_nodes()
    stack.enter_context(on_ray(cluster.address))
    return lambda run: Ray(Workers(run.plan))


def by_workers(turns: int) -> list[dict[str, Any]]:
    """Return the seconds of a round, by the number of workers, and those of one process."""
    run, found = ready(4), []
    for count in WORKERS:
        with ExitStack() as stack:
            backend = on_workers(count, stack)(run)
            spent = [
                (seconds(run, LOCAL, 1), seconds(run, LOCAL, 2), seconds(run, backend, 1))
                for _ in range(turns + 1)
            ][1:]
        one, two, there = (statistics.median(column) for column in zip(*spent, strict=True))
        found.append({"workers": count, "one thread": one, "two threads": two, "ray": there})
    return found


def by_work(turns: int) -> list[dict[str, Any]]:
    """Return the seconds of a round on 2 workers and on 2 threads, by steps of PGD."""
    with ExitStack() as stack:
        make, found = on_workers(2, stack), []
        for steps in STEPS:
            run = ready(steps)
            backend = make(run)
            spent = [(seconds(run, LOCAL, 2), seconds(run, backend, 1)) for _ in range(turns + 1)][
                1:
            ]
            here, there = (statistics.median(column) for column in zip(*spent, strict=True))
            found.append({"steps": steps, "two threads": here, "ray": there})
    return found


def bytes_of_a_round(run: Prepared) -> dict[str, int]:
    """Return what travels in a round, from the sizes of the tensors."""
    vector = run.start.nbytes
    slots = run.experiment.client.optimizer.slots()
    return {
        "parameters, to each node": vector,
        "rows, to the driver": CLIENTS * vector,
        "optimiser states, to the driver at each checkpoint": CLIENTS * slots * vector,
    }


def measured(arguments: Namespace) -> dict[str, Any]:
    """Return both tables, and the machine."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    return described() | {
        "turns": arguments.turns,
        "workers": by_workers(arguments.turns),
        "work": by_work(arguments.turns),
        "bytes": bytes_of_a_round(ready(4)),
    }


def table(content: dict[str, Any]) -> str:
    """Return the tables as Markdown."""
    lines = [
        "| workers | rounds a second | × one thread | × two threads |",
        "|---|---|---|---|",
    ]
    for row in content["workers"]:
        one, two, there = row["one thread"], row["two threads"], row["ray"]
        lines.append(
            f"| {row['workers']} | {1 / there:.2f} | {one / there:.2f} | {two / there:.2f} |"
        )
    lines += [
        "",
        "| steps of PGD | s a round, two threads | s a round, two workers | × two threads |",
        "|---|---|---|---|",
    ]
    for row in content["work"]:
        here, there = row["two threads"], row["ray"]
        lines.append(f"| {row['steps']} | {here:.2f} | {there:.2f} | {here / there:.2f} |")
    lines += ["", "| what travels in a round | MiB |", "|---|---|"]
    lines += [f"| {what} | {size / 2**20:.1f} |" for what, size in content["bytes"].items()]
    return "\n".join(lines)


def main() -> None:
    """Measure or load, and print the tables."""
    command(__doc__, measured, table, turns=5)


if __name__ == "__main__":
    main()
