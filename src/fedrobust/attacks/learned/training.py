"""The settings of the training of a policy."""

import math
from typing import Annotated, Literal, TypeAlias

from annotated_types import Ge, Gt, Le
from pydantic import Discriminator, Strict, Tag, model_validator

from fedrobust.config.component import component
from fedrobust.config.scalars import Count, Flag, NonNegative, Positive, Size

Discount = Annotated[float, Strict(), Gt(0), Le(1)]
Updates: TypeAlias = Annotated[int, Strict(), Ge(-1)]
"""A number of gradient steps; -1 stands for as many as steps were played since the last ones."""
Frequency: TypeAlias = Annotated[
    Annotated[Count, Tag("number")] | Annotated[Literal["episode"], Tag("episode")],
    Discriminator(lambda v: "episode" if isinstance(v, str) else "number"),
]
"""A number of steps, or ``episode``."""


@component
class Evolution:
    """The settings of ``algorithm: evolution``: the policy, and how its candidates are compared.

    The policy is linear in the observation, or has one layer of ``hidden`` units. ``deviation`` is
    the first standard deviation of its weights. A generation has ``population`` candidates, by
    default 4 + ⌊3 ln n⌋ for n weights. All of them play the same ``episodes``, in each generation
    new ones.

    With ``stages``, the budget is cut into equal parts. The last part plays whole episodes, and
    each part before it beginnings half as long as those of the next. So a small budget for long
    episodes has more generations.
    """

    hidden: Size = 0
    population: Annotated[int, Strict(), Ge(4)] | None = None
    episodes: Count = 1
    deviation: Positive = 0.1
    stages: Annotated[int, Strict(), Ge(1), Le(20)] = 1


@component
class Training:
    """The training of a policy by Stable-Baselines3 or an evolution strategy, or a baseline of it.

    ``evolution`` searches the weights of a small policy by a separable CMA-ES (the package
    ``cmaes``) on the return of whole episodes. It has neither a discount nor noise on actions. Of
    the other fields only ``start``, ``steps`` and ``evolution`` have an effect on it. ``steps`` is
    the budget of the whole search; with ``start: constant`` a quarter of it finds this action.

    Three algorithms train no policy; they are the baselines of a learned one. ``constant``: the one
    action that does the most harm when it is played throughout, of zero and ± .03, .1, .3 and 1 on
    each axis and, for up to four axes, every mix of their signs. ``cross-entropy`` and
    ``gradient``: a plan of five actions for the horizon, which ignores the observations; its last
    action is kept on. Of the other fields only ``steps`` has an effect on them, as the budget of
    the search.

    With ``start: constant`` the best constant action is searched before the training, in a quarter
    as many steps. It is the first policy to be checked. The actor of Stable-Baselines3 begins at
    this action, or at the nearest within ±0.6, where its tanh has a slope.

    ``noise`` is the standard deviation of Gaussian exploration noise on the actions (SAC explores
    by itself). ``normalise`` divides observations and rewards by their running deviation. Every
    ``check_every`` steps the policy plays ``check_episodes`` of the simulation without noise, the
    same each time; with 0 it is not checked. The policy with the best mean is kept, or, with
    ``keep: last``, the last one. With ``patience`` the training ends after so many checks without a
    new best.

    Every ``train_every`` steps, or after each ``episode``, the networks make ``gradient_steps``
    steps; -1 stands for as many as were played. With ``train_every: episode`` the last episode is
    played to its end, and policies are checked between episodes. The replay memory holds every
    step, up to ``memory`` steps and to 1 GiB. Several ``environments`` take turns in one process.

    An episode of a fixed ``horizon`` ends by truncation, so values are those of an attack that goes
    on, and ``discount`` should stay below 1. With ``horizon: rest`` it ends for good. The defaults
    worked well here. :data:`~fedrobust.attacks.learned.paper.PAPER` holds the settings of DRFL:
    DDPG with the default settings that Stable-Baselines3 had then.

    Difference from the paper: its text argues with an undiscounted sum; the default here is 0.99,
    the discount of its library.
    """

    algorithm: Literal[
        "ddpg", "td3", "sac", "evolution", "constant", "cross-entropy", "gradient"
    ] = "td3"
    start: Literal["random", "constant"] = "constant"
    steps: Count = 5000
    hidden: tuple[Count, ...] = (64, 64)
    learning_rate: Positive = 1e-3
    batch_size: Count = 256
    memory: Count = 1_000_000
    learning_starts: Size = 500
    polyak: Discount = 0.005
    discount: Discount = 0.99
    noise: NonNegative = 0.2
    train_every: Frequency = 4
    gradient_steps: Updates = 2
    normalise: Flag = True
    check_every: Size = 1000
    check_episodes: Count = 10
    keep: Literal["best", "last"] = "best"
    patience: Size = 0
    environments: Count = 1
    evolution: Evolution = Evolution()

    @model_validator(mode="after")
    def _begins(self) -> "Training":
        if self.learns and self.steps <= self.learning_starts:
            raise ValueError(
                f"steps = {self.steps} end before the first update, after learning_starts = "
                f"{self.learning_starts}: nothing would be learned"
            )
        return self

    @model_validator(mode="after")
    def _fits(self) -> "Training":
        if self.gradient_steps == 0:
            raise ValueError("gradient_steps must be at least 1, or -1: as many as steps played")
        if self.train_every == "episode" and self.environments > 1:
            raise ValueError(
                f"train_every: episode needs one environment; got environments = "
                f"{self.environments}, whose episodes end at different times"
            )
        if self.patience and not self.check_every:
            raise ValueError("patience counts checks: set check_every too")
        return self

    @property
    def learns(self) -> bool:
        """Whether a policy is trained by Stable-Baselines3."""
        return self.algorithm in ("ddpg", "td3", "sac")

    @property
    def frequency(self) -> tuple[int | tuple[int, str], int]:
        """After how many turns Stable-Baselines3 learns, and by how many gradient steps.

        In a turn each environment plays a step. So the networks learn after the first step that
        ends both a turn and a ``train_every``, by all gradient steps that are due by then.
        """
        if self.train_every == "episode":
            return (1, "episode"), self.gradient_steps
        steps, due = math.lcm(self.train_every, self.environments), self.gradient_steps
        turns = steps // self.environments
        return turns, due * (steps // self.train_every) if due > 0 else due

    @property
    def package(self) -> str | None:
        """The package that the algorithm comes from; None for those of this library."""
        if self.learns:
            return "stable_baselines3"
        return "cmaes" if self.algorithm == "evolution" else None
