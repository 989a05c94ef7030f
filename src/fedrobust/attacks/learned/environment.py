"""A Gymnasium environment in which each step is one or several federated rounds."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import count
from typing import Any, ClassVar, TypeAlias

import gymnasium
import numpy as np
import torch
from torch import Tensor

from fedrobust.attacks.learned.encoding import ActionContext, Encoding
from fedrobust.attacks.learned.observation import Observation
from fedrobust.attacks.learned.rollout_cache import Answer, RolloutCache
from fedrobust.compute.own_draws import own_draws
from fedrobust.compute.parameters import Layout
from fedrobust.compute.randomness import Streams, drawing
from fedrobust.config.fingerprint import foreign
from fedrobust.federation.attack import Requirements
from fedrobust.federation.backends import LOCAL, Backend
from fedrobust.federation.round import run_round
from fedrobust.federation.state import Federation, FederationState
from fedrobust.federation.threat import View
from fedrobust.progress import UNWATCHED, Progress
from fedrobust.typing import Floats, Updates, Vector

Action: TypeAlias = Floats | None
"""A question to an environment: an action to play, or None for the start of an episode."""
LIMIT = 100.0
"""Harm is cut off at this value, in units of the reward."""


class PolicyAttack:
    """An attack that sends what its ``action`` means, after it has ``waited`` this many rounds."""

    requires: ClassVar[Requirements] = Requirements(history=1)

    def __init__(self, encoding: Encoding, means: ActionContext) -> None:
        self.encoding, self.means = encoding, means
        self.own = foreign(encoding)
        """Whether the encoding is the user's own, which may draw from a global generator."""
        self.action = torch.zeros(0)
        self.waited = 0

    def init(self) -> None:
        """Return None: the attack keeps no state."""

    def craft(self, state: None, view: View, rng: torch.Generator) -> tuple[Updates, None]:
        """Return the updates [m, d] that the action means."""
        history = () if self.waited else view.history
        means = replace(self.means, previous=before(view.parameters, history))
        action = self.action.to(view.parameters)
        means = means.drawn(rng)
        with drawing(rng.initial_seed() % 2**63) if self.own else nullcontext():
            return self.encoding.rows(action, view, means), None


def before(parameters: Vector, history: tuple[Vector, ...]) -> Vector:
    """Return the previous broadcast; the current one where no previous one was received."""
    return history[-1] if history else parameters


@dataclass(frozen=True)
class Task:
    """The task of a policy: a simulated federation, its start, and the harm to maximise.

    An episode has ``horizon`` rounds; where it ``ends`` there, nothing is worth anything after
    them, and otherwise it is cut off. An action is held for ``hold`` rounds in which the attacker
    takes part. The attacker takes part in the first round, before which it has missed ``waited``
    rounds. The reward is ``scale`` times the growth of the harm. Reports give ``unit`` times this
    growth, so that 1 is the harm at the start. What a ``journal`` contains is not simulated again.
    ``progress`` receives the progress of a training.
    """

    federation: Federation
    start: FederationState
    encoding: Encoding
    means: ActionContext
    harm: Callable[[Vector], float]
    horizon: int = 200
    hold: int = 1
    scale: float = 1.0
    unit: float | None = None
    ends: bool = False
    waited: int = 0
    backend: Backend = LOCAL
    journal: RolloutCache | None = None
    progress: Progress = UNWATCHED

    @property
    def layout(self) -> Layout:
        """The layout of the federation's network."""
        return Layout.of(self.federation.local.model)

    def told(self, value: float) -> float:
        """Return a sum of rewards in the unit in which it is reported."""
        same = self.unit is None or self.unit == self.scale
        return value if same or self.unit is None else value * (self.unit / self.scale)


