"""Time the parts of the learned attack: simulated rounds, a policy, an inversion.

``python benchmarks/learned_attack.py`` plays the paper's ring for 100 rounds and starts from the
attacker's state there. It times environment steps with every encoding, by the compiled network and
by autograd in turns. It also times the training of a policy with the default settings, which
includes the search for the constant action that it begins at. ``--mnist`` does so for the
quarter-width network on MNIST, in turns in bfloat16, where the processor has instructions for it,
and in float32, with one inversion of a batch. ``--samples`` shows how much the reward of an episode
depends on the examples that ρ̂ is measured on, by their number. ``--paper`` times the parts of the
paper's own attack on the ring: an inversion, a simulated round, an update of DDPG, and what all of
it costs by these, also where its settings differ from the paper's.
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

from fedrobust.attacks.learned import PAPER, Inversion, Learned, Training
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
PARTS = (
    "- {inversion:.2f} s an inversion, {round:.4f} s a simulated round with ρ̂ on "
    "1,000 examples, {update:.4f} s an update of DDPG"
)
WHOLE = (
    "- so {n[observed]} inversions take {stage one:.1f} minutes, an episode of {n[left]:,} rounds "
    "{an episode:.1f}, and {n[episodes]} episodes, each followed by a check, {stage two:.1f}; ρ̂ on "
    "all {n[pool]:,} learned examples would take {all of the pool:.0f} minutes more"
)


def seen_in(config: str, rounds: int, rule: str = "none") -> View:
    """Return the view of one of ten clients after some rounds of a committed sweep under a rule."""
    cells = load_sweep(HERE / "experiments" / "drfl" / config).cells
    return seen(prepare(next(c.experiment for c in cells if c.labels["rule"] == rule)), rounds)


def rounds_of(config: str) -> int:
    """Return the rounds of the runs of a committed sweep."""
    return load_sweep(HERE / "experiments" / "drfl" / config).cells[0].experiment.rounds


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
    found["inversion"] = {"seconds": seconds, "before": answer.before, "after": answer.reached}
    return found


def paper(turns: int) -> Found:
    """Measure the parts of the paper's attack on the ring, and add up what its settings cost."""
    view, attack = seen_in("ring.yaml", 100, "median"), PAPER["ring"]
    own, client = real_data(view), view.client
    gradient = -view.own[0] / client.optimizer.lr
    assert attack.inversion is not None
    inversions, rounds = list[float](), dict[int, list[float]]()
    tasks = {n: task(replace(view, rounds=1000), replace(attack, samples=n)) for n in (1000, 4000)}
    draw = torch.Generator().manual_seed(0)
    for _ in range(4 * turns):  # some matchings end long before 300 iterations
        batch = torch.randperm(len(own), generator=draw)[: client.batch_size]
        start = time.perf_counter()
        invert(view.model(), gradient, own.x[batch], own.y[batch], attack.inversion)
        inversions.append(time.perf_counter() - start)
    for _ in range(turns):
        for number, made in tasks.items():
            rounds.setdefault(number, []).append(1 / rate(made, 100))
    steps = 200
    made, short = tasks[1000], replace(attack.training, steps=steps, learning_starts=0)
    short = replace(short, check_every=0)
    spent = [train(replace(made, horizon=steps), short, seed=i).seconds for i in range(turns)]
    inversion = statistics.fmean(inversions)  # of many, as in stage one
    few, many = (statistics.median(rounds[number]) for number in tasks)
    update = statistics.median(spent) / steps - few
    epochs = attack.observe
    assert not isinstance(epochs, int)
    observed = epochs.rounds(len(own), client.batch_size)
    left, training = rounds_of("ring.yaml") - observed, attack.training.steps
    episodes = -(-training // left)
    pool = observed * client.batch_size
    return {
        "paper": {
            "inversion": inversion,
            "round": few,
            "update": update,
            "observed": observed,
            "left": left,
            "episodes": episodes,
            "pool": pool,
            "stage one": observed * inversion,
            "an episode": left * (few + update),
            "stage two": episodes * left * (2 * few + update),
            "all of the pool": 2 * episodes * left * (many - few) / 3000 * (pool - 1000),
        }
    }


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
    if cost := found.get("paper"):
        lines.append(PARTS.format(**cost))
        lines.append(WHOLE.format(**{k: v / 60 for k, v in cost.items()}, n=cost))
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
    parser.add_argument("--paper", action="store_true")
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
    elif options.paper:
        found = paper(options.turns)
    else:
        found = mnist(options.turns) if options.mnist else ring(options.turns)
    record = {
        "part": data + ", samples" * options.samples + ", the paper's attack" * options.paper,
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
