"""Partitions: which client holds which examples. Each is a component with ``split``."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal, Protocol, TypeAlias

import numpy as np
import torch
from annotated_types import Le
from torch import Tensor

from fedrobust.config.component import component
from fedrobust.config.kind import Kind
from fedrobust.config.scalars import Count, Positive
from fedrobust.data.split import Split
from fedrobust.errors import DataError
from fedrobust.typing import Indices, Labels

_ATTEMPTS = 1000
"""The most draws of Dirichlet proportions; each takes some microseconds per class."""


@dataclass(frozen=True, eq=False)
class Partition:
    """The examples of each client: ``train[i]`` and ``test[i]`` hold client i's indices.

    The indices are int64 and sorted. ``dropped`` counts the training examples that no client holds.
    ``notes`` are what a report must say. Where clients are users, ``users[i]`` is the user of
    client i.

    Raises: ``DataError`` that names a client without training examples.
    """

    train: tuple[Indices, ...]
    test: tuple[Indices, ...]
    dropped: int = 0
    notes: tuple[str, ...] = ()
    users: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        empty = [i for i, part in enumerate(self.train) if len(part) == 0]
        if empty:
            raise DataError(f"client {empty[0]} would hold no training example: use fewer clients")

    def __len__(self) -> int:
        return len(self.train)

    def limited(
        self,
        clients: Iterable[int],
        classes: Sequence[int],
        y: Labels,
        generator: torch.Generator,
    ) -> "Partition":
        """Return a partition in which ``clients`` hold only training examples of ``classes``.

        ``y`` are the training labels. Each example of another class is replaced by a repeated one,
        so the number of training examples of a client does not change. Test examples do not change.
        Raises: ``DataError`` for a client that holds none of these classes.
        """
        train = list(self.train)
        for client in sorted(clients):
            held = train[client]
            fit = held[torch.isin(y[held], torch.tensor(classes))]
            if len(fit) == 0:
                raise DataError(
                    f"client {client} holds no training example of the classes "
                    f"{', '.join(map(str, classes))}: threat.classes needs some"
                )
            more = torch.randint(len(fit), (len(held) - len(fit),), generator=generator)
            train[client] = torch.cat([fit, fit[more]]).sort().values
        return replace(self, train=tuple(train))


class Partitioner(Protocol):
    """Something that shares out a data set among clients."""

    def split(self, train: Split, test: Split, generator: torch.Generator) -> Partition:
        """Share out both splits; no example goes to two clients. Raises: ``DataError``."""
        ...


PARTITION = Kind("partition", has=("split",), calls={"split": "train, test, generator"})
AnyPartition: TypeAlias = Annotated[Partitioner, PARTITION]


@component
class Iid:
    """Equal parts of both splits, drawn at random; the remainder of each is dropped and noted.

    This is FAT's setting: 51 clients with equally large private parts of the training and the test
    set.

    Raises: ``DataError`` where there are fewer training examples than clients.
    """

    clients: Count
    name: Literal["iid"] = "iid"

    def split(self, train: Split, test: Split, generator: torch.Generator) -> Partition:
        """Share out both splits: see :class:`Partitioner`."""
        _check_enough(len(train), self.clients)
        parts, notes = [], []
        for what, split in (("training", train), ("test", test)):
            size, rest = divmod(len(split), self.clients)
            order = torch.randperm(len(split), generator=generator)
            parts.append(_sorted(order[: size * self.clients].view(self.clients, size)))
            if rest:
                notes.append(_remainder(what, len(split), self.clients, size, "equal parts"))
        return Partition(parts[0], parts[1], len(train) % self.clients, tuple(notes))


@component
class Dirichlet:
    """Label skew: of class k, client j holds the share p_kj, with p_k ~ Dir(α, …, α) over clients.

    A small α gives each class to a few clients; a large α is nearly iid. Proportions are drawn
    again until every client holds at least ``minimum`` training examples. Test examples of a class
    are shared out in the proportions of its training examples.

    Raises: ``DataError`` where 1,000 draws leave some client below ``minimum``.

    References: the shares are drawn per class, which is the most common variant: Yurochkin et al.,
    "Bayesian Nonparametric Federated Learning of Neural Networks", ICML 2019; Li et al., "Federated
    Learning on Non-IID Data Silos", ICDE 2022.

    Differences from the paper: there is no cap on clients that already hold an average share, which
    Li's code adds. Hsu et al. 2019 instead draw the classes of each client, at equal sizes.
    """

    clients: Count
    alpha: Annotated[Positive, Le(1e9)]  # for much larger values NumPy draws NaN
    minimum: Count = 1
    name: Literal["dirichlet"] = "dirichlet"

    def split(self, train: Split, test: Split, generator: torch.Generator) -> Partition:
        """Share out both splits: see :class:`Partitioner`."""
        _check_enough(len(train), self.clients * self.minimum)
        seed = int(torch.randint(2**63 - 1, (), generator=generator))
        # For a small α NumPy uses stick-breaking, which does not underflow.
        rng = np.random.default_rng(seed)
        classes, counts = torch.unique(train.y, return_counts=True)
        for _ in range(_ATTEMPTS):
            shares = rng.dirichlet(np.full(self.clients, self.alpha), size=len(classes))
            ends = torch.from_numpy((shares.cumsum(1) * counts[:, None].numpy()).round()).long()
            ends[:, -1] = counts
            sizes = ends.diff(dim=1, prepend=torch.zeros(len(classes), 1, dtype=torch.int64))
            if np.isfinite(shares).all() and int(sizes.sum(0).min()) >= self.minimum:
                break
        else:
            raise DataError(
                f"{_ATTEMPTS} draws of Dirichlet({self.alpha:g}) proportions each left some of "
                f"{self.clients} clients with fewer than {self.minimum} of {len(train):,} training "
                "examples: use a larger alpha, fewer clients, or a smaller minimum"
            )
        held: list[list[Tensor]] = [[] for _ in range(self.clients)]
        for label, row in zip(classes, sizes, strict=True):
            pieces = torch.split(_shuffled(train.y == label, generator), row.tolist())
            for client, piece in zip(held, pieces, strict=True):
                client.append(piece)
        parts = _sorted([torch.cat(pieces) for pieces in held])
        tests, notes = shared_alike(train.y, parts, test.y, generator)
        return Partition(parts, tests, 0, notes)


@component
class Shards:
    """Label skew: sorted by label, cut into equal shards, ``shards_per_client`` to each client.

    A shard spans at most two classes where no class is smaller than a shard, so a client holds at
    most 2·``shards_per_client`` classes, and mostly ``shards_per_client``. The remainder, drawn at
    random before the sorting, is dropped and noted. Test examples of a class are shared out in the
    proportions of its training examples.

    Raises: ``DataError`` where there are fewer training examples than shards.

    Reference: McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized
    Data", AISTATS 2017, §3.
    """

    clients: Count
    shards_per_client: Count = 2
    name: Literal["shards"] = "shards"

    def split(self, train: Split, test: Split, generator: torch.Generator) -> Partition:
        """Share out both splits: see :class:`Partitioner`."""
        shards = self.clients * self.shards_per_client
        _check_enough(len(train), shards)
        size, rest = divmod(len(train), shards)
        kept = torch.randperm(len(train), generator=generator)[: size * shards]
        by_label = kept[torch.argsort(train.y[kept], stable=True)].view(shards, size)
        owned = torch.randperm(shards, generator=generator).view(self.clients, -1)
        parts = _sorted(by_label[owned].flatten(1))
        tests, notes = shared_alike(train.y, parts, test.y, generator)
        if rest:
            notes = (_remainder("training", len(train), shards, size, "shards"), *notes)
        return Partition(parts, tests, rest, notes)


@component
class ByWriter:
    """One client per user of the data, or ``clients`` of them drawn at random, in order of user id.

    Each client holds this user's training and test examples; the test part may be empty. Users
    without training examples, which a validation hold-out may cause, are left out. A note counts
    those who have test examples.

    Raises: ``DataError`` where the data have no user ids, or fewer users than ``clients``.
    """

    clients: Count | None = None
    name: Literal["by-writer"] = "by-writer"

    def split(self, train: Split, test: Split, generator: torch.Generator) -> Partition:
        """Share out both splits: see :class:`Partitioner`."""
        if train.user is None or test.user is None:
            raise DataError(
                "the partition by-writer needs a data set with user ids, such as femnist, or "
                "user_train and user_test of your own"
            )
        writers = torch.unique(train.user)
        only_test = len(set(test.user.tolist()) - set(writers.tolist()))
        notes = []
        if only_test:
            notes.append(f"{only_test:,} users without training examples are left out")
        if self.clients is not None:
            if self.clients > len(writers):
                raise DataError(
                    f"by-writer asks for {self.clients:,} clients, but {len(writers):,} users have "
                    "training examples: ask for fewer, or leave clients out to have them all"
                )
            notes.append(f"{self.clients:,} of {len(writers):,} users, drawn at random")
            drawn = torch.randperm(len(writers), generator=generator)[: self.clients]
            writers = writers[drawn.sort().values]
        parts = _of_each(train.user, writers)
        dropped = len(train) - sum(map(len, parts))
        tests = _of_each(test.user, writers)
        return Partition(parts, tests, dropped, tuple(notes), tuple(writers.tolist()))


def _check_enough(examples: int, needed: int) -> None:
    if examples < needed:
        raise DataError(
            f"{examples:,} training examples cannot be shared out to {needed:,} parts of one or "
            "more: use fewer clients, or a smaller validation"
        )


def _remainder(what: str, total: int, parts: int, size: int, kind: str) -> str:
    dropped = total - parts * size
    left = "1 example is" if dropped == 1 else f"{dropped:,} examples are"
    return (
        f"{total:,} {what} examples in {parts:,} {kind} of {size:,}: {left} left over, and no "
        f"client gets {'it' if dropped == 1 else 'them'}"
    )


def _sorted(parts: Tensor | list[Tensor]) -> tuple[Indices, ...]:
    return tuple(part.sort().values for part in parts)


def _shuffled(mask: Tensor, generator: torch.Generator) -> Indices:
    index = mask.nonzero()[:, 0]
    return index[torch.randperm(len(index), generator=generator)]


def _of_each(user: Tensor, writers: Tensor) -> tuple[Indices, ...]:
    """Return the examples of each writer, in their order."""
    order = torch.argsort(user, stable=True)
    starts = torch.searchsorted(user[order], writers)
    ends = torch.searchsorted(user[order], writers, right=True)
    return tuple(order[a:b] for a, b in zip(starts.tolist(), ends.tolist(), strict=True))


def shared_alike(
    y_train: Labels, parts: tuple[Indices, ...], y_test: Labels, generator: torch.Generator
) -> tuple[tuple[Indices, ...], tuple[str, ...]]:
    """Share out test examples so that each client has the class proportions of its training data.

    Of n test examples of a class, a client with t of the T training examples gets n·t/T, rounded so
    that all are shared out. The clients that gain by the rounding are drawn for each class.
    """
    classes = int(max(y_train.max(), y_test.max() if len(y_test) else 0)) + 1
    held = torch.stack([torch.bincount(y_train[part], minlength=classes) for part in parts])
    tests: list[list[Tensor]] = [[y_test.new_empty(0)] for _ in parts]
    unheld = 0
    for label in torch.unique(y_test).tolist():
        examples = _shuffled(y_test == label, generator)
        turn = torch.randperm(len(parts), generator=generator)
        ends = held[turn, label].cumsum(0)
        if ends[-1] == 0:
            unheld += len(examples)
            continue
        cuts = ends[:-1] * len(examples) // ends[-1]
        for client, piece in zip(turn.tolist(), torch.tensor_split(examples, cuts), strict=True):
            tests[client].append(piece)
    notes = (f"{unheld:,} test examples of classes that no client holds are left out",)
    return _sorted([torch.cat(pieces) for pieces in tests]), notes if unheld else ()
