"""A wrapper that makes colluders' rows different from each other."""

from dataclasses import replace
from typing import Any, Literal

import torch

from fedrobust.attacks.checks import fits, numbers, validate
from fedrobust.attacks.moments import lengths
from fedrobust.attacks.wrappers.wrapper import Wrapper
from fedrobust.config.component import component
from fedrobust.config.scalars import Positive
from fedrobust.federation.attack import (
    AnyAttack,
    Requirements,
)
from fedrobust.federation.malicious_rows import crafted
from fedrobust.federation.one_call import on_rows
from fedrobust.federation.threat import View
from fedrobust.typing import Updates


@component
class Jittered(Wrapper):
    """Δᵢ ← Δᵢ + radius · ‖Δᵢ‖₂ · uᵢ, uᵢ uniform on the unit sphere, drawn for each malicious row.

    Colluders that all send the same vector can be found by a search for equal rows. ``radius`` is a
    share of the row's own length; a zero row stays zero. Everything else is the inner attack's,
    including its poisoning.

    Reference: Fang et al., "Local model poisoning attacks to Byzantine-robust federated learning",
    USENIX Security 2020, in which the other crafted models lie within ε of the first. Differences
    from the paper: every row is moved; the distance is a share of the row's length, not an absolute
    ε; the row is moved to the sphere and not into the ball, because in many dimensions nearly all
    of the ball lies near the sphere.

    Cost: the cost of the inner attack, and O(m·d).

    Example: ``{name: jittered, radius: 0.1, attack: {name: inner-product, epsilon: 10.0}}``
    """

    attack: AnyAttack
    radius: Positive
    name: Literal["jittered"] = "jittered"
    __call__ = on_rows

    @property
    def requires(self) -> Requirements:
        """What the inner attack requires; rows sent before it acts are moved too."""
        return replace(super().requires, first_round=1, latest_start=None)

    def craft(self, state: Any, view: View, rng: torch.Generator) -> tuple[Updates, Any]:
        """Return the inner attack's rows, each moved separately [m, d]."""
        validate(self, view, rng)
        rows, state = crafted(self.attack, state, view, rng)
        if not fits(rows, view):
            return rows, state
        rows = numbers(rows, view)
        noise = torch.randn(rows.shape, generator=rng, dtype=rows.dtype).to(rows.device)
        reach = lengths(rows) / lengths(noise)
        return rows + (self.radius * reach * noise).to(rows), state
