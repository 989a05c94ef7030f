"""The tensors of a network that stay with each client, and are not aggregated."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fedrobust.config.arguments import told
from fedrobust.typing import Mask

Kept = Mapping[str, Tensor]
"""What is kept of one client from round to round: the state of its optimiser, and its tensors."""

_MARK = "batch_norm."
"""The names of a client's tensors begin with this, beside those of its optimiser's state."""


@dataclass(frozen=True)
class LocalTensors:
    """The tensors of a network that stay with each client, by their names in the network.

    ``initial`` has the values of a client that has not taken part yet. Those in ``parameters`` are
    trained by each client. In the network they require no gradient, so that flat vectors, updates
    and rules have the shared parameters only; :meth:`training` changes this while a client trains.
    The others are buffers, which a forward pass in training changes.
    """

    initial: dict[str, Tensor]
    parameters: frozenset[str]

    @classmethod
    def of(cls, model: nn.Module, layers: Iterable[str], *, affine: bool) -> "LocalTensors":
        """Return the buffers of ``layers``, and with ``affine`` the parameters that are trained."""
        within = tuple(f"{name}." if name else "" for name in layers)
        held = dict(model.named_buffers())
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad and affine}
        own = {name: p for name, p in trained.items() if name.startswith(within)}
        for parameter in own.values():
            parameter.requires_grad_(False)
        found = own | {name: value for name, value in held.items() if name.startswith(within)}
        return cls({n: value.detach().clone() for n, value in found.items()}, frozenset(own))

    def to(self, device: torch.device) -> "LocalTensors":
        """Return them with their initial values on ``device``."""
        moved = {name: value.to(device) for name, value in self.initial.items()}
        return LocalTensors(moved, self.parameters)

    def load(self, model: nn.Module, kept: Kept | None = None) -> None:
        """Copy a client's tensors into ``model``; the initial ones for a client without any."""
        place, kept = dict(_tensors(model)), kept or {}
        with torch.no_grad():
            for name, value in self.initial.items():
                place[name].copy_(kept.get(_MARK + name, value))

    def read(self, model: nn.Module) -> dict[str, Tensor]:
        """Return copies of the client's tensors in ``model``, as they are kept."""
        place = dict(_tensors(model))
        return {_MARK + name: place[name].detach().clone() for name in self.initial}

    @contextmanager
    def training(self, model: nn.Module) -> Iterator[Mask]:
        """Inside this context ``model`` also trains the client's parameters.

        Yields which entries of the flat vector of all trained parameters are shared.
        """
        named = dict(model.named_parameters())
        try:
            for name in self.parameters:
                named[name].requires_grad_(True)
            pieces = [(n not in self.parameters, p) for n, p in named.items() if p.requires_grad]
            device = pieces[0][1].device
            sizes = torch.tensor([p.numel() for _, p in pieces], device=device)
            shared = torch.tensor([share for share, _ in pieces], device=device)
            yield shared.repeat_interleave(sizes)
        finally:
            for name in self.parameters:
                named[name].requires_grad_(False)

    def misfit(self, store: Mapping[int, Kept]) -> str:
        """Return what is wrong with the tensors of a client in ``store``; empty if nothing is."""
        for client, kept in store.items():
            own = {name.removeprefix(_MARK): kept[name] for name in kept if name.startswith(_MARK)}
            if own and own.keys() != self.initial.keys():
                return f"the tensors of client {client} have other names than the model's"
            for name, value in own.items():
                wanted = self.initial[name]
                if value.shape != wanted.shape or value.dtype != wanted.dtype:
                    return f"{name} of client {client} is {told(value)}, not {told(wanted)}"
        return ""

    def shared(self, model: nn.Module) -> dict[str, Tensor]:
        """Return the state of ``model`` without the tensors that stay with each client.

        A layer that is in two places has two names there.
        """
        place = dict(_tensors(model))
        own = {place[name].data_ptr() for name in self.initial}
        return {n: value for n, value in model.state_dict().items() if value.data_ptr() not in own}

    def stacked(self, store: Mapping[int, Kept]) -> dict[str, Tensor]:
        """Return the tensors of all clients that have taken part, as a file holds them.

        ``clients`` has their ids [n], and ``clients/NAME`` their tensors [n, ...] in this order.
        """
        clients = sorted(client for client, kept in store.items() if own_of(kept))
        if not clients:
            return {}
        found = {"clients": torch.tensor(clients)}
        for name in self.initial:
            found[f"clients/{name}"] = torch.stack([store[c][_MARK + name] for c in clients])
        return found


def own_of(kept: Kept | None) -> dict[str, Tensor]:
    """Return a client's own tensors among what is kept of it."""
    return {name: value for name, value in (kept or {}).items() if name.startswith(_MARK)}


def optimizer_of(kept: Kept | None) -> dict[str, Tensor] | None:
    """Return the optimiser's state among what is kept of a client; None where there is none."""
    return {n: v for n, v in (kept or {}).items() if not n.startswith(_MARK)} or None


def client_model(model: nn.Module, kept: Kept | None) -> nn.Module:
    """Put a client's own tensors into ``model`` by their names, and return it."""
    place = dict(_tensors(model))
    with torch.no_grad():
        for name, value in own_of(kept).items():
            place[name.removeprefix(_MARK)].copy_(value)
    return model


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()
