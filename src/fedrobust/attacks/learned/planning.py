"""The baselines of a learned policy: fixed actions, and plans searched on the same simulation.

A search compares its candidates in one episode, in which luck also matters. So the few best are
judged once more, in episodes that the search has not seen. The value of the best is then measured
in further episodes: if the same episodes chose and judged it, its value would be too high.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fedrobust.attacks.learned.differentiable import NotLinearError, differentiable
from fedrobust.attacks.learned.environment import LIMIT, FederationEnv, Task
from fedrobust.attacks.learned.episodes import EPISODES, final_episodes, fresh_episodes, searched
from fedrobust.attacks.learned.policy import Actor, played
from fedrobust.attacks.learned.simulation import Harm
from fedrobust.attacks.learned.training import Training
from fedrobust.typing import Floats

FINALISTS = 2
"""The number of candidates that a search by halving leaves to be judged."""


@dataclass(frozen=True)
class Plan:
    """Actions [steps, k] and their return; each action is held for a fixed number of rounds.

    The rounds of a plan pass whether or not the attacker took part in them; the last action is
    kept. ``rounds`` and ``seconds`` are the cost of the search, and ``course`` the values that it
    found.
    """

    actions: Floats
    value: float
    rounds: int = 0
    seconds: float = 0.0
    course: tuple[float, ...] = ()

    def actor(self, env: FederationEnv) -> Actor:
        """Return an actor that plays the plan in ``env``."""

        def act(observation: Floats) -> Floats:
            chosen: Floats = self.actions[_due(env, len(self.actions))]
            return chosen

        return act


LEVELS = (0.03, 0.1, 0.3, 1.0)


def constant_actions(size: int, axes: Sequence[int] | None = None) -> Floats:
    """Return zero, ± ``LEVELS`` on each of ``axes`` (all), and sign mixes of up to four axes."""
    found = [np.zeros(size)]
    for level in LEVELS:
        for axis in range(size) if axes is None else axes:
            one = np.where(np.arange(size) == axis, level, 0.0)
            found += [-one, one]
        if 1 < size <= 4:
            signs = np.array(np.meshgrid(*[[-level, level]] * size)).reshape(size, -1).T
            found += list(signs)
    return np.array(found, dtype=np.float32)


def _candidates(size: int, steps: int, seed: int) -> Floats:
    """Return the constant actions; of random axes where all are too many for ``steps``."""
    most = max(1, (steps // 8 - 1) // (2 * len(LEVELS)))
    if size <= max(4, most):
        return constant_actions(size)
    draw = np.random.default_rng(seed)
    return constant_actions(size, sorted(draw.permutation(size)[:most].tolist()))


def best_constant(
    task: Task, *, steps: int = 5000, seed: int = 0, episodes: int = EPISODES
) -> Plan:
    """Return the action of ``constant_actions`` that does the most harm when played throughout.

    The search is by successive halving, in about ``steps`` steps of the environment. First all
    candidates play equally many steps, then the better half plays twice as many, and so on, until
    ``FINALISTS`` are left. These are judged in ``episodes`` other episodes, and the value of the
    better one is measured in yet other ones. The steps are the beginning of an episode, or several
    episodes. All candidates play the same episodes, so that they differ by the action alone. Each
    plays at least one step. Where one step for each axis is too many, axes are drawn at random.

    Reference: Jamieson and Talwalkar, "Non-stochastic Best Arm Identification and Hyperparameter
    Optimization", AISTATS 2016.
    """
    env, began = FederationEnv(task), time.monotonic()
    tell = _telling(env, steps)
    tried = [action[None] for action in _candidates(env.actions, steps, seed)]
    left, course = list(range(len(tried))), list[float]()
    length = max(1, steps // _share(len(tried)))
    while len(left) > FINALISTS:
        values = [tell(_over(env, tried[i], seed, length)) for i in left]
        course.append(max(values))
        order = np.argsort(-np.array(values), kind="stable")
        left = [left[i] for i in order[: max(FINALISTS, len(left) // 2)]]
        length *= 2
    return _judged(env, [tried[i] for i in left], seed, began, course, episodes)


def cross_entropy(
    task: Task,
    *,
    segments: int = 5,
    population: int = 16,
    elite: int = 4,
    iterations: int = 10,
    seed: int = 0,
) -> Plan:
    """Search over open-loop plans of ``segments`` equally long actions by the cross-entropy method.

    Each of ``iterations`` draws ``population`` plans from a normal distribution and plays them in
    its own episode. The distribution then takes the mean and deviation of the ``elite`` best plans.
    The candidates of the final judgement are the means of the last iterations.

    Reference: Rubinstein and Kroese, "The Cross-Entropy Method", 2004.
    """
    env, began = FederationEnv(task), time.monotonic()
    tell = _telling(env, iterations * population * _steps(task))
    draw = np.random.default_rng(seed)
    shape = (segments, env.actions)
    mean, deviation = np.zeros(shape), np.full(shape, 0.7)
    means, course = [], []
    for iteration in range(iterations):
        drawn = np.clip(mean + deviation * draw.standard_normal((population, *shape)), -1, 1)
        episode = searched(seed, iteration)
        values = [tell(value_of(env, _held(plan, task), episode)) for plan in drawn]
        order = np.argsort(-np.array(values), kind="stable")[:elite]
        mean, deviation = drawn[order].mean(axis=0), drawn[order].std(axis=0) + 0.02
        means.append(mean)
        course.append(values[order[0]])
    return _judged(env, [_held(plan, task) for plan in means[-EPISODES:]], seed, began, course)


def gradient_ascent(
    task: Task,
    *,
    segments: int = 5,
    iterations: int = 10,
    rate: float = 0.2,
    steps: int = 1250,
    seed: int = 0,
) -> Plan:
    """Improve an open-loop plan by Adam on its return, with gradients through a whole episode.

    Plans are as in :func:`cross_entropy`, kept within [−1, 1]. The search starts at the best
    constant action, found in ``steps`` steps, because gradients only find the nearest hill. Every
    iteration plays its own episode. The search ends early where the gradient is not finite, where
    the rule has no gradient, or where no round made a step. The plans with the best returns are
    judged.

    Raises: ``ValueError`` where the simulated rounds have no gradient: for clients that do more
    than one plain SGD step on a small network, or for an ascent that searches its step.
    """
    smooth, began = differentiable(task), time.monotonic()
    env, start = FederationEnv(smooth), best_constant(task, steps=steps, seed=seed)
    tell = _telling(env, iterations * _steps(task))
    plan = torch.from_numpy(start.actions).double().repeat(segments, 1).requires_grad_()
    adam = torch.optim.Adam([plan], lr=rate, maximize=True)
    tried: list[npt.NDArray[np.float64]] = []
    course: list[float] = []
    for iteration in range(iterations):
        adam.zero_grad()
        value = rollout(env, plan, searched(seed, iteration))
        course.append(float(value.detach().nan_to_num(nan=-LIMIT).clamp(-LIMIT, LIMIT)))
        tried.append(plan.detach().numpy().copy())
        tell(course[-1])
        if not value.requires_grad:
            break  # no round made a step
        try:
            torch.autograd.backward(value)
        except NotLinearError:
            break
        if plan.grad is None or not torch.isfinite(plan.grad).all():
            break
        adam.step()
        with torch.no_grad():
            plan.clamp_(-1, 1)
    order = np.argsort(-np.array(course), kind="stable")[:EPISODES]
    judge = FederationEnv(task)
    judge.rounds = env.rounds + start.rounds
    return _judged(judge, [_held(tried[i], task) for i in order], seed, began, course)


def search(task: Task, training: Training, seed: int) -> Plan:
    """Return the plan of ``training.algorithm``, found in about ``training.steps`` steps.

    An iteration along a gradient counts as five episodes and takes many times as long as these,
    because it uses autograd and not the compiled loop. A quarter of its steps go into its start.
    """
    steps = training.steps
    if training.algorithm == "constant":
        return best_constant(task, steps=steps, seed=seed)
    if training.algorithm == "gradient":
        iterations = max(1, (steps - steps // 4) // _steps(task) // 5)
        return gradient_ascent(task, iterations=iterations, steps=steps // 4, seed=seed)
    return cross_entropy(task, iterations=max(1, steps // _steps(task) // 16), seed=seed)


def rollout(env: FederationEnv, plan: Tensor, seed: int) -> Tensor:
    """Return the return of ``plan`` [segments, k] on the environment of a differentiable task."""
    env.reset(seed=seed)
    task = env.task
    assert isinstance(task.harm, Harm)
    begin = task.harm.value(env.parameters)
    actions = plan.repeat_interleave(_repeats(task, len(plan)), dim=0)[: _steps(task)]
    while not env.over:
        env.play(actions[_due(env, len(actions))])
    return task.scale * (task.harm.value(env.parameters) - begin)


def value_of(env: FederationEnv, actions: Floats, seed: int, most: int | None = None) -> float:
    """Return the return of one episode, or of its first ``most`` steps, with a plan [steps, k]."""
    return played(env, Plan(actions, 0.0).actor(env), seed, most)


def _share(actions: int) -> int:
    """Return the steps of a whole search over ``actions``, if each plays one step at first."""
    total, length = 0, 1
    while actions > FINALISTS:
        total, length = total + actions * length, 2 * length
        actions = max(FINALISTS, actions // 2)
    return total


def _over(env: FederationEnv, actions: Floats, seed: int, steps: int) -> float:
    """Return the mean return of ``steps`` steps: the beginning of an episode, or whole episodes."""
    whole = _steps(env.task)
    if steps < whole:
        return value_of(env, actions, seed, steps)
    episodes = [searched(seed, k) for k in range(round(steps / whole))]
    return float(np.mean([value_of(env, actions, episode) for episode in episodes]))


def _judged(
    env: FederationEnv,
    plans: Sequence[Floats],
    seed: int,
    began: float,
    course: Sequence[float],
    episodes: int = EPISODES,
) -> Plan:
    """Return the best of ``plans``, played in the same episodes; its value is that in others."""

    def mean(plan: Floats, seeds: range) -> float:
        return float(np.mean([value_of(env, plan, seed) for seed in seeds[:episodes]]))

    best = plans[int(np.argmax([mean(plan, final_episodes(seed)) for plan in plans]))]
    value = mean(best, fresh_episodes(seed))
    return Plan(best, value, env.rounds, time.monotonic() - began, tuple(course))


def _telling(env: FederationEnv, steps: int) -> Callable[[float], float]:
    """Return a function that reports to ``progress`` how many of ``steps`` have been made."""

    def tell(value: float) -> float:
        env.task.progress.trained(min(env.rounds // env.task.hold, steps), steps)
        return value

    return tell


def _due(env: FederationEnv, steps: int) -> int:
    """Return the index of the plan's action for the current round."""
    return min(env.elapsed // env.task.hold, steps - 1)


def _steps(task: Task) -> int:
    return -(-task.horizon // task.hold)


def _repeats(task: Task, segments: int) -> int:
    return -(-_steps(task) // segments)


def _held(plan: npt.NDArray[np.float64], task: Task) -> Floats:
    """Return an action for every step of an episode [steps, k]."""
    repeated = np.repeat(plan, _repeats(task, len(plan)), axis=0)[: _steps(task)]
    return repeated.astype(np.float32)
