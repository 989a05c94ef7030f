"""The settings of the training of a policy."""

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
class Training:
    """The training of a policy by Stable-Baselines3, or the search for one of its baselines.

    Three algorithms train no policy; they are the baselines of a learned one. ``constant``: the one
    action that does the most harm when it is played throughout, of zero and ± .03, .1, .3 and 1 on
    each axis and, for up to four axes, every mix of their signs. ``cross-entropy`` and
    ``gradient``: a plan of five actions for the horizon, which ignores the observations; its last
    action is kept on. Of the other fields only ``steps`` has an effect on them, as the budget of
    the search.

    With ``start: constant`` the best constant action is searched before the training, in a quarter
    as many steps. It is the first policy to be checked. The actor begins at this action, or at the
    nearest within ±0.6, where its tanh has a slope.

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

    algorithm: Literal["ddpg", "td3", "sac", "constant", "cross-entropy", "gradient"] = "td3"
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
        """Whether there is a policy to train."""
        return self.algorithm in ("ddpg", "td3", "sac")
