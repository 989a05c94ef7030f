"""A ring federation of ten clients, played for real up to the round that an attacker looks at."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from fedrobust.attacks import Requirements
from fedrobust.attacks.learned import Learned
from fedrobust.attacks.learned.attacker_state import AttackerState
from fedrobust.attacks.learned.encoding import Basis
from fedrobust.attacks.learned.environment import Task
from fedrobust.attacks.learned.task import task_for
from fedrobust.clients.gradients import gradient_engine
from fedrobust.config.component import from_config, to_config
from fedrobust.data import Split
from fedrobust.experiment import Experiment
from fedrobust.federation.round import run_round
from fedrobust.federation.state import FederationState
from fedrobust.federation.threat import ThreatModel, View
from fedrobust.progress import ALONE, Host
from fedrobust.runs.prepare import Prepared, prepare
from fedrobust.typing import Updates

CONFIG: dict[str, Any] = {
    "name": "ring",
    "rounds": 30,
    "data": {"name": "synthetic-ring", "n": 3000, "test": 400, "validation": 400, "radius": 2.0},
    "partition": {"name": "iid", "clients": 10},
    "model": {"name": "ring-mlp"},
    "objective": {
        "name": "wasserstein-dro",
        "gamma": 2.0,
        "ascent": {"steps": 6, "rule": "decaying"},
    },
    "client": {"batch_size": 16, "batches": 1, "optimizer": {"name": "sgd", "lr": 0.3}},
    "malicious": 1,
    "attack": {"name": "sign-flip"},
    "threat": {"clients": True, "rule": True},
    "evaluation": {
        "every": 15,
        "samples": 200,
        "attack": {"name": "pgd", "eps": 0.1, "step_size": 0.1, "steps": 1, "box": False},
    },
    "execution": {"device": "cpu", "threads": 1, "batch": 1024},
}


def experiment(**changes: Any) -> Experiment:
    """The federation with some keys changed."""
    return from_config(Experiment, CONFIG | changes)


class Spy:
    """Sends honest updates and keeps what it saw."""

    name = "spy"
    requires = Requirements(history=1)

    def __init__(self) -> None:
        self.views: list[View] = []

    def craft(self, state: None, view: View, rng: torch.Generator) -> tuple[Updates, None]:
        self.views.append(view)
        return view.own, None


@dataclass
class Seen:
    """What the spy saw last, and the federation that it saw it in."""

    view: View
    prepared: Prepared
    state: FederationState

    @property
    def own(self) -> Split:
        """The attacker's examples."""
        return self.view.data()[0]


def watched(rounds: int = 40, **changes: Any) -> Seen:
    """Play ``rounds`` rounds under the eyes of one attacker."""
    ready = prepare(experiment(**changes))
    spy = Spy()
    federation = replace(ready.federation, attack=spy)
    state = federation.start(ready.start)
    for _ in range(rounds):
        state, _ = run_round(state, federation, ready.streams, backend=ready.backend)
    return Seen(spy.views[-1], ready, state)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def task_of(seen: Seen, encoding: Any = None, sample: Split | None = None, **changes: Any) -> Task:
    """What the attacker would learn on, from where the federation stands, on its own data."""
    keys = {"horizon": 12, "hold": 3} | {k: v for k, v in changes.items() if k in KNOBS}
    attack = Learned(encoding=encoding or Basis(), inversion=None, **keys)
    known = AttackerState(met=seen.view.round, last=seen.view.round - 1)
    sample = sample or seen.own.take(torch.arange(60))
    tools = gradient_engine(seen.view.model())
    task = task_for(known, attack, seen.view, sample, tools, seeded())
    return replace(task, **{k: v for k, v in changes.items() if k not in KNOBS})


KNOBS = ("horizon", "hold", "reward", "reward_unit", "gamma", "ascent")


TRAINING = {
    "start": "random",
    "steps": 60,
    "learning_starts": 20,
    "check_every": 20,
    "check_episodes": 3,
    "hidden": [8],
}


THREE: dict[str, Any] = {"name": "basis"}
"""The default encoding, of three axes."""
LEARNED = {
    "name": "learned",
    # One axis: of more, the search for the best constant action plays many episodes.
    "encoding": {"name": "basis", "directions": ["own"]},
    "observe": 3,
    "inversion": {"iterations": 20},
    "training": TRAINING,
    "horizon": 12,
    "hold": 3,
    "samples": 40,
}


def learned(**changes: Any) -> dict[str, Any]:
    return {"attack": LEARNED | changes}


def known_after(rounds: int, host: Host = ALONE, **changes: Any) -> tuple[AttackerState, Any]:
    """What the attacker knows after some rounds, and the federation's state."""
    ready = prepare(experiment(**changes))
    state = ready.federation.start(ready.start)
    for _ in range(rounds):
        state, _ = run_round(
            state, ready.federation, ready.streams, backend=ready.backend, host=host
        )
    return AttackerState.of(state.attack), state


class Watching:
    """A user's own encoding, which keeps what it was shown."""

    name = "watching"

    def __init__(self) -> None:
        self.sights: list[Any] = []
        self.inner = Basis()

    def seen(self, layout: Any) -> int:
        return self.inner.seen(layout)

    def actions(self, layout: Any) -> int:
        return self.inner.actions(layout)

    def observe(self, sight: Any) -> Any:
        self.sights.append(sight)
        return self.inner.observe(sight)

    def rows(self, action: torch.Tensor, view: Any, means: Any) -> torch.Tensor:
        return self.inner.rows(action, view, means)


def described(attack: Learned) -> dict[str, Any]:
    """What a file says of the policy of such an attack on this federation."""
    threat = to_config(ThreatModel(clients=True))
    return {
        "attack": to_config(attack),
        "parameters": 28,
        "gamma": 2.0,
        "threat": threat,
        "report": {"value": 0.25},
    }
