"""The weights of a run after a round: the shared parameters, and what stays with each client."""

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from fedrobust.clients.turn import Store
from fedrobust.compute.parameters import write
from fedrobust.config.arguments import told
from fedrobust.federation.elsewhere import here
from fedrobust.federation.state import FederationState
from fedrobust.models import LocalTensors, own_of
from fedrobust.records.reading import broken, tensors_of, unlike
from fedrobust.typing import Vector

_EACH = "clients/"
"""The names of the clients' own tensors in a file begin with this."""


@dataclass(frozen=True)
class Weights:
    """``parameters`` [d], and the clients' own tensors in ``store``, where some stay with each."""

    parameters: Vector
    store: Store = field(default_factory=dict)

    @classmethod
    def of(cls, state: FederationState) -> "Weights":
        """Return the weights in ``state``, which later rounds do not change."""
        own = {client: own_of(kept) for client, kept in here(state.store).items()}
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


def fill_of_client(model: nn.Module, own: LocalTensors, path: Path, client: int) -> None:
    """Load the shared tensors of a file, and those of one client, into ``model``.

    A client that has not taken part gets the initial ones. Raises: ``RecordError``.
    """
    found = tensors_of(path)
    each = {k.removeprefix(_EACH): found.pop(k) for k in list(found) if k.startswith(_EACH)}
    ids = found.pop("clients", torch.empty(0, dtype=torch.long))
    if ids.ndim != 1 or ids.dtype != torch.long or len(set(ids.tolist())) < len(ids):
        raise broken(path, f"its clients are {told(ids)}, not a list of ids")
    clients = ids.tolist()
    own.load(model)
    wanted = own.shared(model)
    rows = {name: v.expand(len(clients), *v.shape) for name, v in own.initial.items()}
    if why := unlike(found, wanted) or unlike(each, rows if clients else {}):
        raise broken(path, f"it holds the weights of another network: {why}")
    place = dict(model.named_parameters()) | dict(model.named_buffers())
    with torch.no_grad():
        for name, value in found.items():
            wanted[name].copy_(value)
        if client in clients:
            for name, value in each.items():
                place[name].copy_(value[clients.index(client)])
