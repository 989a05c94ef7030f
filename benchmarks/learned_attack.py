"""Time the parts of the learned attack: simulated rounds, a policy, an inversion.

``python benchmarks/learned_attack.py`` plays the paper's ring for 100 rounds and starts from the
attacker's state there. It times environment steps with every encoding, by the compiled network and
by autograd in turns. It also times the training of a policy with the default settings, which
includes the search for the constant action that it begins at. ``--mnist`` does so for the
quarter-width network on MNIST, in turns in bfloat16, where the processor has instructions for it,
and in float32, with one inversion of a batch. ``--samples`` shows how much the reward of an episode
depends on the examples that ρ̂ is measured on, by their number.
``--out results/benchmarks/learned-attack.json`` adds the results to that file, and ``--table`` with
it prints the stored results.
"""

import argparse
import json
import platform
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fedrobust.attacks.learned import Inversion, Learned, Training
from fedrobust.attacks.learned.attacker_state import real_data
from fedrobust.attacks.learned.encoding import Basis, Compact, Full
from fedrobust.attacks.learned.environment import FederationEnv, Task
from fedrobust.attacks.learned.inversion import invert
from fedrobust.attacks.learned.planning import best_constant
from fedrobust.attacks.learned.policy import train
from fedrobust.attacks.learned.simulation import Harm
from fedrobust.bench.simulated import environment, play, seen, task
from fedrobust.clients.gradients import Precision
from fedrobust.compute.execution import emulates_bfloat16
from fedrobust.federation.threat import View
from fedrobust.perturb import Ascent
from fedrobust.runs.grid import load_sweep
from fedrobust.runs.prepare import prepare
from fedrobust.runs.provenance import commit

HERE = Path(__file__).parents[1]
ASCENT = Ascent(steps=8, rule="decaying", size=1.5)

Found = dict[str, Any]


def seen_in(config: str, rounds: int, rule: str = "none") -> View:
    """Return the view of one of ten clients after some rounds of a committed sweep under a rule."""
    cells = load_sweep(HERE / "experiments" / "drfl" / config).cells
    return seen(prepare(next(c.experiment for c in cells if c.labels["rule"] == rule)), rounds)


def rate(made: Task, steps: int) -> float:
    """Return environment steps per second, with random actions."""
    env = environment(made)
    start = time.perf_counter()
    play(env, steps)
    return steps / (time.perf_counter() - start)


def rates(tasks: dict[str, Task], steps: int, turns: int) -> Found:
    """Return the steps per second of each task, in turns, and the ratio of first to last."""
    rounds = [[rate(made, steps) for made in tasks.values()] for _ in range(turns)]
    found = {name: statistics.median(turn[i] for turn in rounds) for i, name in enumerate(tasks)}
    return found | {"ratio": statistics.median(turn[0] / turn[-1] for turn in rounds)}


