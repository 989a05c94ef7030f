"""Measure what an own objective and an own optimiser cost, beside the same arithmetic in a loop.

``python benchmarks/own_parts.py`` trains 12 clients of FAT's MNIST setting (batches of 64, the
small network) for a round, in turns by fedrobust and by a plain loop of PyTorch: once by TRADES of
``examples/`` with SGD, once by the mean cross-entropy with ``torch.optim.AdamW``, whose state is
kept. It prints the medians of the ratios of processor time, on one thread. The rows are compared
too.
"""

import statistics
import sys
import time
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from fedrobust.clients.client import Client
from fedrobust.clients.optimizers import Sgd
from fedrobust.compute.execution import Execution
from fedrobust.compute.parameters import read, write
from fedrobust.data import Iid, Mnist
from fedrobust.experiment import Evaluation, Experiment
from fedrobust.federation.backends import LOCAL
from fedrobust.models import MnistCnnSmall
from fedrobust.objectives import ERM
from fedrobust.perturb import Pgd
from fedrobust.runs.prepare import Prepared, prepare

sys.path.append(str(Path(__file__).parents[1] / "examples"))
from trades import Trades, kl

TURNS, CLIENTS = 15, 12
TRADES = Trades(eps=0.3, step_size=0.12, steps=4)


def prepared(objective: Any, optimizer: Any) -> Prepared:
    """Return the federation, with one thread."""
    return prepare(
        Experiment(
            name="own-parts",
            rounds=1,
            data=Mnist(),
            partition=Iid(clients=CLIENTS),
            model=MnistCnnSmall(),
            objective=objective,
            client=Client(batch_size=64, batches=1, optimizer=optimizer, keep_optimizer=True),
            evaluation=Evaluation(attack=Pgd(eps=0.3, step_size=0.1, steps=1)),
            execution=Execution(device="cpu", threads=1, batch=64),
        )
    )


class Loop:
    """A plain loop over the clients, each with a copy of the model and an optimiser of its own."""

    def __init__(self, run: Prepared, make: Callable[[Any], torch.optim.Optimizer]) -> None:
        self.run, self.make, self.kept = run, make, dict[int, dict[str, Any]]()

    def rows(self, loss: Callable[..., torch.Tensor]) -> torch.Tensor:
        """Return the clients' updates [n, d]."""
        found, local = [], self.run.federation.local
        for client in range(CLIENTS):
            model = deepcopy(local.model)
            write(model, self.run.start)
            model.train()
            optimizer = self.make(model.parameters())
            if client in self.kept:
                optimizer.load_state_dict(self.kept[client])
            shuffles = self.run.streams.generator("batches", 1, client)
            for index in local.config.schedule(local.clients[client], shuffles):
                x, y = local.data.images(index), local.data.y[index]
                optimizer.zero_grad()
                loss(
                    model, x, y, self.run.streams.generator("inner maximisation", 1, client)
                ).backward()
                optimizer.step()
            self.kept[client] = optimizer.state_dict()
            found.append(read(model) - self.run.start)
        return torch.stack(found)


def trades(model: Any, x: Any, y: Any, generator: torch.Generator) -> torch.Tensor:
    """Return TRADES of a batch, as the literature's own code computes it."""
    with torch.no_grad():
        clean = model(x)
    at = x + TRADES.draw(x, generator)
    for _ in range(TRADES.steps):
        at = at.detach().requires_grad_(True)
        (slope,) = torch.autograd.grad(kl(clean, model(at)), at)
        at = at.detach() + TRADES.step_size * slope.sign()
        at = at.clamp(x - TRADES.eps, x + TRADES.eps).clamp(0, 1)
    answers = model(x)
    return F.cross_entropy(answers, y) + TRADES.beta * kl(answers, model(at.detach())) / len(x)


def plain(model: Any, x: Any, y: Any, generator: torch.Generator) -> torch.Tensor:
    """Return the mean cross-entropy."""
    return F.cross_entropy(model(x), y)


def measure(name: str, run: Prepared, loop: Loop, loss: Callable[..., torch.Tensor]) -> None:
    """Play both ways in turns, and print the median of the ratios."""
    store, ratios, apart = {}, [], 0.0
    federation = run.federation
    state = federation.start(run.start, run.streams)
    with run.plan.active():
        for turn in range(TURNS + 1):
            state.store = store
            begin = time.process_time()
            ours = LOCAL.local_updates(federation, state, range(CLIENTS), run.streams, {})
            middle = time.process_time()
            theirs = loop.rows(loss)
            end = time.process_time()
            apart = max(apart, float((ours - theirs).norm() / theirs.norm()))
            if turn:
                ratios.append((middle - begin) / (end - middle))
    ratio, spread = statistics.median(ratios), (min(ratios), max(ratios))
    low, high = spread
    print(f"{name}: {ratio:.2f} of the loop's time ({low:.2f} to {high:.2f} in {TURNS} turns)")
    print(f"  the rows differ by at most {apart:.1e} of their length")


if __name__ == "__main__":
    torch.set_num_threads(1)
    run = prepared(TRADES, Sgd(lr=0.1))
    measure(
        "TRADES, an own objective", run, Loop(run, lambda p: torch.optim.SGD(p, lr=0.1)), trades
    )
    run = prepared(ERM(), {"name": "torch.optim:AdamW", "lr": 1e-3})
    measure("AdamW, by name", run, Loop(run, lambda p: torch.optim.AdamW(p, lr=1e-3)), plain)
