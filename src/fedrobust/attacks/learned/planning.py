"""What a learned policy has to beat: fixed actions, and plans searched on the same simulation."""

import time
from dataclasses import dataclass

import numpy as np

from fedrobust.attacks.learned.encoding import Observation
from fedrobust.attacks.learned.environment import FederationEnv, Task
from fedrobust.attacks.learned.policy import Actor, Policy, Trained, played


@dataclass(frozen=True)
class Plan:
    """Actions for the steps of an episode [steps, k], the last one repeated, and their return.

    ``rounds`` and ``seconds`` are what the search for it has cost.
    """

    actions: Observation
    value: float
    rounds: int = 0
    seconds: float = 0.0

    def trained(self, task: Task) -> Trained:
        """The plan's first action as a policy that always gives it."""
        policy = Policy.constant(self.actions[0], task.encoding.seen(task.layout))
        return Trained(policy, (), ((0, self.value),), self.rounds, self.seconds)

    def actor(self) -> Actor:
        """The plan from its first action on, for one episode."""
        at = -1

        def act(observation: Observation) -> Observation:
            nonlocal at
            at = min(at + 1, len(self.actions) - 1)
            chosen: Observation = self.actions[at]
            return chosen

        return act


def constant_actions(size: int, levels: tuple[float, ...] = (0.03, 0.1, 0.3, 1.0)) -> Observation:
    """Zero, each axis at ± ``levels``, and for up to four axes also every combination of signs."""
    found = [np.zeros(size)]
    for level in levels:
        for axis in range(size):
            one = np.where(np.arange(size) == axis, level, 0.0)
            found += [-one, one]
        if 1 < size <= 4:
            signs = np.array(np.meshgrid(*[[-level, level]] * size)).reshape(size, -1).T
            found += list(signs)
    return np.array(found, dtype=np.float32)


def best_constant(task: Task, *, episodes: int = 1, seed: int = 0) -> Plan:
    """The action that does the most harm when it is played throughout, of ``constant_actions``.

    The same episodes judge all of them, so that they differ by the action alone.
    """
    env, began = FederationEnv(task), time.monotonic()
    tried = constant_actions(env.actions)
    values = [_value(env, Plan(action[None], 0.0), episodes, seed) for action in tried]
    best = int(np.argmax(values))
    return Plan(tried[best][None], values[best], env.rounds, time.monotonic() - began)


def cross_entropy(
    task: Task,
    *,
    segments: int = 5,
    population: int = 32,
    elite: int = 8,
    iterations: int = 10,
    episodes: int = 1,
    seed: int = 0,
) -> Plan:
    """Cross-entropy search over open-loop plans of ``segments`` actions, each held equally long.

    Each of ``iterations`` draws ``population`` plans from a normal distribution, which then takes
    the mean and deviation of the ``elite`` best. The best plan ever drawn is returned.

    Reference: Rubinstein and Kroese, "The Cross-Entropy Method", 2004.
    """
    env = FederationEnv(task)
    size = env.actions
    steps = -(-task.horizon // task.hold)
    repeats = -(-steps // segments)
    draw = np.random.default_rng(seed)
    mean, deviation = np.zeros((segments, size)), np.full((segments, size), 0.7)
    best = Plan(np.zeros((1, size), dtype=np.float32), -np.inf)
    for _ in range(iterations):
        drawn = np.clip(
            mean + deviation * draw.standard_normal((population, segments, size)), -1, 1
        )
        plans = [np.repeat(p, repeats, axis=0)[:steps].astype(np.float32) for p in drawn]
        values = np.array([_value(env, Plan(plan, 0.0), episodes, seed) for plan in plans])
        order = np.argsort(-values, kind="stable")[:elite]
        mean, deviation = drawn[order].mean(axis=0), drawn[order].std(axis=0) + 0.02
        if values[order[0]] > best.value:
            best = Plan(plans[order[0]], float(values[order[0]]))
    return best


def _value(env: FederationEnv, plan: Plan, episodes: int, seed: int) -> float:
    return float(np.mean([played(env, plan.actor(), seed + i) for i in range(episodes)]))