def ring(turns: int) -> Found:
    """Measure the paper's ring: compiled steps, steps by autograd, and the default policy."""
    view = seen_in("ring.yaml", 100)
    found: Found = {"rates": {}}
    for encoding in (Full(), Compact(), Basis()):
        attack = Learned(encoding=encoding, ascent=ASCENT, hold=1)
        ways = {"compiled": task(view, attack), "by autograd": task(view, attack, plain=True)}
        found["rates"][encoding.name] = rates(ways, 100, turns)
    start, training = time.perf_counter(), Training()
    made = task(view, Learned(ascent=ASCENT))
    first = best_constant(made, steps=training.steps // 4, seed=5000, episodes=1)
    trained = train(made, training, seed=0, start=first.actions[0])
    found["policy"] = {
        "steps": training.steps,
        "rounds": first.rounds + trained.rounds,
        "seconds": time.perf_counter() - start,
        "constant": first.seconds,
    }
    return found


def mnist(turns: int) -> Found:
    """Measure the quarter-width network on MNIST: steps in both precisions, and an inversion."""
    view = seen_in("mnist.yaml", 20)
    precisions: list[Precision] = ["float32"] if emulates_bfloat16() else ["bfloat16", "float32"]
    found: Found = {"rates": {}}
    for encoding in (Compact(), Basis()):
        attack = Learned(encoding=encoding, ascent=ASCENT, hold=1)
        ways = {name: task(view, replace(attack, precision=name)) for name in precisions}
        found["rates"][encoding.name] = rates(ways, 6, turns)
    own = real_data(view)
    gradient = -view.own[0] / view.client.optimizer.lr
    start = time.perf_counter()
    answer = invert(view.model(), gradient, own.x[:64], own.y[:64], Inversion())
    seconds = time.perf_counter() - start
    found["inversion"] = {"seconds": seconds, "before": answer.before, "after": answer.after}
    return found


def samples(mnist: bool, draws: int = 40) -> Found:
    """Measure mean and deviation of an episode's return over random samples of each size.

    The episode is the same for all samples. The attacker shrinks the model in it.
    """
    config, rounds, horizon = ("mnist.yaml", 100, 100) if mnist else ("ring.yaml", 500, 300)
    view = seen_in(config, rounds, "median")
    made = task(view, Learned(ascent=ASCENT, horizon=horizon))
    env = FederationEnv(made)
    env.reset(seed=0)
    while not env.over:
        env.step(np.array([0.0, -1.0, 0.0], dtype=np.float32))
    own, draw = real_data(view), torch.Generator().manual_seed(0)
    assert isinstance(made.harm, Harm)
    rows = []
    for size in (25, 50, 100, 200, 400):
        returns = []
        for _ in range(draws):
            sample = own.take(torch.randperm(len(own), generator=draw)[:size])
            harm = replace(made.harm, sample=sample)
            before, after = harm(view.parameters), harm(env.parameters)
            returns.append((after - before) / abs(before))
        mean, deviation = statistics.fmean(returns), statistics.stdev(returns)
        rows.append({"samples": size, "mean": mean, "deviation": deviation})
    return {"spread": rows}


def table(found: Found) -> str:
    """Return the results as readable text."""
    threads = f"{found['threads']} thread{'s' if found['threads'] > 1 else ''}"
    lines = ["**{part}**, {processor}, {threads}:".format(**found | {"threads": threads}), ""]
    if "rates" in found:
        for encoding, row in found["rates"].items():
            told = [f"{name} {value:.3g}" for name, value in row.items() if name != "ratio"]
            both = f"{', '.join(told)} steps a second; ratio {row['ratio']:.2f}"
            lines.append(f"- `{encoding}`: {both}")
    if "spread" in found:
        lines += ["| samples | mean return | deviation over samples |", "|---|---|---|"]
        lines += [
            "| {samples} | {mean:.3f} | {deviation:.3f} |".format(**row) for row in found["spread"]
        ]
    if policy := found.get("policy"):
        told = (
            "- a policy of {steps:,} steps, {rounds:,} rounds: {seconds:.0f} s, of which "
            "{constant:.0f} s for the constant action that it begins at"
        )
        lines.append(told.format(**policy))
    if inversion := found.get("inversion"):
        told = (
            "- one inversion of 64 examples, 300 iterations: {seconds:.0f} s; "
            "D {before:.3g} to {after:.3g}"
        )
        lines.append(told.format(**inversion))
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mnist", action="store_true")
    parser.add_argument("--samples", action="store_true")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="add what was measured to this file")
    parser.add_argument("--table", type=Path, help="print this file, and measure nothing")
    options = parser.parse_args()
    if options.table:
        for record in json.loads(options.table.read_text()):
            print(table(record))
        return
    there = json.loads(options.out.read_text()) if options.out and options.out.exists() else []
    torch.set_num_threads(options.threads)
    data = "mnist" if options.mnist else "ring"
    if options.samples:
        found = samples(options.mnist)
    else:
        found = mnist(options.turns) if options.mnist else ring(options.turns)
    record = {
        "part": f"{data}, samples" if options.samples else data,
        "processor": torch.backends.cpu.get_cpu_capability(),
        "threads": options.threads,
        "commit": commit(),
        "platform": platform.platform(),
        "torch": torch.__version__,
        **found,
    }
    print(table(record))
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps([*there, record], indent=1) + "\n")


if __name__ == "__main__":
    main()
