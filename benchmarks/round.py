"""Time one FAT round against a plain per-client loop in the same process, and print the ratio.

The plain loop is what a careful script does: for each client, PGD on its own half batch with the
library's usual memory layout and gradients of everything, then one Adam step; the same data, the
same noise, the same arithmetic. Both give the same updates, which is checked before timing.
"""

import argparse
import statistics
import time
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F

from fedrobust.client import Store
from fedrobust.experiment import load
from fedrobust.flat import read, write
from fedrobust.perturb import Pgd
from fedrobust.prepare import Prepared, prepare
from fedrobust.typing import Updates

CONFIG = Path(__file__).parent.parent / "experiments" / "fat" / "mnist-bulyan-alie.yaml"


def plain_round(run: Prepared, chosen: list[int], round: int) -> Updates:
    """The updates of ``chosen``, one client after the other, with PyTorch's own optimiser."""
    local, streams, rows = run.federation.local, run.streams, []
    attack = local.objective.attack
    assert isinstance(attack, Pgd)
    for client in chosen:
        model = deepcopy(local.model).to(memory_format=torch.contiguous_format)
        write(model, run.start)
        optimizer = torch.optim.Adam(model.parameters(), lr=local.config.optimizer.lr)
        noise = streams.generator("inner maximisation", round, client)
        shuffles = streams.generator("batches", round, client)
        index = local.config.schedule(local.clients[client], shuffles)[0]
        x, y = local.data.images(index), local.data.y[index]
        k = local.objective.perturbed(len(y), round)
        part = x[:k].clone()
        start = attack.draw(part, noise)
        assert start is not None
        moved = (part + start).clamp(0, 1)
        for _ in range(attack.steps):
            moved = moved.detach().requires_grad_(True)
            F.cross_entropy(model(moved), y[:k], reduction="sum").backward()
            assert moved.grad is not None
            moved = moved.detach() + attack.step_size * moved.grad.sign()
            moved = torch.clamp(moved, part - attack.eps, part + attack.eps).clamp(0, 1)
        x[:k] = moved.detach()
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
        rows.append(read(model) - run.start)
    return torch.stack(rows)


def main() -> None:
    """Parse the arguments, check that both agree, time both in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, default=CONFIG)
    parser.add_argument("--clients", type=int, default=51)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    run = prepare(load(arguments.config))
    chosen = list(range(arguments.clients))
    ours: list[float] = []
    plain: list[float] = []
    with run.plan.active():
        local = run.federation.local
        fresh = replace(local, config=replace(local.config, keep_optimizer=False))
        for round in range(arguments.rounds + 1):
            begin = time.perf_counter()
            rows = fresh.updates(run.start, Store(), chosen, run.streams, round)
            middle = time.perf_counter()
            expected = plain_round(run, chosen, round)
            end = time.perf_counter()
            if round == 0:  # also warms up
                same = (rows - expected).abs().max(dim=1).values < 1e-4
                print(f"updates that agree with the plain loop's: {int(same.sum())} of {len(same)}")
                continue
            ours.append(middle - begin)
            plain.append(end - middle)
    ratios = [b / a for a, b in zip(ours, plain, strict=True)]
    print(f"plan: {run.plan.threads} threads, inner maximisation in batches of {run.plan.batch}")
    print(f"one round of {len(chosen)} clients, median of {len(ours)}:")
    print(f"  fedrobust    {statistics.median(ours):.2f} s")
    print(f"  plain loop   {statistics.median(plain):.2f} s")
    print(f"  ratio        {statistics.median(ratios):.2f}  (plain / fedrobust, round by round)")


if __name__ == "__main__":
    main()
