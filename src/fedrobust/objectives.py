"""What one client minimises: the mean cross-entropy over a batch, part of it perturbed first."""

import math
from collections.abc import Callable, Mapping
from fractions import Fraction as Exact
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol, TypeAlias

import torch
from pydantic import Discriminator, Field, Tag, field_validator
from torch import Tensor, nn

from fedrobust.config import arguments
from fedrobust.config.component import (
    Count,
    Fraction,
    Positive,
    component,
    keyword_component,
    one_of,
)
from fedrobust.data import Split
from fedrobust.perturb import AnyPerturbation
from fedrobust.perturb.inputs import begin, require_draws
from fedrobust.perturb.pgd import Draw
from fedrobust.perturb.wasserstein import Ascent, Price
from fedrobust.typing import Images, Labels


class Objective(Protocol):
    """A client's loss: mean cross-entropy after an inner maximisation over some of the inputs."""

    def perturbed(self, examples: int, round: int) -> int:
        """K: how many of a shuffled batch of ``examples``, its first ones, are perturbed."""
        ...

    def draw(self, x: Images, generator: torch.Generator) -> Tensor | None:
        """The randomness of the inner maximisation for the inputs ``x`` of one client."""
        ...

    def maximise(
        self, model: nn.Module, x: Images, y: Labels, draw: Draw, *, batch: int | None = None
    ) -> Images:
        """The perturbed inputs; ``x`` may hold the inputs of many clients."""
        ...


def _require_counts(examples: int, round: int) -> None:
    """Raises: ``ValueError`` for what are no numbers of examples and of a round."""
    arguments.whole("examples", examples, 0)
    arguments.whole("round", round, 0)


def settled(objective: Objective, train: Split) -> Objective:
    """``objective`` with what it takes from the training data filled in."""
    return objective.settled(train) if hasattr(objective, "settled") else objective


@component
class ERM:
    """Empirical risk minimisation: (1/N) Σᵢ l(xᵢ, yᵢ; θ)."""

    name: Literal["erm"] = "erm"

    def perturbed(self, examples: int, round: int) -> int:
        """None."""
        _require_counts(examples, round)
        return 0

    def draw(self, x: Images, generator: torch.Generator) -> Tensor | None:
        """Nothing is drawn."""
        require_draws(x, generator)
        return None

    def maximise(
        self, model: nn.Module, x: Images, y: Labels, draw: Draw, *, batch: int | None = None
    ) -> Images:
        """The inputs as they are."""
        return begin(model, x, y, draw, batch, box=False)[0]


@component
class Phase:
    """One phase of a schedule: ``value`` up to and with round ``until``; the last has no end."""

    value: Fraction
    until: Count | None = None


@keyword_component
class Adversarial:
    """Federated adversarial training (FAT eq. 1).

    (1/N) [ Σ_{i ≤ K} l(x_advᵢ, yᵢ; θ) + Σ_{i > K} l(xᵢ, yᵢ; θ) ] with K = ⌊ratio · N + ½⌋ examples
    of the shuffled batch perturbed by ``attack``. ``ratio`` is a number, or a schedule by round:
    ``[{value: 0.1, until: 200}, {value: 0.8}]`` means 0.1 in rounds 1 to 200 and 0.8 from 201 on.

    Differences from the paper: eq. 1 writes a sum; its learning rates mean the mean over N.
    """

    ratio: Fraction | tuple[Phase, ...] = Field(default=0.5, union_mode="left_to_right")
    attack: AnyPerturbation
    name: Literal["adversarial"] = "adversarial"

    @field_validator("ratio")
    @classmethod
    def _phases(cls, ratio: float | tuple[Phase, ...]) -> float | tuple[Phase, ...]:
        if isinstance(ratio, tuple):
            ends = [phase.until for phase in ratio]
            bounded = [end for end in ends[:-1] if end is not None]
            rising = all(a < b for a, b in pairwise(bounded))
            if not ends or ends[-1] is not None or len(bounded) < len(ends) - 1 or not rising:
                raise ValueError(
                    "each phase but the last needs an until, rising; the last has none"
                )
        return ratio

    def perturbed(self, examples: int, round: int) -> int:
        """K = ⌊ratio · N + ½⌋, with the ratio as the decimal number that was written."""
        _require_counts(examples, round)
        ratio = Exact(repr(self._ratio(round)))
        return math.floor(ratio * examples + Exact(1, 2))

    def _ratio(self, round: int) -> float:
        if not isinstance(self.ratio, tuple):
            return self.ratio
        return next(p.value for p in self.ratio if p.until is None or round <= p.until)

    def draw(self, x: Images, generator: torch.Generator) -> Tensor | None:
        """The random start of one restart of the attack."""
        return self.attack.draw(x, generator)

    def maximise(
        self, model: nn.Module, x: Images, y: Labels, draw: Draw, *, batch: int | None = None
    ) -> Images:
        """The attack's adversarial examples."""
        return self.attack.maximise(model, x, y, draw, batch=batch)


