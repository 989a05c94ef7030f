"""Where local training runs."""

from collections.abc import Sequence
from typing import Protocol

from fedrobust.clients.poisoning import Poisons
from fedrobust.compute.randomness import Streams
from fedrobust.federation.state import Federation, FederationState
from fedrobust.typing import Updates


class Backend(Protocol):
    """Where local training runs. It replaces nothing else of the round."""

    def local_updates(
        self,
        federation: Federation,
        state: FederationState,
        clients: Sequence[int],
        rng: Streams,
        poison: dict[int, Poisons],
    ) -> Updates:
        """The honest updates of ``clients`` [n, d]; ``state.store`` is updated."""
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
        """One client after the other, their inner maximisations together."""
        return federation.local.updates(
            state.parameters, state.store, clients, rng, state.round + 1, poison
        )


LOCAL = Local()
