"""Load the examples of a run, hold some out, share them out, and choose the malicious clients."""

import math
from dataclasses import dataclass
from typing import Literal

import torch

from fedrobust.compute.own_draws import own_draws
from fedrobust.compute.randomness import Streams
from fedrobust.config import arguments
from fedrobust.config.fingerprint import foreign
from fedrobust.data import Dataset, Partition, Remote, Split
from fedrobust.data.dataset import loaded
from fedrobust.data.sharing import shared_out
from fedrobust.errors import ConfigError
from fedrobust.experiment import Experiment
from fedrobust.objectives import Objective, settled


@dataclass(frozen=True)
class SharedData:
    """The data of a run, and who holds which examples.

    The clients hold ``train``, the server holds ``root``, and ``validation`` chooses the round.
    ``partition`` says which client holds which examples. ``known`` are the benign clients whose
    examples the adversary knows. ``gamma`` is the price of the certificate.
    """

    dataset: Dataset
    train: Split
    root: Split
    validation: Split
    partition: Partition
    malicious: frozenset[int]
    known: tuple[int, ...]
    objective: Objective
    gamma: float

    @property
    def clients(self) -> int:
        """The number of clients."""
        return len(self.partition.train)

    @property
    def notes(self) -> tuple[str, ...]:
        """The notes about the data that a report must show."""
        of_objective: tuple[str, ...] = getattr(self.objective, "notes", ())
        return (*self.dataset.notes, *self.partition.notes, *of_objective)

    def choosing(self, split: Literal["validation", "train"]) -> Split:
        """Return the examples that choose the round.

        Where users are clients, these are the examples of those users only.

        Raises: ``ConfigError`` where there are none.
        """
        validation, users = self.validation, self.partition.users
        if users is not None and validation.user is not None:
            members = torch.isin(validation.user, torch.tensor(users))
            validation = validation.take(members.nonzero()[:, 0])
        found = validation if split == "validation" else self.train
        if len(found) == 0:
            raise ConfigError(
                "evaluation.split is validation, but no example of these clients is held out: "
                "raise data.validation"
            )
        return found


def shared_data(experiment: Experiment, streams: Streams) -> SharedData:
    """Load the data of ``experiment`` and share them out.

    Raises: ``ConfigError`` for settings that do not fit the data, ``DataError`` for the data.
    """
    with own_draws(foreign(experiment.data), streams, "data"):
        dataset = loaded(experiment.data)
    _require_pixels(experiment, dataset)
    if isinstance(experiment.partition, Remote) and dataset.validation == len(dataset.train):
        train = validation = dataset.train  # the clients train on data of their own
    else:
        train, validation = dataset.hold_out(streams.generator("validation"))
    objective = settled(experiment.objective, train)
    check = experiment.evaluation.wasserstein
    gamma = math.inf if check is None else check.price(objective, train)
    train, root = _root_set(train, experiment.server.root, streams.generator("root"))
    partition = shared_out(experiment.partition, train, dataset.test, streams)
    try:
        experiment.require_clients(len(partition.train))
    except ValueError as error:
        raise ConfigError(str(error)) from error
    malicious, known = _adversary(experiment, len(partition.train), streams)
    if experiment.threat.classes is not None:
        draw = streams.generator("classes of malicious clients")
        partition = partition.limited(malicious, experiment.threat.classes, train.y, draw)
    return SharedData(
        dataset, train, root, validation, partition, malicious, known, objective, gamma
    )


def _adversary(
    experiment: Experiment, clients: int, streams: Streams
) -> tuple[frozenset[int], tuple[int, ...]]:
    """Choose the malicious clients, and the benign clients whose examples they know."""
    order = torch.randperm(clients, generator=streams.generator("malicious clients")).tolist()
    known = order[experiment.malicious :][: experiment.threat.data]
    return frozenset(order[: experiment.malicious]), tuple(sorted(known))


def _root_set(train: Split, wanted: int | None, generator: torch.Generator) -> tuple[Split, Split]:
    """Return the examples left for the clients, and ``wanted`` random examples for the server."""
    if wanted is not None and wanted >= len(train):
        raise ConfigError(
            f"server.root: {wanted:,} examples for the server leave none of {len(train):,} "
            "for the clients"
        )
    order = torch.randperm(len(train), generator=generator)
    root, rest = order[: wanted or 0].sort().values, order[wanted or 0 :].sort().values
    return (train.take(rest) if wanted else train), train.take(root)


def _require_pixels(experiment: Experiment, dataset: Dataset) -> None:
    """Refuse an attack that would clip other data than pixels to [0, 1].

    Raises: ``ConfigError``.
    """
    for path in ("objective", "evaluation"):
        attack = getattr(getattr(experiment, path), "attack", None)
        for x in (dataset.train.x, dataset.test.x):
            try:
                if getattr(attack, "box", False) and x.is_floating_point():
                    arguments.pixels(x)
            except ValueError as error:
                raise ConfigError(f"{path}.attack: {error}") from error
