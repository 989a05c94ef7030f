"""The base class of wrappers: it forwards everything to the attack that it holds."""

from dataclasses import replace
from typing import Any

from fedrobust.attacks.checks import poisoned
from fedrobust.clients.poisoning import Poisons
from fedrobust.federation.attack import (
    Requirements,
    Truth,
    account,
    initial_state,
    requirements,
)
from fedrobust.typing import Images, Labels


class Wrapper:
    """An attack that holds another one, ``attack``, and behaves like it where it does not differ.

    A wrapper overrides :attr:`requires` where it requires more, and adds ``craft``.
    """

    attack: Any

    @property
    def requires(self) -> Requirements:
        """What the inner attack requires; its start field remains the inner attack's alone."""
        inner = requirements(self.attack)
        return replace(
            inner,
            start_field=None,
            poisons_data=isinstance(self.attack, Poisons) and inner.poisons_data is not False,
        )

    def init(self) -> Any:
        """Return the initial state of the inner attack."""
        return initial_state(self.attack)

    def report(self, state: Any, truth: Truth) -> dict[str, Any] | None:
        """Return the inner attack's report."""
        return account(self.attack, "report", state, truth)

    def pictures(self, state: Any, truth: Truth) -> dict[str, Any] | None:
        """Return the inner attack's pictures."""
        return account(self.attack, "pictures", state, truth)

    def poison(self, x: Images, y: Labels, classes: int) -> tuple[Images, Labels]:
        """Return the batch that the inner attack makes of (x, y), which may be the same batch."""
        return poisoned(self.attack, x, y, classes)
