"""A wrapper that delays an attack until a given round."""

from dataclasses import replace
from typing import Any, Literal

import torch
from pydantic import model_validator

from fedrobust.attacks.checks import validate
from fedrobust.attacks.wrappers.wrapper import Wrapper
from fedrobust.config.component import component
from fedrobust.config.kind import name_of
from fedrobust.config.own import asking
from fedrobust.config.scalars import Count
from fedrobust.federation.attack import (
    AnyAttack,
    Requirements,
    poisons,
    requirements,
)
from fedrobust.federation.malicious_rows import crafted
from fedrobust.federation.one_call import on_rows
from fedrobust.federation.threat import View
from fedrobust.typing import Updates


@component
class Delayed(Wrapper):
    """Δᵢ = own honest update before round ``start``; from then on, the inner attack's row.

    The delay makes attacks comparable. An attack that first has to observe and to learn meets a
    model that has learned as well, while an attack from round 1 on may prevent the model from
    learning at all. Until ``start`` the inner attack is not called: it observes nothing, and its
    own warm-up begins at ``start``. Rounds are counted from 1.

    Raises: ``ValueError`` for an attack that poisons data, because it does so in every round, and
    for an attack that has its own start (``Learned.wait``, ``Distillation.start``).

    Reference: none. It is the common start with which fedrobust compares fixed and learned attacks.

    Cost: honest training, and from ``start`` on the cost of the inner attack.

    Example: ``{name: delayed, start: 451, attack: {name: shrink, scale: 10.0}}``
    """

    attack: AnyAttack
    start: Count
    name: Literal["delayed"] = "delayed"
    __call__ = on_rows

    @model_validator(mode="after")
    def _fits(self) -> "Delayed":
        with asking("the attack, asked what it needs,"):
            self._require_no_start()
        return self

    def _require_no_start(self) -> None:
        if poisons(self.attack):
            raise ValueError(
                f"{name_of(type(self.attack))} poisons the data of every round, which cannot be "
                "delayed; use an attack that only crafts updates"
            )
        inner: Any = self.attack
        while inner is not None:
            if own := requirements(inner).start_field:
                raise ValueError(f"{name_of(type(inner))} has its own start: set its {own}")
            inner = getattr(inner, "attack", None)

    @property
    def requires(self) -> Requirements:
        """What the inner attack requires, and honest updates where ``start`` is above 1."""
        inner = super().requires
        return replace(
            inner,
            uses_honest_updates=self.start > 1 or inner.uses_honest_updates,
            first_round=self.start,
            latest_start=None,
            start_field="start",
        )

    def craft(self, state: Any, view: View, rng: torch.Generator) -> tuple[Updates, Any]:
        """Return honest updates before ``start``, then the inner attack's rows [m, d]."""
        validate(self, view, rng)
        if view.round < self.start:
            return view.own, state
        return crafted(self.attack, state, view, rng)
