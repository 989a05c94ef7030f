"""Measure the cost of the checks of models, inputs and results in a round and in an evaluation.

``python benchmarks/checks.py`` plays FAT's MNIST setting (51 clients, batches of 64, K/N 0.5, PGD
of 10 steps, the small network) and evaluates 500 held-out images by PGD of 20 steps. It does so in
turns with the checks, and with a bare call of the model in their place. It prints the ratio of the
medians of processor time, which other work on the machine disturbs less than clock time.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest.mock import patch

import torch

from fedrobust.clients import local_training as client
from fedrobust.clients.client import Client
from fedrobust.clients.optimizers import Adam
from fedrobust.compute import network
from fedrobust.compute.execution import Execution
from fedrobust.data import Iid, Mnist
from fedrobust.experiment import Evaluation, Experiment
from fedrobust.federation.round import run_round
from fedrobust.models import MnistCnnSmall
from fedrobust.objectives import ERM, Adversarial, Objective
from fedrobust.perturb import Pgd
from fedrobust.runs.measure import on_held_out
from fedrobust.runs.prepare import Prepared, prepare

TURNS, ROUNDS = 20, 40


def bare(model, x):
    return model(x)


def trusting(model, x, y, draw, batch, *, box):
    return x, y, batch or len(x)


@contextmanager
def unchecked() -> Iterator[None]:
    """Within the context, call the model without checks of arguments and results."""
    with (
        patch.object(network, "logits", bare),
        patch.object(client, "_largest", lambda value: 0.0),
        patch.dict(Pgd.maximize.__globals__, {"begin": trusting}),
    ):
        yield


def prepared(objective: Objective) -> Prepared:
    """Return FAT's federation, with one thread."""
    attack = Pgd(eps=0.3, step_size=0.05, steps=20)
    return prepare(
        Experiment(
            name="checks",
            rounds=1,
            data=Mnist(),
            partition=Iid(clients=51),
            model=MnistCnnSmall(),
            objective=objective,
            client=Client(batch_size=64, batches=1, optimizer=Adam(lr=0.005), keep_optimizer=True),
            evaluation=Evaluation(attack=attack, samples=500),
            execution=Execution(device="cpu", threads=1, batch=256),
        )
    )


def seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def ratio(name: str, work: Callable[[], object]) -> None:
    """Print the time of ``work`` with the checks, divided by its time without them."""
    work()
    checked, trusted = [], []
    for turn in range(2 * TURNS):
        if turn % 2:
            checked.append(seconds(work))
        else:
            with unchecked():
                trusted.append(seconds(work))
    pairs = [a / b for a, b in zip(checked, trusted, strict=True)]
    both = statistics.median(checked) / statistics.median(trusted)
    print(
        f"{name}: {both:.3f} times as long (median of pairs {statistics.median(pairs):.3f}), "
        f"{statistics.median(trusted):.3f} s without checks"
    )


def main() -> None:
    """Measure one round of each kind, and one evaluation."""
    torch.set_num_threads(1)
    attack = Pgd(eps=0.3, step_size=0.05, steps=10)
    for name, objective in (
        ("a round of FAT", Adversarial(attack=attack, ratio=0.5)),
        ("a round of ERM", ERM()),
    ):
        run = prepared(objective)
        state = run.federation.start(run.start)

        def play(run: Prepared = run, state: object = state) -> None:
            run_round(state, run.federation, run.streams, backend=run.backend)

        ratio(name, play)
    for _ in range(ROUNDS):  # train first: only correctly classified examples are attacked
        state, _ = run_round(state, run.federation, run.streams, backend=run.backend)
    ratio("an evaluation", lambda: on_held_out(run, state.parameters, 1))


if __name__ == "__main__":
    main()
