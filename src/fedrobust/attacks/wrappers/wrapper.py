"""What every wrapper hands on to the attack that it holds."""

from dataclasses import replace
from typing import Any

from fedrobust.attacks.checks import poisoned
from fedrobust.federation.attack import (
    Requirements,
    Truth,
    account,
    initial_state,
    poisons,
    requirements,
)
from fedrobust.typing import Images, Labels


class Wrapper:
    """An attack that holds another one, ``attack``, and is like it unless it says otherwise.

    A wrapper overrides :attr:`requires` where it requires more, and adds ``craft``.
    """

    attack: Any

    @property
    def requires(self) -> Requirements:
        """What the inner attack requires; a start of its own is the inner attack's alone."""
        inner = requirements(self.attack)
        return replace(inner, start_field=None, poisons_data=poisons(self.attack))

    def init(self) -> Any:
        """The inner attack's state."""
        return initial_state(self.attack)

    def report(self, state: Any, truth: Truth) -> dict[str, Any] | None:
        """What the inner attack says of itself."""
        return account(self.attack, "report", state, truth)

    def pictures(self, state: Any, truth: Truth) -> dict[str, Any] | None:
        """What the inner attack shows of itself."""
        return account(self.attack, "pictures", state, truth)

    def poison(self, x: Images, y: Labels, classes: int) -> tuple[Images, Labels]:
        """The batch that the inner attack makes of (x, y); the same batch where it poisons none."""
        return poisoned(self.attack, x, y, classes)
