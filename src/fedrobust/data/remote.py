"""The partition of a real federation: the clients hold their data elsewhere."""

from typing import Literal

import torch
from pydantic import model_validator

from fedrobust.config.component import component
from fedrobust.config.scalars import Count
from fedrobust.data.partition import Partition
from fedrobust.data.split import Split


@component
class Remote:
    """``clients`` real clients, each with data of its own that the server never sees.

    ``counts`` are the server's books: the number of training examples of each client, by which a
    rule such as the mean weights their updates. If they are left out, all clients weigh the same.
    The experiment's ``data`` are the server's own, with which it evaluates. Of their training split
    it needs only the ``validation`` examples, which may be all of it.

    Only a real federation plays it, with ``fedrobust.flower``.
    """

    clients: Count
    counts: tuple[Count, ...] | None = None
    name: Literal["remote"] = "remote"

    @model_validator(mode="after")
    def _fits(self) -> "Remote":
        if self.counts is not None and len(self.counts) != self.clients:
            raise ValueError(
                f"counts has {len(self.counts)} entries for {self.clients} clients: give one for "
                "each client, or leave counts out"
            )
        return self

    def split(self, train: Split, test: Split, generator: torch.Generator) -> Partition:
        """Return as many placeholders for each client as it has examples by the books.

        They stand for examples that are not here, and take no memory.
        """
        counts = self.counts or (1,) * self.clients
        placeholder, nothing = torch.zeros(1, dtype=torch.int64), torch.empty(0, dtype=torch.int64)
        parts = tuple(placeholder.expand(count) for count in counts)
        return Partition(parts, (nothing,) * self.clients)
