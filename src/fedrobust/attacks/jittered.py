"""A wrapper that sets colluders' rows apart."""

from typing import TYPE_CHECKING, Any, Literal

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
class Jittered:
    """Δᵢ ← Δᵢ + radius · ‖Δᵢ‖₂ · uᵢ, uᵢ uniform on the unit sphere, drawn for each malicious row.

    Colluders who send one and the same vector are found by looking for equal rows. ``radius`` is a
    share of the row's own length; a row of zeros stays one. Everything else is the inner attack's,
    its poisoning too.

    Reference: Fang et al., "Local model poisoning attacks to Byzantine-robust federated learning",
    USENIX Security 2020, whose other crafted models are within ε of the first. Differences from the
    paper: every row is moved; by a share of its length and no absolute ε; to the sphere and not
    into the ball, where in many dimensions nearly all of the ball lies.
    """

    attack: "AnyAttack"
    radius: Positive
    name: Literal["jittered"] = "jittered"

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
        """Whether the inner attack uses honest updates."""
        return traits(self.attack).trains

    @property
    def memory(self) -> int:
        """The history that the inner attack wants."""
        return traits(self.attack).memory

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
        """The inner attack's rows, each moved on its own [m, d]."""
        validate(self, view, rng)
        rows, state = crafted(self.attack, state, view, rng)
        if not fits(rows, view):
            return rows, state
        rows = numbers(rows, view)
        noise = torch.randn(rows.shape, generator=rng, dtype=rows.dtype).to(rows.device)
        reach = lengths(rows) / lengths(noise)
        return rows + (self.radius * reach * noise).to(rows), state
