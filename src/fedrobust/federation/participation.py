"""Who takes part in a round."""

from typing import Annotated, Literal, Protocol, TypeAlias

import torch

from fedrobust.config.component import component
from fedrobust.config.kind import Kind
from fedrobust.config.scalars import Count


class Participation(Protocol):
    """Chooses the clients of a round."""

    def size(self, clients: int) -> int:
        """How many of ``clients`` take part in each round."""
        ...

    def choose(self, clients: int, generator: torch.Generator) -> tuple[int, ...]:
        """The client ids of one round, rising."""
        ...


PARTICIPATION = Kind("participation", has=("size", "choose"))
AnyParticipation: TypeAlias = Annotated[Participation, PARTICIPATION]


@component
class All:
    """Every client, in every round."""

    name: Literal["all"] = "all"

    def size(self, clients: int) -> int:
        """All of them."""
        return clients

    def choose(self, clients: int, generator: torch.Generator) -> tuple[int, ...]:
        """0, ..., clients - 1."""
        return tuple(range(clients))


@component
class Sample:
    """``clients`` of them in each round, uniformly without replacement."""

    clients: Count
    name: Literal["sample"] = "sample"

    def size(self, clients: int) -> int:
        """``clients``. Raises: ``ValueError`` where there are fewer."""
        if self.clients > clients:
            raise ValueError(f"cannot sample {self.clients} of {clients} clients")
        return self.clients

    def choose(self, clients: int, generator: torch.Generator) -> tuple[int, ...]:
        """A seeded sample."""
        chosen = torch.randperm(clients, generator=generator)[: self.clients]
        return tuple(sorted(chosen.tolist()))


PARTICIPATIONS = PARTICIPATION.of(All, Sample)
