"""All settings of a learned attack."""

import os
from collections.abc import Mapping
from typing import Annotated, Literal, TypeAlias

from annotated_types import Gt
from pydantic import AllowInfNan, Discriminator, Strict, Tag, model_validator

from fedrobust.attacks.learned.encoding import AnyEncoding, Basis
from fedrobust.attacks.learned.inversion import Inversion
from fedrobust.attacks.learned.training import Training
from fedrobust.config.component import component, keyword_component
from fedrobust.config.scalars import Count, NonNegative, PathText, Size
from fedrobust.perturb.wasserstein import Ascent


@component
class Epochs:
    """A time in ``epochs``: one is the rounds in which a client uses each of its examples once."""

    epochs: Count

    def rounds(self, examples: int, each: int) -> int:
        """Return the rounds, for a client that uses ``each`` of its ``examples`` in one round.

        Where a round is less than an epoch, each epoch has whole rounds, as a pass in batches has.
        """
        each = max(1, each)
        if each < examples:
            return self.epochs * -(-examples // each)
        return max(1, -(-self.epochs * examples // each))


Duration: TypeAlias = Annotated[
    Annotated[Size, Tag("number")] | Annotated[Epochs, Tag("epochs")],
    Discriminator(lambda v: "epochs" if isinstance(v, Mapping | Epochs) else "number"),
]
"""A number of rounds, or ``{epochs: 3}``."""
Horizon: TypeAlias = Annotated[
    Annotated[Count, Tag("number")] | Annotated[Literal["rest"], Tag("rest")],
    Discriminator(lambda v: "rest" if isinstance(v, str) else "number"),
]
"""A number of rounds, or ``rest``: all that are left of the run."""


@keyword_component
class Settings:
    """The settings of :class:`~fedrobust.attacks.learned.attack.Learned`.

    Raises: ``ValueError`` for settings that do not fit each other, and for a ``policy`` that is not
    the path of a file.
    """

    wait: Size = 0
    observe: Duration = 20
    threshold: NonNegative = 0.005
    inversion: Inversion | None = Inversion()
    data: Literal["learned", "own", "both"] = "both"
    encoding: AnyEncoding = Basis()
    training: Training = Training()
    reward: Literal["robustness", "worst-case-loss", "loss", "error"] = "robustness"
    reward_unit: Literal["start", "absolute"] = "start"
    gamma: Annotated[float, Strict(), AllowInfNan(False), Gt(0)] | None = None
    ascent: Ascent = Ascent(steps=15, rule="decaying")
    samples: Count = 200
    precision: Literal["float32", "bfloat16"] = "float32"
    horizon: Horizon = 300
    hold: Count = 10
    relearn: Size = 0
    observe_again: Size = 0
    policy: PathText | None = None

    @model_validator(mode="after")
    def _fits(self) -> "Settings":
        if self.horizon != "rest" and self.hold > self.horizon:
            raise ValueError(f"hold = {self.hold} is longer than horizon = {self.horizon}")
        if self.precision == "bfloat16" and self.ascent.searches:
            raise ValueError("ascent: one that searches its step needs precision float32")
        if self.reward == "error" and self.training.algorithm == "gradient":
            raise ValueError(
                "reward: error has no gradient for training.algorithm: gradient to follow: set "
                "reward: loss, or algorithm: cross-entropy"
            )
        self._observes_again()
        if self.data == "learned" and self.inversion is None and self.policy is None:
            raise ValueError("data: learned needs an inversion: set data: own, or leave it out")
        if self.policy is not None:
            from fedrobust.attacks.learned.policy_files import opened

            if not os.path.isfile(self.policy):
                is_there = "no file, but a folder" if os.path.isdir(self.policy) else "no file"
                raise ValueError(
                    f"policy: {self.policy} is {is_there}; fedrobust attack learn writes one"
                )
            with opened(self.policy):
                pass
        return self

    def _observes_again(self) -> None:
        """Refuse an ``observe_again`` without an effect. Raises: ``ValueError``."""
        if not self.observe_again:
            return
        if self.observe_again >= self.relearn:
            raise ValueError(
                f"observe_again = {self.observe_again} rounds before each new training leave none "
                f"to act in: set relearn above it; it is {self.relearn}"
            )
        if self.inversion is None or self.data == "own":
            raise ValueError(
                "observe_again: what is observed would not be used: set an inversion, and data: "
                "both or learned"
            )
