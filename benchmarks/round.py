"""Time one FAT round against a plain per-client loop in the same process, and print the ratio.

The plain loop is what a careful script does. Each client has a model of its own, runs PGD on its
half batch with only the gradient of the input, and then makes one step of Adam. Data, noise and
arithmetic are the same. Attack, aggregation and server step are the same in both. The benchmark
fails unless both give the same updates.
"""

import argparse
import statistics
import time
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path

import torch
import torch.nn.functional as F

from fedrobust.attacks import Poisons
from fedrobust.compute.parameters import read, write
from fedrobust.compute.randomness import Streams
from fedrobust.compute.units import workers
from fedrobust.experiment import load
from fedrobust.federation.round import run_round
from fedrobust.federation.state import Federation, FederationState
from fedrobust.objectives import Adversarial
from fedrobust.perturb import Pgd
from fedrobust.runs.prepare import Prepared, prepare
from fedrobust.typing import Updates

CONFIG = Path(__file__).parent.parent / "experiments" / "fat" / "mnist-bulyan-alie.yaml"


class PlainLoop:
    """A backend that trains one client after the other, each with a model and an optimiser."""

    def __init__(self) -> None:
        self.optimizers: dict[int, dict[str, object]] = {}
        self.rows: Updates | None = None

    def local_updates(
        self,
        federation: Federation,
        state: FederationState,
        clients: Sequence[int],
        rng: Streams,
        poison: dict[int, Poisons],
    ) -> Updates:
        """Return the updates of ``clients`` [n, d]."""
        threads = torch.get_num_threads()
        torch.set_num_threads(workers())  # as a script has them
        rows = self._rows(federation, state, clients, rng)
        torch.set_num_threads(threads)
        return rows

    def _rows(
        self,
        federation: Federation,
        state: FederationState,
        clients: Sequence[int],
        rng: Streams,
    ) -> Updates:
        local, round, rows = federation.local, state.round + 1, []
        assert isinstance(local.objective, Adversarial)
        assert isinstance(local.objective.attack, Pgd)
        attack = local.objective.attack
        for client in clients:
            model = deepcopy(local.model)
            write(model, state.parameters)
            optimizer = torch.optim.Adam(model.parameters(), lr=local.config.optimizer.lr)
            if client in self.optimizers:
                optimizer.load_state_dict(self.optimizers[client])
            noise = rng.generator("inner maximisation", round, client)
            shuffles = rng.generator("batches", round, client)
            index = local.config.schedule(local.clients[client], shuffles)[0]
            x, y = local.data.images(index), local.data.y[index]
            k = local.objective.perturbed(len(y), round)
            part = x[:k].clone()
            start = attack.draw(part, noise)
            assert start is not None
            moved = (part + start).clamp(0, 1)
            for _ in range(attack.steps):
                moved = moved.detach().requires_grad_(True)
                loss = F.cross_entropy(model(moved), y[:k], reduction="sum")
                (gradient,) = torch.autograd.grad(loss, moved)
                moved = moved.detach() + attack.step_size * gradient.sign()
                moved = torch.clamp(moved, part - attack.eps, part + attack.eps).clamp(0, 1)
            x[:k] = moved.detach()
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
            self.optimizers[client] = optimizer.state_dict()
            rows.append(read(model) - state.parameters)
        self.rows = torch.stack(rows)
        return self.rows.clone()


def main() -> None:
    """Parse the arguments, check that both agree, and time both in turns."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, default=CONFIG)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    run = prepare(load(arguments.config))
    ours: list[float] = []
    plain: list[float] = []
    with run.plan.active():
        require_agreement(run)
        state = run.federation.start(run.start)
        loop, other = PlainLoop(), run.federation.start(run.start)
        for round in range(arguments.rounds + 1):
            begin = time.perf_counter()
            state, log = run_round(state, run.federation, run.streams)
            middle = time.perf_counter()
            other, _ = run_round(other, run.federation, run.streams, backend=loop)
            end = time.perf_counter()
            if round == 0:  # warms up
                continue
            ours.append(middle - begin)
            plain.append(end - middle)
    ratios = [b / a for a, b in zip(ours, plain, strict=True)]
    print(f"{workers()} workers, units of {run.plan.batch} examples")
    print(f"one round of {len(log.participants)} clients, median of {len(ours)}:")
    print(f"  fedrobust    {statistics.median(ours):.2f} s")
    print(f"  plain loop   {statistics.median(plain):.2f} s")
    print(f"  ratio        {statistics.median(ratios):.2f}  (plain / fedrobust, round by round)")


def require_agreement(run: Prepared) -> None:
    """Check that both train the clients alike in the first round. Raises: ``SystemExit``.

    Where a gradient is almost 0, rounding decides its sign, and Adam's first step is ±lr.
    """
    clients = range(run.federation.clients)
    ours, plain = (
        backend.local_updates(
            run.federation, run.federation.start(run.start), clients, run.streams, {}
        )
        for backend in (run.backend, PlainLoop())
    )
    apart = ((ours - plain).abs() > 0.01 * plain.abs().max()).double().mean().item()
    if apart > 1e-3:
        raise SystemExit(f"the two disagree in {apart:.2%} of the numbers")


if __name__ == "__main__":
    main()
