"""Backends: where local training runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from fedrobust.clients.poisoning import Poisons
from fedrobust.compute.randomness import Streams
from fedrobust.federation.columns import RoundColumns
from fedrobust.federation.state import Federation, FederationState
from fedrobust.typing import Updates


@dataclass(frozen=True)
class Received:
    """The rows [n, d] of clients that answered from elsewhere, and the answers that were refused.

    ``refused`` says why, by client. The row of a refused client is NaN, so that the server drops it
    before the rule.
    """

    rows: Updates
    refused: Mapping[int, str]


class Backend(Protocol):
    """A place where local training runs. It replaces nothing else of the round."""

    def local_updates(
        self,
        federation: Federation,
        state: FederationState,
        clients: Sequence[int],
        rng: Streams,
        poison: dict[int, Poisons],
    ) -> Updates | Received | RoundColumns:
        """Return the honest updates of ``clients`` [n, d]; ``state.store`` is updated.

        A backend may keep them elsewhere, and return them as columns.
        """
        ...


@runtime_checkable
class Settles(Protocol):
    """A backend that leaves parts of the state elsewhere."""

    def settle(self, state: FederationState) -> None:
        """Bring these parts into ``state``, so that a checkpoint can hold them."""
        ...


class Local:
    """Local training in this process, on the federation's own device."""

    def local_updates(
        self,
        federation: Federation,
        state: FederationState,
        clients: Sequence[int],
        rng: Streams,
        poison: dict[int, Poisons],
    ) -> Updates:
        """Train one client after another; their inner maximisations run together."""
        return federation.local.updates(
            state.parameters, state.store, clients, rng, state.round + 1, poison
        )


LOCAL = Local()
