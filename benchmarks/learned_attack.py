"""Time the parts of the learned attack: simulated rounds, a policy, an inversion.

``python benchmarks/learned_attack.py`` plays the paper's ring for 100 rounds, stands where its
attacker then stands, and prints environment steps a second for every encoding, by the compiled
network and by autograd in turn, and the time of training a policy with the default settings.
``--mnist`` does so for the quarter-width network on MNIST, with one inversion of a batch.
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
from fedrobust.attacks.learned.pipeline import task_for
from fedrobust.attacks.learned.policy import train
from fedrobust.calculus import Autograd, calculus
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


def seen(config: str, rounds: int) -> View:
    """What one of ten clients sees after some rounds of the first cell of a committed sweep."""
    ready = prepare(load_sweep(HERE / "experiments" / "drfl" / config).cells[0].experiment)
    spy = Spy()
    threat = ThreatModel(clients=True, rule=True)
    federation: Any = replace(ready.federation, attack=spy, malicious=frozenset({0}), threat=threat)
    state = federation.start(ready.start)
    for _ in range(rounds):
        state, _ = run_round(state, federation, ready.streams)
    return spy.view


def task(view: View, attack: Learned, plain: bool) -> Task:
    """The attacker's task, compiled where it can be, or ``plain``."""
    own = real_data(view)
    sample = own.take(torch.arange(attack.samples))
    tools = Autograd(view.model(), 1024) if plain else calculus(view.model())
    made = task_for(
        Knowledge(met=view.round), attack, view, sample, tools, torch.Generator().manual_seed(0)
    )
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mnist", action="store_true")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    view = seen("mnist.yaml" if options.mnist else "ring.yaml", 20 if options.mnist else 100)
    ascent = Ascent(steps=8, rule="decaying", size=1.5)
    steps = 6 if options.mnist else 100
    encodings: list[Encoding] = (
        [Compact(), Basis()] if options.mnist else [Full(), Compact(), Basis()]
    )
    print("| encoding | steps a second | by autograd | ratio |\n|---|---|---|---|")
    for encoding in encodings:
        attack = Learned(encoding=encoding, ascent=ascent, hold=1)
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
    start = time.perf_counter()
    trained = train(task(view, Learned(ascent=ascent), plain=False), Training(), seed=0)
    seconds = time.perf_counter() - start
    print(f"a policy of {Training().steps:,} steps, {trained.rounds:,} rounds: {seconds:.0f} s")


if __name__ == "__main__":
    main()
