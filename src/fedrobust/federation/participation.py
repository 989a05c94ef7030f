"""Participation: which clients take part in a round."""

from typing import Annotated, Literal, Protocol, TypeAlias

import torch

from fedrobust.config.component import component
from fedrobust.config.kind import Kind
from fedrobust.config.scalars import Count


class Participation(Protocol):
    """Chooses the clients of a round."""

    def size(self, clients: int) -> int:
        """Return how many of ``clients`` take part in each round."""
        ...

    def choose(self, clients: int, generator: torch.Generator) -> tuple[int, ...]:
        """Return the client ids of one round, in ascending order."""
        ...


PARTICIPATION = Kind(
    "participation",
    has=("size", "choose"),
    calls={"size": "clients", "choose": "clients, generator"},
)
AnyParticipation: TypeAlias = Annotated[Participation, PARTICIPATION]


@component
class All:
    """Every client takes part in every round."""

    name: Literal["all"] = "all"

    def size(self, clients: int) -> int:
        """Return ``clients``: all take part."""
        return clients

    def choose(self, clients: int, generator: torch.Generator) -> tuple[int, ...]:
        """Return all client ids, 0 to clients - 1."""
        return tuple(range(clients))


@component
class Sample:
    """``clients`` of the clients take part in each round, drawn uniformly without replacement."""

    clients: Count
    name: Literal["sample"] = "sample"

    def size(self, clients: int) -> int:
        """Return the size of the sample. Raises: ``ValueError`` where there are fewer clients."""
        if self.clients > clients:
            raise ValueError(f"cannot sample {self.clients} of {clients} clients")
        return self.clients

    def choose(self, clients: int, generator: torch.Generator) -> tuple[int, ...]:
        """Return the sampled client ids, in ascending order."""
        chosen = torch.randperm(clients, generator=generator)[: self.clients]
        return tuple(sorted(chosen.tolist()))


PARTICIPATIONS = PARTICIPATION.of(All, Sample)
