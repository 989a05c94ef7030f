"""What a learned policy has to beat: fixed actions, and plans searched on the same simulation.

A search compares its candidates in one episode, which luck decides too, so the few best are judged
once more, in episodes that the search has not seen. The best of these is then worth what it does in
others yet: chosen and judged by the same, it would be worth too much.
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
from fedrobust.attacks.learned.policy import Actor, played
from fedrobust.attacks.learned.simulation import Harm
from fedrobust.attacks.learned.training import Training
from fedrobust.typing import Floats

EPISODES = 5
"""Of the last judgement, for each of so many candidates."""
FINALISTS = 2
"""Candidates that a search by halving leaves to be judged."""


@dataclass(frozen=True)
class Plan:
    """Actions [steps, k], each for as many rounds as an action is held, and their return.

    They go by the round, whether or not the attacker was there to play them; the last one is kept.
    ``rounds`` and ``seconds`` are what the search for it has cost, ``course`` what it has seen.
    """

    actions: Floats
    value: float
    rounds: int = 0
    seconds: float = 0.0
    course: tuple[float, ...] = ()

    def actor(self, env: FederationEnv) -> Actor:
        """What plays the plan in ``env``."""

        def act(observation: Floats) -> Floats:
            chosen: Floats = self.actions[_due(env, len(self.actions))]
            return chosen

        return act


LEVELS = (0.03, 0.1, 0.3, 1.0)


def constant_actions(size: int, axes: Sequence[int] | None = None) -> Floats:
    """Zero, each of ``axes`` (all) at ± ``LEVELS``, and of up to four axes every mix of signs."""
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
    """The constant actions, of some axes drawn at random where all are too many for ``steps``."""
    most = max(1, (steps // 8 - 1) // (2 * len(LEVELS)))
    if size <= max(4, most):
        return constant_actions(size)
    draw = np.random.default_rng(seed)
    return constant_actions(size, sorted(draw.permutation(size)[:most].tolist()))


def best_constant(
    task: Task, *, steps: int = 5000, seed: int = 0, episodes: int = EPISODES
) -> Plan:
    """The action that does the most harm when it is played throughout, of ``constant_actions``.

    By successive halving, in about ``steps`` steps of the environment: all play equally many steps,
    the better half of them twice as many, and so on, until ``FINALISTS`` are left, which are judged
    in ``episodes`` others; the better one's value is that in yet others. Steps are the beginning of
    an episode, or several episodes; all play the same ones, so that they differ by the action
    alone. Each plays one step at least; where a step for each axis is too many, axes are drawn at
    random.

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
    """Cross-entropy search over open-loop plans of ``segments`` actions, each held equally long.

    Each of ``iterations`` draws ``population`` plans from a normal distribution, which then takes
    the mean and deviation of the ``elite`` best in an episode of its own. The judged are the means
    of the last iterations.

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
        values = [tell(value_of(env, _held(plan, task), seed + iteration)) for plan in drawn]
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
    """Adam on the return of an open-loop plan, by its gradient through all rounds of an episode.

    Plans are those of :func:`cross_entropy`, kept within [−1, 1], from the best constant action on,
    searched in ``steps``: gradients find the nearest hill only. Every iteration plays an episode of
    its own; it ends early where the gradient is not finite, or there is none through the rule, or
    no round made a step. The judged are the plans with the best returns.

    Raises: ``ValueError`` where the simulated rounds have no gradient: clients that do more than
    one plain SGD step on a small network, an ascent that searches its step.
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
        value = rollout(env, plan, seed + iteration)
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
    """The plan of ``training.algorithm``, within about ``training.steps`` steps of the environment.

    An iteration along a gradient counts as five episodes, and takes many times as long as these: it
    plays by autograd and not by the compiled loop. A quarter of its steps go into its start.
    """
    steps = training.steps
    if training.algorithm == "constant":
        return best_constant(task, steps=steps, seed=seed)
    if training.algorithm == "gradient":
        iterations = max(1, (steps - steps // 4) // _steps(task) // 5)
        return gradient_ascent(task, iterations=iterations, steps=steps // 4, seed=seed)
    return cross_entropy(task, iterations=max(1, steps // _steps(task) // 16), seed=seed)


def rollout(env: FederationEnv, plan: Tensor, seed: int) -> Tensor:
    """The return of ``plan`` [segments, k] on the environment of a differentiable task."""
    env.reset(seed=seed)
    task = env.task
    assert isinstance(task.harm, Harm)
    begin = task.harm.value(env.parameters)
    actions = plan.repeat_interleave(_repeats(task, len(plan)), dim=0)[: _steps(task)]
    while not env.over:
        env.play(actions[_due(env, len(actions))])
    return task.scale * (task.harm.value(env.parameters) - begin)


def value_of(env: FederationEnv, actions: Floats, seed: int, most: int | None = None) -> float:
    """The return of one episode, or of its first ``most`` steps, with a plan [steps, k]."""
    return played(env, Plan(actions, 0.0).actor(env), seed, most)


def fresh_episodes(seed: int) -> range:
    """The seeds of episodes that had no part in any choice that a search or a training made."""
    return range(seed + 1000, seed + 1000 + EPISODES)


def _finals(seed: int) -> range:
    """The seeds of those that choose among the candidates of a search that are left."""
    return range(seed + 2000, seed + 2000 + EPISODES)


def _share(actions: int) -> int:
    """The steps of a whole search in which each of so many actions plays one step at first."""
    total, length = 0, 1
    while actions > FINALISTS:
        total, length = total + actions * length, 2 * length
        actions = max(FINALISTS, actions // 2)
    return total


def _over(env: FederationEnv, actions: Floats, seed: int, steps: int) -> float:
    """The mean return of ``steps`` steps: of one episode's beginning, or of whole episodes."""
    whole = _steps(env.task)
    if steps < whole:
        return value_of(env, actions, seed, steps)
    return float(np.mean([value_of(env, actions, seed + k) for k in range(round(steps / whole))]))


def _judged(
    env: FederationEnv,
    plans: Sequence[Floats],
    seed: int,
    began: float,
    course: Sequence[float],
    episodes: int = EPISODES,
) -> Plan:
    """The best of ``plans`` in some episodes, the same for all; its value is that in others."""

    def mean(plan: Floats, seeds: range) -> float:
        return float(np.mean([value_of(env, plan, seed) for seed in seeds[:episodes]]))

    best = plans[int(np.argmax([mean(plan, _finals(seed)) for plan in plans]))]
    value = mean(best, fresh_episodes(seed))
    return Plan(best, value, env.rounds, time.monotonic() - began, tuple(course))


def _telling(env: FederationEnv, steps: int) -> Callable[[float], float]:
    """What tells whoever follows, with each value found, how many of ``steps`` ``env`` has made."""

    def tell(value: float) -> float:
        env.task.progress.trained(min(env.rounds // env.task.hold, steps), steps)
        return value

    return tell


def _due(env: FederationEnv, steps: int) -> int:
    """Which of a plan's actions it is time for."""
    return min(env.elapsed // env.task.hold, steps - 1)


def _steps(task: Task) -> int:
    return -(-task.horizon // task.hold)


def _repeats(task: Task, segments: int) -> int:
    return -(-_steps(task) // segments)


def _held(plan: npt.NDArray[np.float64], task: Task) -> Floats:
    """An action for every step of an episode [steps, k]."""
    repeated = np.repeat(plan, _repeats(task, len(plan)), axis=0)[: _steps(task)]
    return repeated.astype(np.float32)
