"""The settings of the training of a policy."""

from typing import Annotated, Literal

from annotated_types import Gt, Le
from pydantic import Strict, model_validator

from fedrobust.config.component import component
from fedrobust.config.scalars import Count, Flag, NonNegative, Positive, Size

Discount = Annotated[float, Strict(), Gt(0), Le(1)]


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
    same each time, and the policy with the best mean is kept; with 0 the last one is kept. The
    replay memory holds every step, up to ``memory`` steps and to 1 GiB. Several ``environments``
    take turns in one process.

    An episode ends by truncation, so values are those of an attack that goes on, and ``discount``
    should stay below 1. The defaults worked well here. :data:`PAPER` holds the settings of DRFL:
    DDPG with the default settings of Stable-Baselines3.

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
    train_every: Count = 4
    gradient_steps: Count = 2
    normalise: Flag = True
    check_every: Size = 1000
    check_episodes: Count = 10
    environments: Count = 1

    @model_validator(mode="after")
    def _begins(self) -> "Training":
        if self.learns and self.steps <= self.learning_starts:
            raise ValueError(
                f"steps = {self.steps} end before the first update, after learning_starts = "
                f"{self.learning_starts}: nothing would be learned"
            )
        return self

    @property
    def learns(self) -> bool:
        """Whether there is a policy to train."""
        return self.algorithm in ("ddpg", "td3", "sac")


PAPER = Training(
    algorithm="ddpg",
    start="random",
    hidden=(400, 300),
    learning_starts=100,
    discount=0.99,
    noise=0.0,
    train_every=1,
    gradient_steps=1,
    normalise=False,
    check_every=0,
)
"""DRFL §3: DDPG with every default of Stable-Baselines3 2.9, which has no exploration noise."""
