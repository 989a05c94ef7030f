"""The weights of a run after a round: the shared parameters, and what stays with each client."""

from dataclasses import dataclass, field

from torch import Tensor, nn

from fedrobust.clients.turn import Store
from fedrobust.compute.parameters import write
from fedrobust.federation.state import FederationState
from fedrobust.models import LocalTensors, own_of
from fedrobust.typing import Vector


@dataclass(frozen=True)
class Weights:
    """``parameters`` [d], and the clients' own tensors in ``store``, where some stay with each."""

    parameters: Vector
    store: Store = field(default_factory=dict)

    @classmethod
    def of(cls, state: FederationState) -> "Weights":
        """Return the weights in ``state``, which later rounds do not change."""
        own = {client: own_of(kept) for client, kept in state.store.items()}
        return cls(state.parameters.clone(), {client: kept for client, kept in own.items() if kept})

    def into(self, model: nn.Module, own: LocalTensors | None, client: int | None = None) -> None:
        """Put the weights into the workspace ``model``; those of ``client`` where it has its own.

        A client that has not taken part has the initial tensors, and so has None.
        """
        write(model, self.parameters)
        if own is not None:
            own.load(model, None if client is None else self.store.get(client))

    def tensors(self, model: nn.Module, own: LocalTensors | None) -> dict[str, Tensor]:
        """Return what a file of these weights holds; ``model`` is a workspace.

        This is the state of the model. Where tensors stay with each client, it is the shared ones,
        and those of all clients: see :meth:`~fedrobust.models.LocalTensors.stacked`.
        """
        self.into(model, own)
        if own is None:
            return dict(model.state_dict())
        return own.shared(model) | own.stacked(self.store)
