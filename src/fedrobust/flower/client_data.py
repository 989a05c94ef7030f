"""The data of one client, as a user of Flower gives them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from fedrobust.compute.randomness import Streams
from fedrobust.config.arguments import told
from fedrobust.data import Dataset, Remote, Split
from fedrobust.data.map_style import split_of
from fedrobust.errors import ConfigError
from fedrobust.experiment import Experiment
from fedrobust.runs.shared_data import shared_data
from fedrobust.typing import Indices


@dataclass(frozen=True)
class Alone(Sequence[Indices]):
    """The examples of the one client that is here, whatever its number is elsewhere."""

    examples: Indices

    def __getitem__(self, client: Any) -> Any:
        """Return the examples."""
        return self.examples

    def __len__(self) -> int:
        return 1


def part_of(experiment: Experiment, client: int) -> Split:
    """Return the training examples of ``client``, where ``experiment`` shares out a data set.

    It is for trials of a federation with public data: every client has the whole data set, and
    trains on its own part only, which is its part in ``fedrobust run`` too.

    Raises: ``ConfigError`` where there is no such client, or each has data of its own.
    """
    if isinstance(experiment.partition, Remote):
        raise ConfigError("partition: remote: each client loads data of its own")
    shared = shared_data(experiment, Streams(experiment.seed))
    if isinstance(client, bool) or not isinstance(client, int) or not 0 <= client < shared.clients:
        raise ConfigError(f"client must be 0 to {shared.clients - 1}; it is {told(client)}")
    return shared.train.take(shared.partition.train[client])


def examples(given: object) -> Split:
    """Return the examples that a client's ``data(context)`` gave. Raises: ``DataError``."""
    return given.train if isinstance(given, Dataset) else split_of(given, "the client's data")


def places(count: int) -> Alone:
    """Return the indices of all ``count`` examples."""
    return Alone(torch.arange(count))
