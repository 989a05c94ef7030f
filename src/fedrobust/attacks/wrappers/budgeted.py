"""A wrapper that keeps an attack within a norm."""

from dataclasses import replace
from typing import Any, Literal

import torch
from pydantic import model_validator

from fedrobust.attacks.checks import fits, numbers, validate
from fedrobust.attacks.moments import lengths
from fedrobust.attacks.wrappers.wrapper import Wrapper
from fedrobust.config.component import component
from fedrobust.config.kind import name_of
from fedrobust.config.own import asking
from fedrobust.config.scalars import Positive
from fedrobust.federation.attack import AnyAttack, Requirements, poisons, requirements
from fedrobust.federation.malicious_rows import crafted
from fedrobust.federation.one_call import on_rows
from fedrobust.federation.threat import View
from fedrobust.typing import Updates


@component
class Budgeted(Wrapper):
    """Δᵢ ← Δᵢ · min(1, budget · ‖own honest update i‖₂ / ‖Δᵢ‖₂).

    The budget makes attacks comparable: no attack can win by its norm alone. A row that is not
    finite, or has another shape, is sent as it is, and the server drops it. A row whose honest
    update is not finite has no budget. Everything else is the inner attack's. The honest updates
    are always trained.

    Raises: ``ValueError`` for an attack that poisons data: its clients train on poisoned data, so
    that no honest update says what the budget is. And for one that simulates the federation
    (``Learned``), since its simulation has no such budget: its ``encoding`` has one.

    Reference: none. It is the common budget with which fedrobust compares fixed and learned
    attacks.

    Cost: the cost of the inner attack, and O(m·d).

    Example: ``{name: budgeted, budget: 10.0, attack: {name: inner-product, epsilon: 30.0}}``
    """

    attack: AnyAttack
    budget: Positive
    name: Literal["budgeted"] = "budgeted"
    __call__ = on_rows

    @model_validator(mode="after")
    def _fits(self) -> "Budgeted":
        with asking("the attack, asked what it needs,"):
            if poisons(self.attack):
                raise ValueError(
                    f"{name_of(type(self.attack))} poisons the data that its clients train on, so "
                    "that no honest update gives a budget; use an attack that only crafts updates"
                )
            if requirements(self.attack).simulates:
                raise ValueError(
                    f"{name_of(type(self.attack))} simulates the federation without this budget; "
                    "give the encoding of the learned attack a budget instead"
                )
        return self

    @property
    def requires(self) -> Requirements:
        """What the inner attack requires, and honest updates, which define the budget.

        A budget below 1 cuts honest rows as well, so this wrapper then acts from round 1 on.
        """
        inner = super().requires
        if self.budget < 1:
            inner = replace(inner, first_round=1, latest_start=None)
        return replace(inner, uses_honest_updates=True)

    def craft(self, state: Any, view: View, rng: torch.Generator) -> tuple[Updates, Any]:
        """Return the inner attack's rows; rows that are too long are cut to the budget [m, d]."""
        validate(self, view, rng)
        rows, state = crafted(self.attack, state, view, rng)
        if not fits(rows, view):
            return rows, state
        rows = numbers(rows, view)
        limit, length = self.budget * lengths(view.own), lengths(rows)
        too_long = length.isfinite() & (length > limit)
        return torch.where(too_long, (rows * (limit / length)).to(rows), rows), state
