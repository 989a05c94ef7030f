"""The attack that does nothing: it sends zero updates."""

from typing import ClassVar, Literal

import torch

from fedrobust.attacks.checks import validate
from fedrobust.config.component import component
from fedrobust.federation.attack import Requirements
from fedrobust.federation.one_call import on_rows
from fedrobust.federation.threat import View
from fedrobust.typing import Updates


@component
class ZeroUpdate:
    """Δᵢ = 0: the client returns the broadcast model unchanged.

    Under the mean it slows training by the share of malicious clients. A rule that selects the row
    nearest to the others may well select the zero row, because it lies between honest rows that
    disagree. It is a baseline for every attack that claims more.

    Cost: nothing.

    Example: ``{name: zero-update}``
    """

    name: Literal["zero-update"] = "zero-update"
    __call__ = on_rows

    requires: ClassVar[Requirements] = Requirements(uses_honest_updates=False)

    def init(self) -> None:
        """Return None: the attack keeps no state."""

    def craft(self, state: None, view: View, rng: torch.Generator) -> tuple[Updates, None]:
        """Return zeros [m, d]."""
        validate(self, view, rng)
        return view.parameters.new_zeros(view.rows, len(view.parameters)), None
