"""Policies: training on the simulated federation, and the trained network."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from statistics import fmean
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedrobust.attacks.learned.environment import FederationEnv, Task
from fedrobust.attacks.learned.training import Training
from fedrobust.compute.randomness import isolated
from fedrobust.errors import ConfigError
from fedrobust.typing import Floats

_EPSILON = 1e-8
_INNER = 0.6
"""A policy begins with actions within this limit: near ±1 its tanh has no slope to learn by."""
_REPLAY = 1 << 30
"""The most bytes of the replay memory; a large state fills it with few steps."""
_CLIP = 10.0
"""Normalised observations are cut off at this value, as in Stable-Baselines3."""


@dataclass(frozen=True)
class Policy:
    """A deterministic policy: layers with ReLU between them and tanh at the end.

    ``layers`` are pairs of weight [out, in] and bias [out]. Observations are first shifted by
    ``mean`` and divided by ``deviation``, and then cut off, unless these are all 0 and 1: then they
    were not normalised in the training either. A policy consists of tensors only and needs no other
    library.
    """

    layers: tuple[tuple[Tensor, Tensor], ...]
    mean: Tensor
    deviation: Tensor

    def __call__(self, observation: Floats) -> Tensor:
        """Return the action in [−1, 1]^k."""
        x = torch.from_numpy(observation)
        if self.normalises:
            x = ((x - self.mean) / self.deviation).clamp(-_CLIP, _CLIP)
        for i, (weight, bias) in enumerate(self.layers):
            # Not a matrix product: its last bits may depend on where the tensors lie in memory. A
            # policy that was read from a file lies elsewhere, and a resumed run must not differ.
            x = (weight * x).sum(dim=1) + bias
            x = torch.tanh(x) if i == len(self.layers) - 1 else torch.relu(x)
        return x

    @classmethod
    def constant(cls, action: Floats, seen: int) -> "Policy":
        """Return the policy that always gives ``action``, whatever it sees."""
        bias = torch.atanh(torch.from_numpy(action).double().clamp(-1 + 1e-12, 1 - 1e-12)).float()
        return cls(((torch.zeros(len(bias), seen), bias),), torch.zeros(seen), torch.ones(seen))

    @property
    def normalises(self) -> bool:
        """Whether it was trained on normalised observations."""
        return bool((self.mean != 0).any() or (self.deviation != 1).any())

    @property
    def sizes(self) -> tuple[int, int]:
        """The number of values that it sees, and the number of actions that it gives."""
        return self.layers[0][0].shape[1], self.layers[-1][0].shape[0]

    def tensors(self) -> dict[str, Tensor]:
        """Return the policy as named tensors."""
        content = {"mean": self.mean, "deviation": self.deviation}
        for i, (weight, bias) in enumerate(self.layers):
            content |= {f"{i}.weight": weight, f"{i}.bias": bias}
        return content

    @classmethod
    def of(cls, tensors: dict[str, Tensor]) -> "Policy":
        """Build a policy from tensors. Raises: ``ConfigError`` where they are not a policy."""
        try:
            count = (len(tensors) - 2) // 2
            layers = tuple((tensors[f"{i}.weight"], tensors[f"{i}.bias"]) for i in range(count))
            policy = cls(layers, tensors["mean"], tensors["deviation"])
            seen, _ = policy.sizes
            policy(np.zeros(seen, dtype=np.float32))
        except (KeyError, IndexError, RuntimeError) as error:
            raise ConfigError(f"this is not a policy: {error}") from error
        return policy


@dataclass(frozen=True)
class Trained:
    """A policy and its training: the return of each episode, and what was spent.

    ``checks`` are the steps after which a policy was checked, with its value, and ``kept`` are the
    steps of the ``policy``.
    """

    policy: Policy
    returns: tuple[float, ...]
    checks: tuple[tuple[int, float], ...]
    rounds: int
    seconds: float
    kept: int


Actor = Callable[[Floats], Floats]


def played(env: FederationEnv, actor: Actor, seed: int, most: int | None = None) -> float:
    """Play one episode, or its first ``most`` steps, with ``actor``, and return its return."""
    observation, _ = env.reset(seed=seed)
    total, over, steps = 0.0, False, 0
    while not over and steps != most:
        observation, reward, ended, cut, _ = env.step(actor(observation))
        total, steps, over = total + reward, steps + 1, ended or cut
    return total


def acting(policy: Policy) -> Actor:
    """Return ``policy`` as an actor in an environment."""
    return lambda observation: policy(observation).numpy()


def train(task: Task, training: Training, seed: int, start: Floats | None = None) -> Trained:
    """Train a policy on ``task``, from the action ``start`` on where one is given.

    The same seed gives the same policy. The training reports to the ``progress`` of ``task``.

    Raises: ``ConfigError`` where Stable-Baselines3 is not installed.
    """
    _require_library()
    began = time.monotonic()
    envs = [FederationEnv(task) for _ in range(training.environments)]
    judge = FederationEnv(task)
    vector = _vector(envs, training)
    checks = _Checks(judge, training)
    returns: list[float] = []
    with isolated():
        model = _learner(training, vector, judge, seed)
        if start is not None:
            _begin_at(model, start)
            if training.check_every:
                checks(Policy.constant(start, task.encoding.seen(task.layout)), 0)
        model.learn(training.steps, callback=_watching(task, training, vector, checks, returns))
        if training.check_every and checks.last < model.num_timesteps and not checks.enough:
            checks(_exported(model, vector), model.num_timesteps)
        policy, kept = _exported(model, vector), model.num_timesteps
        if training.keep == "best" and checks.best is not None:
            kept, policy = checks.best
    rounds = sum(env.rounds for env in envs) + judge.rounds
    seconds = time.monotonic() - began
    return Trained(policy, tuple(returns), tuple(checks.values), rounds, seconds, kept)


def _require_library() -> None:
    """Raises: ``ConfigError`` where Stable-Baselines3 is not installed."""
    if find_spec("stable_baselines3") is None:
        raise ConfigError(
            "a learned attack trains with Stable-Baselines3: pip install 'fedrobust[learned]'"
        )


class _Checks:
    """The mean return of each policy that was checked, and the best policy."""

    def __init__(self, judge: FederationEnv, training: Training) -> None:
        self._judge, self._episodes = judge, range(training.check_episodes)
        self._patience = training.patience
        self.values: list[tuple[int, float]] = []
        self.best: tuple[int, Policy] | None = None
        self._since = 0

    def __call__(self, policy: Policy, steps: int) -> None:
        """Play ``policy``, as it is after ``steps``, in the episodes of a check."""
        value = fmean(played(self._judge, acting(policy), seed) for seed in self._episodes)
        if not self.values or value > max(score for _, score in self.values):
            self.best, self._since = (steps, policy), -1
        self.values.append((steps, value))
        self._since += 1

    @property
    def last(self) -> int:
        """The steps before the last check; -1 before the first."""
        return self.values[-1][0] if self.values else -1

    @property
    def enough(self) -> bool:
        """Whether there were as many checks without a new best as patience lasts."""
        return 0 < self._patience <= self._since


def _vector(envs: list[FederationEnv], training: Training) -> Any:
    """The environments as Stable-Baselines3 takes them."""
    from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor, VecNormalize

    vector: Any = VecMonitor(DummyVecEnv([partial(_itself, env) for env in envs]))
    if training.normalise:
        vector = VecNormalize(vector, gamma=min(training.discount, 0.999), clip_obs=_CLIP)
    return vector


def _learner(training: Training, vector: Any, judge: FederationEnv, seed: int) -> Any:
    """The algorithm of Stable-Baselines3 with the settings of ``training``."""
    from stable_baselines3 import DDPG, SAC, TD3
    from stable_baselines3.common.logger import Logger
    from stable_baselines3.common.noise import NormalActionNoise

    train_freq, gradient_steps = training.frequency
    noise = NormalActionNoise(np.zeros(judge.actions), np.full(judge.actions, training.noise))
    model: Any = {"ddpg": DDPG, "td3": TD3, "sac": SAC}[training.algorithm](
        "MlpPolicy",
        vector,
        learning_rate=training.learning_rate,
        buffer_size=_remembered(training, judge),
        learning_starts=training.learning_starts,
        batch_size=training.batch_size,
        tau=training.polyak,
        gamma=training.discount,
        train_freq=train_freq,
        gradient_steps=gradient_steps,
        action_noise=noise if training.noise and training.algorithm != "sac" else None,
        policy_kwargs={"net_arch": list(training.hidden)},
        seed=seed,
        device="cpu",
    )
    model.set_logger(Logger(None, []))  # its own would make a temporary folder
    return model


def _watching(
    task: Task, training: Training, vector: Any, checks: _Checks, returns: list[float]
) -> Any:
    """What the library calls at every step: it collects returns, and checks when it is time."""
    from stable_baselines3.common.callbacks import BaseCallback

    by_episode, every = training.train_every == "episode", training.check_every

    class Watching(BaseCallback):
        def _on_rollout_start(self) -> None:
            # Between episodes the networks have learned from the last one; in it, not yet.
            done = self.model.num_timesteps
            if by_episode and every and checks.last // every < done // every:
                checks(_exported(self.model, vector), done)

        def _on_step(self) -> bool:
            ended = (info["episode"]["r"] for info in self.locals["infos"] if "episode" in info)
            returns.extend(map(float, ended))
            task.progress.trained(min(self.num_timesteps, training.steps), training.steps)
            done = self.num_timesteps
            due = every and done // every > (done - training.environments) // every
            if due and done > training.learning_starts and not by_episode:
                checks(_exported(self.model, vector), done)
            return not checks.enough

    return Watching()


def _remembered(training: Training, env: FederationEnv) -> int:
    """Return how many steps the replay memory holds, at most ``memory`` and ``_REPLAY`` bytes."""
    seen, steps = env.task.encoding.seen(env.task.layout), training.steps
    if training.train_every == "episode":
        steps += -(-env.task.horizon // env.task.hold)  # the last episode is played to its end
    fit = _REPLAY // (4 * (2 * seen + env.actions + 3))  # float32: both observations, reward, flags
    return max(training.environments, min(training.memory, steps, fit))


def _begin_at(model: Any, action: Floats) -> None:
    """Make the actor answer ``action``, clipped to ±``_INNER``, whatever it sees."""
    bias = torch.atanh(torch.from_numpy(action).float().clamp(-_INNER, _INNER))
    actors = [model.actor, getattr(model, "actor_target", None)]
    for actor in filter(None, actors):
        mean = actor.mu if isinstance(actor.mu, torch.nn.Linear) else actor.mu[-2]
        with torch.no_grad():
            mean.weight.mul_(0.01)
            mean.bias.copy_(bias)


def _exported(model: Any, vector: Any) -> Policy:
    """Return the actor of a model of Stable-Baselines3, without the rest."""
    actor = model.actor
    stack = [*actor.latent_pi, actor.mu] if hasattr(actor, "latent_pi") else list(actor.mu)
    linear = [layer for layer in stack if isinstance(layer, torch.nn.Linear)]
    layers = tuple((p.weight.detach().clone(), p.bias.detach().clone()) for p in linear)
    seen = layers[0][0].shape[1]
    mean, deviation = torch.zeros(seen), torch.ones(seen)
    if hasattr(vector, "obs_rms"):
        mean = torch.from_numpy(vector.obs_rms.mean).float()
        deviation = torch.from_numpy(np.sqrt(vector.obs_rms.var + _EPSILON)).float()
    return Policy(layers, mean, deviation)


def _itself(env: FederationEnv) -> FederationEnv:
    return env
