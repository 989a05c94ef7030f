"""Policies by an evolution strategy on the simulated federation."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from statistics import fmean

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fedrobust.attacks.learned.environment import FederationEnv, Task
from fedrobust.attacks.learned.episodes import evolved, final_episodes, of_the_start
from fedrobust.attacks.learned.planning import best_constant
from fedrobust.attacks.learned.policy import Policy, Trained, acting, played
from fedrobust.attacks.learned.training import Training
from fedrobust.errors import ConfigError
from fedrobust.typing import Floats

_INNER = 0.9
"""The search begins at an action within this limit: near ±1 a tanh hardly answers to a weight."""
_LEAST = 0.1
"""The least deviation that an observation is divided by; observations have a size near 1."""
MOST = 10_000
"""The most weights of a policy; a search of more would take far more episodes than there are."""

Weights = npt.NDArray[np.float64]


def evolve(task: Task, training: Training, seed: int) -> Trained:
    """Search a policy by separable CMA-ES on its return; the settings are ``training.evolution``.

    In each generation all candidates play the same new episodes (common random numbers), so that
    they differ by their weights alone. A candidate's value is its mean return.

    The search takes about ``steps`` steps of the environment. With ``start: constant`` a quarter of
    them finds the best constant action, and the search begins there. At the end the start, the last
    mean and the best candidate of the last generation are judged in episodes of their own. The
    start is the exact constant action, so in these episodes the answer is never worse than that.
    ``returns`` of the answer are the best values of the generations, and ``checks`` the judgement.

    Raises: ``ConfigError`` where ``cmaes`` is not installed, ``ValueError`` where the policy would
    be too large.

    Reference: Ros and Hansen, "A Simple Modification in CMA-ES Achieving Linear Time and Space
    Complexity", PPSN 2008, as implemented by Nomura and Shibata, "cmaes: A Simple yet Practical
    Python Library for CMA-ES", 2024.
    """
    _require_library()
    from cmaes import SepCMA

    began, settings, env = time.monotonic(), training.evolution, FederationEnv(task)
    action, steps, rounds = None, training.steps, 0
    if training.start == "constant":
        # Other episodes than those in which the policies are judged at the end.
        plan = best_constant(task, steps=steps // 4, seed=of_the_start(seed), episodes=1)
        action, rounds, steps = plan.actions[0], plan.rounds, steps - steps // 4
    form = Form.of(env, settings.hidden)
    mean = form.initial(action, seed)
    start = form.policy(mean) if action is None else Policy.constant(action, form.seen)
    form = form.normalised(env, start, evolved(seed, 0))
    if action is None:
        start = form.policy(mean)
    search = SepCMA(mean.copy(), settings.deviation, seed=seed, population_size=settings.population)
    whole = -(-task.horizon // task.hold)
    each = search.population_size * settings.episodes
    best, course, first = start, list[float](), evolved(seed, 1)
    for length in generations(steps - whole, each, whole, settings.stages):
        asked = [search.ask() for _ in range(search.population_size)]
        episodes, values = range(first, first + settings.episodes), list[float]()
        for weights in asked:
            values.append(_mean(env, form.policy(weights), episodes, length))
            task.progress.trained(min(env.rounds // task.hold, steps), steps)
        best = form.policy(asked[int(np.argmax(values))])
        course.append(max(values))
        search.tell([(point, -value) for point, value in zip(asked, values, strict=True)])
        first += settings.episodes
    last = training.steps
    finalists = [(0, start), (last, form.policy(search.mean)), (last, best)]
    checks = [(at, _mean(env, policy, final_episodes(seed))) for at, policy in finalists]
    at, kept = finalists[int(np.argmax([value for _, value in checks]))]
    spent = time.monotonic() - began
    return Trained(kept, tuple(course), tuple(checks), rounds + env.rounds, spent, at)


def generations(steps: int, each: int, whole: int, stages: int) -> Iterator[int]:
    """Yield the length of the episodes of each generation, in steps; in all at most ``steps``.

    A generation plays ``each`` episodes. The budget is cut into equal ``stages``. The last one
    plays ``whole`` episodes, and each one before it half as many steps as the next. What is left
    over goes into the next stage. There is always one generation.
    """
    left, any_yet = 0, False
    for stage in range(stages):
        left += steps // stages
        length = max(1, whole >> (stages - 1 - stage))
        for _ in range(left // (length * each)):
            any_yet = True
            yield length
        left %= length * each
    if not any_yet:
        yield whole


@dataclass(frozen=True)
class Form:
    """The form of a policy: one layer of weights, or two around ``hidden`` units.

    The weights of a policy are one vector: of each layer the matrix [out, in], then the biases.
    Observations are shifted by ``mean`` and divided by ``deviation``.
    """

    seen: int
    actions: int
    hidden: int
    mean: Tensor
    deviation: Tensor

    @classmethod
    def of(cls, env: FederationEnv, hidden: int) -> "Form":
        """Return the form of policies for ``env``, which see its observations as they are.

        Raises: ``ValueError`` where they have more than ``MOST`` weights.
        """
        (seen,) = env.observation_space.shape or (0,)
        size = (seen + 1) * env.actions
        if hidden:
            size = (seen + 1) * hidden + (hidden + 1) * env.actions
        if size > MOST:
            raise ValueError(
                f"an evolution strategy does not search {size:,} weights, more than {MOST:,}: use "
                "the encoding basis, or fewer hidden units"
            )
        return cls(seen, env.actions, hidden, torch.zeros(seen), torch.ones(seen))

    def policy(self, weights: Weights) -> Policy:
        """Return the policy with these weights."""
        layers, at = [], 0
        flat = torch.from_numpy(weights).float()
        for inputs, outputs in self._layers:
            end = at + inputs * outputs
            layers.append((flat[at:end].view(outputs, inputs), flat[end : end + outputs]))
            at = end + outputs
        return Policy(tuple(layers), self.mean, self.deviation)

    def initial(self, action: Floats | None, seed: int) -> Weights:
        """Return the first weights: normal with variance 1 / inputs, and biases of 0.

        With an ``action``, the last layer answers it, clipped to ±``_INNER``, whatever it sees.
        """
        draw, parts = np.random.default_rng(seed), list[Weights]()
        for inputs, outputs in self._layers:
            parts += [draw.standard_normal(inputs * outputs) / inputs**0.5, np.zeros(outputs)]
        if action is not None:
            parts[-2][:] = 0
            parts[-1][:] = np.arctanh(np.clip(action.astype(np.float64), -_INNER, _INNER))
        return np.concatenate(parts)

    def normalised(self, env: FederationEnv, policy: Policy, seed: int) -> "Form":
        """Return this form with the mean and deviation of what ``policy`` sees in one episode."""
        sights = list[Floats]()

        def noting(observation: Floats) -> Floats:
            sights.append(observation)
            return acting(policy)(observation)

        played(env, noting, seed)
        found = torch.from_numpy(np.stack(sights)).double()
        deviation = found.std(dim=0, correction=0).clamp(min=_LEAST)
        return replace(self, mean=found.mean(dim=0).float(), deviation=deviation.float())

    @property
    def _layers(self) -> tuple[tuple[int, int], ...]:
        if not self.hidden:
            return ((self.seen, self.actions),)
        return (self.seen, self.hidden), (self.hidden, self.actions)


def _mean(
    env: FederationEnv, policy: Policy, episodes: Sequence[int], most: int | None = None
) -> float:
    """Return the mean return of ``policy`` in the first ``most`` steps of these episodes."""
    return fmean(played(env, acting(policy), episode, most) for episode in episodes)


def _require_library() -> None:
    """Raises: ``ConfigError`` where ``cmaes`` is not installed."""
    if find_spec("cmaes") is None:
        raise ConfigError(
            "an evolution strategy is searched with cmaes: pip install 'fedrobust[learned]'"
        )
