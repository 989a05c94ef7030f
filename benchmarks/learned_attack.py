"""Time the parts of the learned attack: simulated rounds, a policy, an inversion.

``python benchmarks/learned_attack.py`` plays the paper's ring for 100 rounds, stands where its
attacker then stands, and prints environment steps a second for every encoding, by the compiled
network and by autograd in turn, and the time of training a policy with the default settings, the
search for the constant action that it begins at included.
``--mnist`` does so for the quarter-width network on MNIST, in bfloat16, where the processor has
instructions for it, and in float32 in turn, with one inversion of a batch. ``--samples`` prints how
much the reward of an episode depends on the examples that ρ̂ is measured on, by their number.
"""

import argparse
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fedrobust.attacks.learned import Inversion, Learned, Training
from fedrobust.attacks.learned.encoding import Basis, Compact, Encoding, Full
from fedrobust.attacks.learned.environment import FederationEnv, Task
from fedrobust.attacks.learned.inversion import invert
from fedrobust.attacks.learned.knowledge import Knowledge, real_data
from fedrobust.attacks.learned.planning import best_constant
from fedrobust.attacks.learned.policy import train
from fedrobust.attacks.learned.simulation import Harm
from fedrobust.attacks.learned.task import task_for
from fedrobust.calculus import Autograd, Precision, calculus
from fedrobust.execution import emulates_bfloat16
from fedrobust.federation import LOCAL, run_round
from fedrobust.grid import load_sweep
from fedrobust.perturb import Ascent
from fedrobust.prepare import prepare
from fedrobust.threat import ThreatModel, View

HERE = Path(__file__).parents[1]


class Spy:
    """An attacker that sends honest updates and keeps its last view."""

    memory = 1

    def craft(self, state: None, view: View, rng: torch.Generator) -> tuple[torch.Tensor, None]:
        """Keep the view."""
        self.view = view
        return view.own, None


def seen(config: str, rounds: int, rule: str = "none") -> View:
    """What one of ten clients sees after some rounds of a committed sweep under a rule."""
    cells = load_sweep(HERE / "experiments" / "drfl" / config).cells
    ready = prepare(next(c.experiment for c in cells if c.labels["rule"] == rule))
    spy = Spy()
    threat = ThreatModel(clients=True, rule=True)
    federation: Any = replace(ready.federation, attack=spy, malicious=frozenset({0}), threat=threat)
    state = federation.start(ready.start)
    for _ in range(rounds):
        state, _ = run_round(state, federation, ready.streams, backend=ready.backend)
    return spy.view


def task(view: View, attack: Learned, plain: bool) -> Task:
    """The attacker's task, compiled or in the attack's precision, or ``plain``."""
    own = real_data(view)
    sample = own.take(torch.arange(attack.samples))
    tools = Autograd(view.model(), 256) if plain else calculus(view.model(), attack.precision)
    known = Knowledge(met=view.round, last=view.round - 1)
    made = task_for(known, attack, view, sample, tools, torch.Generator().manual_seed(0))
    return replace(made, backend=LOCAL) if plain else made


def rate(made: Task, steps: int) -> float:
    """Environment steps a second, with random actions."""
    env = FederationEnv(made)
    env.reset(seed=0)
    draw = np.random.default_rng(0)
    env.step(np.zeros(env.actions, dtype=np.float32))
    start = time.perf_counter()
    for _ in range(steps):
        *_, over, _ = env.step(draw.uniform(-1, 1, env.actions).astype(np.float32))
        if over:
            env.reset()
    return steps / (time.perf_counter() - start)


def spread(made: Task, view: View, sizes: tuple[int, ...], draws: int = 40) -> None:
    """The deviation of an episode's return over random samples of each size, beside its mean.

    The episode is the same for all: one in which the attacker shrinks the model.
    """
    env = FederationEnv(made)
    env.reset(seed=0)
    while not env.over:
        env.step(np.array([0.0, -1.0, 0.0], dtype=np.float32))
    own, draw = real_data(view), torch.Generator().manual_seed(0)
    assert isinstance(made.harm, Harm)
    print("| samples | mean return | deviation over samples |\n|---|---|---|")
    for size in sizes:
        returns = []
        for _ in range(draws):
            sample = own.take(torch.randperm(len(own), generator=draw)[:size])
            harm = replace(made.harm, sample=sample)
            before, after = harm(view.parameters), harm(env.parameters)
            returns.append((after - before) / abs(before))
        mean, deviation = statistics.fmean(returns), statistics.stdev(returns)
        print(f"| {size} | {mean:.3f} | {deviation:.3f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mnist", action="store_true")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--samples", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    config, rounds = ("mnist.yaml", 20) if options.mnist else ("ring.yaml", 100)
    ascent = Ascent(steps=8, rule="decaying", size=1.5)
    if options.samples:
        view = seen(config, 5 * rounds, "median")
        made = task(view, Learned(ascent=ascent, horizon=100 if options.mnist else 300), False)
        spread(made, view, (25, 50, 100, 200, 400))
        return
    view = seen(config, rounds)
    steps = 6 if options.mnist else 100
    encodings: list[Encoding] = (
        [Compact(), Basis()] if options.mnist else [Full(), Compact(), Basis()]
    )
    precision: Precision = "float32" if emulates_bfloat16() else "bfloat16"
    other = "in float32" if options.mnist else "by autograd"
    print(f"| encoding | steps a second | {other} | ratio |\n|---|---|---|---|")
    for encoding in encodings:
        attack = Learned(encoding=encoding, ascent=ascent, hold=1, precision=precision)
        made, plain = (task(view, attack, plain) for plain in (False, True))
        pairs = [(rate(made, steps), rate(plain, steps // 2)) for _ in range(options.turns)]
        fast, slow = (statistics.median(side) for side in zip(*pairs, strict=True))
        ratio = statistics.median(a / b for a, b in pairs)
        print(f"| {encoding.name} | {fast:.3g} | {slow:.3g} | {ratio:.1f} |")  # type: ignore[attr-defined]
    if options.mnist:
        own = real_data(view)
        gradient = -view.own[0] / view.client.optimizer.lr
        start = time.perf_counter()
        found = invert(view.model(), gradient, own.x[:64], own.y[:64], Inversion())
        seconds = time.perf_counter() - start
        print(
            f"one inversion of 64 examples, 300 iterations: {seconds:.0f} s; D {found.before:.3g}"
            f" to {found.after:.3g}"
        )
        return
    start, training = time.perf_counter(), Training()
    made = task(view, Learned(ascent=ascent), plain=False)
    first = best_constant(made, steps=training.steps // 4, seed=5000, episodes=1)
    trained = train(made, training, seed=0, start=first.actions[0])
    seconds = time.perf_counter() - start
    rounds = first.rounds + trained.rounds
    print(
        f"a policy of {training.steps:,} steps, {rounds:,} rounds: {seconds:.0f} s, of which "
        f"{first.seconds:.0f} s for the constant action that it begins at"
    )


if __name__ == "__main__":
    main()
