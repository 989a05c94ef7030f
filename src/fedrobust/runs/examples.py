"""Which examples a run evaluates on, and whose model answers them where each client has its own."""

from dataclasses import dataclass

import torch

from fedrobust.compute.randomness import Streams
from fedrobust.data import Split
from fedrobust.data.partition import shared_alike
from fedrobust.errors import ConfigError
from fedrobust.experiment import Experiment
from fedrobust.runs.shared_data import SharedData
from fedrobust.typing import Indices


@dataclass(frozen=True)
class Examples:
    """Examples to evaluate on: indices into ``split``.

    ``owner`` is the client whose model answers each of them; None where all clients have one model.
    """

    split: Split
    index: Indices
    owner: Indices | None = None

    def some(self, count: int | None, streams: Streams) -> "Examples":
        """Return ``count`` of them, drawn at random, in their order; all for None.

        The draw is the same each time, and fewer are a part of more. The first of a data set would
        be no fair sample: the two halves of MNIST's test images come from different writers.
        """
        places = _some(len(self.index), count, streams.generator("some examples"))
        owner = None if self.owner is None else self.owner[places]
        return Examples(self.split, self.index[places], owner)

    def by_owner(self) -> dict[int | None, Indices]:
        """Return the places of each client's examples among these; one group for one model."""
        if self.owner is None:
            return {None: torch.arange(len(self.index))}
        clients = torch.unique(self.owner).tolist()
        return {client: (self.owner == client).nonzero()[:, 0] for client in clients}


def examples(
    experiment: Experiment, data: SharedData, streams: Streams, *, owned: bool
) -> tuple[Examples, Examples]:
    """Return the held-out and the test examples; with their owners where models are ``owned``.

    Raises: ``ConfigError`` where there are none.
    """
    evaluation, tests = experiment.evaluation, data.dataset.test
    chooses = data.choosing(evaluation.split)
    draws = [streams.generator(name) for name in ("held-out examples", "test examples")]
    held_out = Examples(chooses, _some(len(chooses), evaluation.samples, draws[0]))
    test = Examples(tests, _some(len(tests), evaluation.test_samples, draws[1]))
    if not owned:
        return held_out, test
    draws = [streams.generator(f"owners of {what} examples") for what in ("held-out", "test")]
    held_out = _held_out_of_clients(experiment, data, held_out, draws[0])
    return held_out, _tests_of_clients(data, test, draws[1])


def _some(total: int, wanted: int | None, generator: torch.Generator) -> Indices:
    """Return ``wanted`` random indices of ``total`` examples, in rising order; all for None."""
    if wanted is None or wanted >= total:
        return torch.arange(total)
    return torch.randperm(total, generator=generator)[:wanted].sort().values


def _held_out_of_clients(
    experiment: Experiment, data: SharedData, found: Examples, generator: torch.Generator
) -> Examples:
    """Return those of the held-out examples ``found`` that a benign client answers, with the owner.

    A client answers its own training examples where these are evaluated on, and the examples of its
    user where clients are users. Otherwise they are shared out as the test examples of a partition
    by labels are: each client gets them in the class proportions of its training examples.

    Raises: ``ConfigError`` where there are none.
    """
    users, user = data.partition.users, found.split.user
    if experiment.evaluation.split == "train":
        owner = _of_parts(data.partition.train, found)
    elif users is not None and user is not None:
        place = {user: client for client, user in enumerate(users)}
        owner = torch.tensor([place.get(u, -1) for u in user[found.index].tolist()])
    else:
        owner = _alike(data, found, generator)
    return _answered(data, found, owner, "held-out")


def _tests_of_clients(data: SharedData, found: Examples, generator: torch.Generator) -> Examples:
    """Return those of the test examples ``found`` that a benign client answers, with the owner.

    These are each client's own part of the test split. Where a partition leaves every client
    without such a part, they are shared out as held-out examples are.

    Raises: ``ConfigError`` where there are none.
    """
    if any(len(part) for part in data.partition.test):
        owner = _of_parts(data.partition.test, found)
    else:
        owner = _alike(data, found, generator)
    return _answered(data, found, owner, "test")


def _of_parts(parts: tuple[Indices, ...], found: Examples) -> Indices:
    """Return who holds each example; -1 for nobody."""
    owner = torch.full((len(found.split),), -1)
    for client, part in enumerate(parts):
        owner[part] = client
    return owner[found.index]


def _alike(data: SharedData, found: Examples, generator: torch.Generator) -> Indices:
    """Share examples out among the benign clients, in the proportions of their training labels."""
    benign = [i for i in range(data.clients) if i not in data.malicious]
    owner = torch.full((len(found.index),), -1)
    if benign:
        held = tuple(data.partition.train[i] for i in benign)
        parts, _ = shared_alike(data.train.y, held, found.split.y[found.index], generator)
        for client, part in zip(benign, parts, strict=True):
            owner[part] = client
    return owner


def _answered(data: SharedData, found: Examples, owner: Indices, what: str) -> Examples:
    """Leave out the examples of nobody, and of malicious clients, whose models nobody uses."""
    answered = owner >= 0
    for client in data.malicious:
        answered &= owner != client
    if not bool(answered.any()):
        raise ConfigError(
            f"each benign client is evaluated on its own {what} examples, and none of them has "
            "any: evaluate on more examples, or use batch_norm: to_group_norm"
        )
    return Examples(found.split, found.index[answered], owner[answered])
