"""A wrapper that keeps an attack within a norm."""

from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch

from fedrobust.attacks.attack import Truth, poisons, traits
from fedrobust.attacks.checks import crafted, fits, numbers, poisoned, validate
from fedrobust.attacks.moments import lengths
from fedrobust.config.component import Positive, component
from fedrobust.federation.threat import Knowledge, View
from fedrobust.typing import Images, Labels, Updates

if TYPE_CHECKING:
    from fedrobust.attacks import AnyAttack


@component
class Budgeted:
    """Δᵢ ← Δᵢ · min(1, budget · ‖own honest update i‖₂ / ‖Δᵢ‖₂).

    It makes attacks comparable: what some do by sheer length is taken from them. A row that is not
    finite, or of another shape, is sent as it is, and the server drops it; one whose honest update
    is not finite has no budget. Everything else is the inner attack's, its poisoning too; the
    honest updates are trained in any case.

    Reference: none; the common budget in which fedrobust compares fixed and learned attacks.
    """

    attack: "AnyAttack"
    budget: Positive
    name: Literal["budgeted"] = "budgeted"

    trains: ClassVar[bool] = True

    @property
    def needs(self) -> frozenset[Knowledge]:
        """What the inner attack needs."""
        return traits(self.attack).needs

    @property
    def least(self) -> int:
        """As many as the inner attack needs."""
        return traits(self.attack).least

    @property
    def memory(self) -> int:
        """The history that the inner attack wants."""
        return traits(self.attack).memory

    @property
    def begins(self) -> int:
        """The round in which the inner attack begins; a budget below 1 cuts honest rows as well."""
        return traits(self.attack).begins if self.budget >= 1 else 1

    def init(self) -> Any:
        """The inner attack's state."""
        return traits(self.attack).init()

    def report(self, state: Any, truth: Truth) -> dict[str, Any] | None:
        """What the inner attack says of itself."""
        return traits(self.attack).report(state, truth)

    def pictures(self, state: Any, truth: Truth) -> dict[str, Any] | None:
        """What the inner attack has to show."""
        return traits(self.attack).pictures(state, truth)

    def poison(self, x: Images, y: Labels, classes: int) -> tuple[Images, Labels]:
        """The inner attack's poisoning; the batch as it is where it does none."""
        return poisoned(self.attack, x, y, classes)

    @property
    def poisons(self) -> bool:
        """Whether the inner attack poisons."""
        return poisons(self.attack)

    def craft(self, state: Any, view: View, rng: torch.Generator) -> tuple[Updates, Any]:
        """The inner attack's rows, those that are too long cut to the budget [m, d]."""
        validate(self, view, rng)
        rows, state = crafted(self.attack, state, view, rng)
        if not fits(rows, view):
            return rows, state
        rows = numbers(rows, view)
        limit, length = self.budget * lengths(view.own), lengths(rows)
        too_long = length.isfinite() & (length > limit)
        return torch.where(too_long, (rows * (limit / length)).to(rows), rows), state
