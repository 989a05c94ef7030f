"""Who takes part in a round."""

from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

import torch

from fedrobust.config.component import Count, component, one_of


class Participation(Protocol):
    """Chooses the clients of a round."""

    def size(self, clients: int) -> int:
        """How many of ``clients`` take part in each round."""
        ...

    def choose(self, clients: int, generator: torch.Generator) -> tuple[int, ...]:
        """The client ids of one round, rising."""
        ...


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


PARTICIPATIONS: tuple[type, ...] = (All, Sample)
if TYPE_CHECKING:
    AnyParticipation: TypeAlias = Participation
else:
    AnyParticipation: Any = one_of("participation", *PARTICIPATIONS, has=("size", "choose"))
