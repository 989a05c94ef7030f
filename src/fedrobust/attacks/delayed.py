"""A wrapper that holds an attack back until a given round."""

from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from pydantic import model_validator

from fedrobust.attacks.attack import Truth, poisons, traits
from fedrobust.attacks.checks import crafted, validate
from fedrobust.config.component import Count, component, name_of
from fedrobust.federation.threat import Knowledge, View
from fedrobust.typing import Updates

if TYPE_CHECKING:
    from fedrobust.attacks import AnyAttack


@component
class Delayed:
    """Δᵢ = own honest update before round ``start``; from then on, what the inner attack sends.

    It makes attacks comparable: one that first has to observe and to learn meets a model that has
    learned as well, while one that acts from round 1 on may keep the model from learning at all.
    Until ``start`` the inner attack is not played: it observes nothing, and a warm-up of its own
    begins there. Rounds are counted from 1.

    Raises: ``ValueError`` for an attack that poisons data, which no round bounds, and for one that
    has a start of its own (``Learned.wait``, ``Distillation.start``).

    Reference: none; the common start with which fedrobust compares fixed and learned attacks.
    """

    attack: "AnyAttack"
    start: Count
    name: Literal["delayed"] = "delayed"

    starts_by: ClassVar[str] = "start"

    @model_validator(mode="after")
    def _fits(self) -> "Delayed":
        if poisons(self.attack):
            raise ValueError(
                f"{name_of(type(self.attack))} poisons the data of every round, which cannot be "
                "delayed; use an attack that only crafts updates"
            )
        inner: Any = self.attack
        while inner is not None:
            own = getattr(type(inner), "starts_by", None)
            if own is not None:
                raise ValueError(f"{name_of(type(inner))} has a start of its own: set its {own}")
            inner = getattr(inner, "attack", None)
        return self

    @property
    def needs(self) -> frozenset[Knowledge]:
        """What the inner attack needs."""
        return traits(self.attack).needs

    @property
    def least(self) -> int:
        """As many as the inner attack needs."""
        return traits(self.attack).least

    @property
    def trains(self) -> bool:
        """Whether there are rounds before it starts, or the inner attack uses honest updates."""
        return self.start > 1 or traits(self.attack).trains

    @property
    def memory(self) -> int:
        """The history that the inner attack wants."""
        return traits(self.attack).memory

    @property
    def begins(self) -> int:
        """``start``."""
        return self.start

    def init(self) -> Any:
        """The inner attack's state."""
        return traits(self.attack).init()

    def report(self, state: Any, truth: Truth) -> dict[str, Any] | None:
        """What the inner attack says of itself."""
        return traits(self.attack).report(state, truth)

    def pictures(self, state: Any, truth: Truth) -> dict[str, Any] | None:
        """What the inner attack has to show."""
        return traits(self.attack).pictures(state, truth)

    def craft(self, state: Any, view: View, rng: torch.Generator) -> tuple[Updates, Any]:
        """Honest updates before ``start``, then the inner attack's rows [m, d]."""
        validate(self, view, rng)
        if view.round < self.start:
            return view.own, state
        return crafted(self.attack, state, view, rng)