class FederationEnv(gymnasium.Env[Floats, Floats]):
    """The attacker's Markov decision process (DRFL §3), for any rule, data, network and encoding.

    A step plays :func:`~fedrobust.federation.round.run_round` on the simulated federation ``hold``
    times, and then the rounds in which the attacker does not take part. The observation comes from
    the encoding. The reward is Σ harm(θ^t) − harm(θ^{t−1}), scaled. An episode is truncated at the
    horizon, or terminated there where the task ``ends``. Each episode draws its own batches, from
    the seed of ``reset``.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012, as in the base class

    def __init__(self, task: Task) -> None:
        if not task.federation.malicious:
            raise ValueError("the task's federation has no malicious client to act for")
        self.task, self._layout = task, task.layout
        seen, actions = task.encoding.seen(self._layout), task.encoding.actions(self._layout)
        most = np.inf if getattr(task.encoding, "sees", "") == "parameters" else 100
        self.observation_space = gymnasium.spaces.Box(-most, most, (seen,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1, 1, (actions,), np.float32)
        self.actions = actions
        """k, the length of an action."""
        self.rounds = 0
        """The number of simulated rounds that this environment has played."""
        self._puppet = PolicyAttack(task.encoding, task.means)
        self._federation = replace(task.federation, attack=self._puppet)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Floats, dict[str, Any]]:
        """Start a new episode, with its own random draws."""
        super().reset(seed=seed)
        self._draw, self._unplayed = int(self.np_random.integers(2**31)), list[Action]()
        self._now = self._answer(None)
        return self._now.observation, self._info()

    def step(self, action: Floats) -> tuple[Floats, float, bool, bool, dict[str, Any]]:
        """Play ``action``; a number outside [−1, 1] counts as the nearest one inside."""
        before, self._now = self._now, self._answer(np.clip(action, -1, 1))
        reward = self.task.scale * (self._now.harm - before.harm)
        over, ends = self.over, self.task.ends
        return self._now.observation, reward, over and ends, over and not ends, self._info()

    def play(self, action: Tensor) -> None:
        """Play the rounds of one step without measuring the harm."""
        self._puppet.action = action
        for _ in range(self.task.hold):
            if not self.over:
                self._play()
                self._waited = 0
                self._play_without()

    @property
    def over(self) -> bool:
        """Whether the episode has reached its horizon."""
        return self.elapsed >= self.task.horizon

    @property
    def elapsed(self) -> int:
        """The number of rounds since the start of the episode."""
        return self._round - self.task.start.round

    @property
    def parameters(self) -> Vector:
        """θ, the current parameters in this episode."""
        self._catch_up()
        return self._state.parameters

    def _answer(self, action: Action) -> Answer:
        """Return the answer to an action, or to a start: recalled, or simulated and kept."""
        journal = self.task.journal
        asked = str(self._draw).encode() if action is None else action.tobytes()
        answer = None if journal is None else journal.recall(asked)
        if answer is None:
            self._catch_up()
            answer = self._simulated(action)
            if journal is not None:
                journal.note(asked, answer)
        else:
            self._unplayed.append(action)
            self._round, self.rounds = answer.round, self.rounds + answer.rounds
        return answer

    def _catch_up(self) -> None:
        """Play the recalled rounds of this episode; they are already counted."""
        rounds = self.rounds
        for action in self._unplayed:
            self._simulated(action)
        self._unplayed, self.rounds = [], rounds

    def _simulated(self, action: Action) -> Answer:
        before = self.rounds
        if action is None:
            self._begin()
        else:
            self.play(torch.from_numpy(action))
        with own_draws(self._puppet.own, self._streams, "observation", self._state.round):
            seen = np.asarray(self._observation(), dtype=np.float32)
        return Answer(seen, self._measured(), self._state.round, self.rounds - before)

    def _begin(self) -> None:
        self._state = self.task.start.clone()
        self._state.attack = None
        self._round, self._waited = self._state.round, self.task.waited
        seeds = count(self._draw)  # the policy begins in a round with the attacker
        self._streams = next(s for s in map(Streams, seeds) if self._takes_part(s))

    def _info(self) -> dict[str, Any]:
        return {"harm": self._now.harm, "round": self._now.round}

    def _measured(self) -> float:
        """Return the harm, cut at ±``LIMIT`` in units of the reward: a model may blow up."""
        most = LIMIT / self.task.scale
        return min(max(self.task.harm(self._state.parameters), -most), most)

    def _play(self) -> None:
        backend, self._puppet.waited = self.task.backend, self._waited
        self._state, _ = run_round(self._state, self._federation, self._streams, backend=backend)
        self._round, self.rounds = self._state.round, self.rounds + 1

    def _play_without(self) -> None:
        """Play the rounds without a malicious client, up to the next round with one."""
        while not self.over and not self._takes_part(self._streams):
            self._play()
            self._waited += 1

    def _takes_part(self, streams: Streams) -> bool:
        """Whether a malicious client takes part in the next round."""
        chosen = self._federation.chosen(self._state.round + 1, streams)
        return not self._federation.malicious.isdisjoint(chosen)

    def _observation(self) -> Floats:
        sight = Observation(
            self._layout,
            self._state.parameters,
            before(self._state.parameters, () if self._waited else self._state.history),
            self.task.start.parameters,
            self._waited,
        )
        return self.task.encoding.observe(sight)