@component
class Relative:
    """A price in units of the data: γ = ``relative`` · E‖X‖₂ over the training examples."""

    relative: Positive


AnyPrice: TypeAlias = Annotated[
    Annotated[Price, Tag("number")] | Annotated[Relative, Tag("relative")],
    Discriminator(lambda v: "relative" if isinstance(v, Mapping | Relative) else "number"),
]


@component
class WassersteinDRO:
    """Distributionally robust optimisation: (1/N) Σᵢ sup_x [l(x, yᵢ; θ) − γ ‖x − xᵢ‖₂²].

    Its gradient by θ is that of the loss at the maximisers T_γ(θ; xᵢ), which gradient ``ascent``
    finds. ``gamma`` is a number, ``.inf`` for ERM, or ``{relative: 0.04}``: DRFL's 0.04 · E‖X‖₂ on
    MNIST.

    References: DRFL, algorithm 1; Sinha, Namkoong, Duchi, ICLR 2018.

    Differences from the code of Sinha et al.: the cost has no ½, so γ here is half of γ there.
    """

    gamma: AnyPrice
    ascent: Ascent = Ascent()
    name: Literal["wasserstein-dro"] = "wasserstein-dro"

    def perturbed(self, examples: int, round: int) -> int:
        """All of them, but none for an infinite price."""
        _require_counts(examples, round)
        return 0 if self.gamma == math.inf else examples

    def draw(self, x: Images, generator: torch.Generator) -> Tensor | None:
        """Nothing is drawn: the ascent starts at the inputs."""
        require_draws(x, generator)
        return None

    def maximise(
        self, model: nn.Module, x: Images, y: Labels, draw: Draw, *, batch: int | None = None
    ) -> Images:
        """T_γ(θ; x)."""
        return self.ascent.move(model, x, y, self.price, batch)

    @property
    def price(self) -> float:
        """γ as a number. Raises: ``ValueError`` where it is relative to data not yet seen."""
        if isinstance(self.gamma, Relative):
            raise ValueError("gamma is relative to the data: use settled(train) first")
        return self.gamma

    def settled(self, train: Split) -> "WassersteinDRO":
        """The objective with γ as a number, for the training examples ``train``."""
        if not isinstance(self.gamma, Relative):
            return self
        norms = [
            train.images(part).flatten(1).double().norm(dim=1)
            for part in torch.split(torch.arange(len(train)), 8192)
        ]
        return WassersteinDRO(self.gamma.relative * float(torch.cat(norms).mean()), self.ascent)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a report must say."""
        return (f"the price of a unit of squared distance, gamma, is {self.price:.6g}",)


OBJECTIVES: tuple[type, ...] = (ERM, Adversarial, WassersteinDRO)
if TYPE_CHECKING:
    AnyObjective: TypeAlias = Objective
else:
    AnyObjective: Any = one_of(
        "objective",
        *OBJECTIVES,
        has=("perturbed", "draw", "maximise"),
        may_hold={"settled": Callable[..., Any], "notes": tuple[str, ...]},
    )
