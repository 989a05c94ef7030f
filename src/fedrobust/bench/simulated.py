"""What a learned attack simulates: its task after some rounds, and steps of its environment."""

from dataclasses import replace

import numpy as np
import torch

from fedrobust.attacks import Requirements
from fedrobust.attacks.learned import Learned
from fedrobust.attacks.learned.attacker_state import AttackerState, real_data
from fedrobust.attacks.learned.environment import FederationEnv, Task
from fedrobust.attacks.learned.task import task_for
from fedrobust.clients.gradients import Autograd, gradient_engine
from fedrobust.federation.backends import LOCAL
from fedrobust.federation.round import run_round
from fedrobust.federation.threat import ThreatModel, View
from fedrobust.runs.prepare import Prepared
from fedrobust.typing import Updates


class Spy:
    """An attacker that sends honest updates and keeps its last view."""

    requires = Requirements(history=1)

    def init(self) -> None:
        """Return None: the attack keeps no state."""

    def craft(self, state: None, view: View, rng: torch.Generator) -> tuple[Updates, None]:
        """Keep the view, and send the honest updates."""
        self.view = view
        return view.own, None


def seen(ready: Prepared, rounds: int) -> View:
    """Return what client 0 of a federation sees after some rounds, if it knows the rule."""
    spy, threat = Spy(), ThreatModel(clients=True, rule=True)
    federation = replace(ready.federation, attack=spy, malicious=frozenset({0}), threat=threat)
    with ready.plan.active():
        state = federation.start(ready.start)
        for _ in range(rounds):
            state, _ = run_round(state, federation, ready.streams, backend=ready.backend)
    return spy.view


def task(view: View, attack: Learned, plain: bool = False) -> Task:
    """Return the attacker's task; with ``plain``, by autograd only, client by client."""
    sample = real_data(view).take(torch.arange(attack.samples))
    tools = (
        Autograd(view.model(), 256) if plain else gradient_engine(view.model(), attack.precision)
    )
    known = AttackerState(met=view.round, last=view.round - 1)
    made = task_for(known, attack, view, sample, tools, torch.Generator().manual_seed(0))
    return replace(made, backend=LOCAL) if plain else made


def play(env: FederationEnv, steps: int) -> None:
    """Play steps with random actions; an episode that ends begins anew."""
    draw = np.random.default_rng(0)
    for _ in range(steps):
        env.step(draw.uniform(-1, 1, env.actions).astype(np.float32))
        if env.over:
            env.reset()


def environment(made: Task) -> FederationEnv:
    """Return an environment at the start of an episode, after one step that warms it up."""
    env = FederationEnv(made)
    env.reset(seed=0)
    env.step(np.zeros(env.actions, dtype=np.float32))
    return env
