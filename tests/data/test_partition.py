"""Partitions: no example in two hands, none lost unsaid, and each kind's own law."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedrobust.config.component import component, from_config
from fedrobust.data import PARTITIONS, AnyPartition, Partition, Split
from fedrobust.data.partition import ByWriter, Dirichlet, Iid, Shards
from fedrobust.errors import ConfigError, DataError


def labelled(n: int, classes: int = 10, users: int = 7, seed: int = 0) -> Split:
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(0, classes, (n,), generator=generator)
    user = 3 * torch.randint(0, users, (n,), generator=generator)
    return Split(torch.zeros(n, 1), y, user)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def counts(y: torch.Tensor, parts: tuple[torch.Tensor, ...], classes: int = 10) -> torch.Tensor:
    return torch.stack([torch.bincount(y[part], minlength=classes) for part in parts])


def skew(partition: Partition, y: torch.Tensor) -> float:
    """The mean total variation distance of a client's classes from everybody's."""
    table = counts(y, partition.train).double()
    shares = table / table.sum(1, keepdim=True)
    everybody = table.sum(0) / table.sum()
    return float((shares - everybody).abs().sum(1).mean() / 2)


KINDS: dict[str, Callable[[int], Any]] = {
    "iid": Iid,
    "dirichlet": lambda clients: Dirichlet(clients, 0.5),
    "shards": Shards,
    "by-writer": lambda clients: ByWriter(min(clients, 5)),
}


def test_every_kind_is_tested() -> None:
    elsewhere = {"remote"}  # it shares nothing out: see test_remote.py
    assert set(KINDS) | elsewhere == {member.__dict__["name"] for member in PARTITIONS}


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25, deadline=None)
@given(st.integers(100, 400), st.integers(0, 90), st.integers(1, 12), st.integers(0, 2**32))
def test_no_example_is_shared_and_what_is_dropped_is_counted(
    kind: str, n: int, m: int, clients: int, seed: int
) -> None:
    train, test = labelled(n, seed=1), labelled(m, seed=2)
    partition = KINDS[kind](clients).split(train, test, generator(seed))
    assert len(partition) == len(partition.train) == len(partition.test)
    for split, parts in ((train, partition.train), (test, partition.test)):
        held = torch.cat(parts)
        assert held.dtype == torch.int64
        assert len(torch.unique(held)) == len(held) <= len(split)
        assert all(torch.equal(part, part.sort().values) for part in parts)
        if len(held):
            assert 0 <= int(held.min()) <= int(held.max()) < len(split)
    assert all(len(part) for part in partition.train)
    assert sum(map(len, partition.train)) + partition.dropped == n
    again = KINDS[kind](clients).split(train, test, generator(seed))
    for one, two in zip(
        (*partition.train, *partition.test), (*again.train, *again.test), strict=True
    ):
        assert torch.equal(one, two)


@pytest.mark.parametrize("kind", KINDS)
def test_another_seed_gives_another_partition(kind: str) -> None:
    train, test = labelled(300), labelled(100, seed=1)
    one, two = (KINDS[kind](4).split(train, test, generator(seed)) for seed in (0, 1))
    assert any(
        not torch.equal(a, b)
        for a, b in zip((*one.train, *one.test), (*two.train, *two.test), strict=True)
    )


def test_fat_has_51_equal_parts_and_says_what_is_dropped() -> None:
    train, test = labelled(55_000), labelled(10_000, seed=1)
    partition = Iid(51).split(train, test, generator())
    assert {len(part) for part in partition.train} == {1078}
    assert {len(part) for part in partition.test} == {196}
    assert partition.dropped == 22
    assert partition.notes == (
        "55,000 training examples in 51 equal parts of 1,078: 22 examples are left over, and no "
        "client gets them",
        "10,000 test examples in 51 equal parts of 196: 4 examples are left over, and no client "
        "gets them",
    )
    assert skew(partition, train.y) < 0.06


def test_equal_parts_without_remainder_have_nothing_to_say() -> None:
    assert Iid(4).split(labelled(100), labelled(40), generator()).notes == ()


def test_skew_falls_as_alpha_grows() -> None:
    train, test = labelled(5000), labelled(1000, seed=1)
    skews = [
        skew(Dirichlet(10, alpha).split(train, test, generator(3)), train.y)
        for alpha in (0.05, 0.5, 5.0, 500.0)
    ]
    assert skews == sorted(skews, reverse=True)
    assert skews[0] > 0.6
    assert skews[-1] < 0.06


def test_dirichlet_shares_have_the_moments_of_the_law() -> None:
    # Over many draws, a client's share of a class has mean 1/c and, for Dir(α, …, α) over c
    # clients, variance (1/c)(1 − 1/c)/(cα + 1). Drawn per client, it would have neither.
    clients, alpha, classes, each = 5, 1.0, 10, 400
    y = torch.arange(classes).repeat_interleave(each)
    train = Split(torch.zeros(len(y), 1), y)
    shares = torch.stack(
        [
            counts(y, Dirichlet(clients, alpha).split(train, train, generator(seed)).train) / each
            for seed in range(60)
        ]
    )
    assert torch.allclose(shares.sum(1), torch.ones(60, classes))
    variance = (1 / clients) * (1 - 1 / clients) / (clients * alpha + 1)
    assert abs(float(shares.var()) / variance - 1) < 0.12


@pytest.mark.parametrize("kind", [Dirichlet(8, 0.3), Shards(8)])
def test_test_classes_are_shared_as_the_training_classes_are(kind: Any) -> None:
    train, test = labelled(4000), labelled(2000, seed=1)
    partition = kind.split(train, test, generator(1))
    have, get = counts(train.y, partition.train), counts(test.y, partition.test)
    assert torch.equal(get.sum(0), torch.bincount(test.y))
    expected = torch.bincount(test.y) * have / have.sum(0)
    assert (get - expected).abs().max() <= 1
    assert (get[have == 0] == 0).all()


def test_few_test_examples_do_not_always_go_to_the_same_clients() -> None:
    train, test = labelled(1000, classes=2), labelled(4, classes=2, seed=1)
    receivers = set()
    for seed in range(20):
        parts = Dirichlet(10, 1e6).split(train, test, generator(seed)).test
        receivers |= {i for i, part in enumerate(parts) if len(part)}
    assert len(receivers) > 7


@pytest.mark.parametrize("shards", [1, 2, 3])
def test_a_client_of_k_shards_has_at_most_k_classes_where_shards_fit_classes(shards: int) -> None:
    y = torch.arange(10).repeat(60)  # 600 examples, 10 clients: shards of 60, 30, 20 fit 60
    train = Split(torch.zeros(600, 1), y)
    partition = Shards(10, shards).split(train, train, generator())
    table = counts(y, partition.train)
    assert {len(part) for part in partition.train} == {60}
    assert int((table > 0).sum(1).max()) <= shards
    assert set(table.flatten().tolist()) <= {60 // shards * k for k in range(shards + 1)}


def test_shards_are_dealt_at_random() -> None:
    train = Split(torch.zeros(100, 1), torch.arange(100) // 10)
    firsts = {
        int(train.y[Shards(10, 1).split(train, train, generator(seed)).train[0][0]])
        for seed in range(20)
    }
    assert len(firsts) > 4


def test_the_remainder_of_shards_is_drawn_from_all_classes() -> None:
    train = labelled(1000)
    partition = Shards(45, 2).split(train, labelled(100, seed=1), generator())
    assert partition.dropped == 1000 - 90 * 11
    assert partition.notes == (
        "1,000 training examples in 90 shards of 11: 10 examples are left over, and no client "
        "gets them",
    )
    lost = torch.bincount(train.y, minlength=10) - counts(train.y, partition.train).sum(0)
    assert int((lost > 0).sum()) > 3


def test_each_writer_is_a_client_with_its_own_examples() -> None:
    train, test = labelled(200), labelled(40, users=4, seed=1)
    assert train.user is not None
    assert test.user is not None
    partition = ByWriter().split(train, test, generator())
    writers = torch.unique(train.user).tolist()
    assert len(partition) == len(writers)
    for writer, mine, theirs in zip(writers, partition.train, partition.test, strict=True):
        assert torch.equal(mine, (train.user == writer).nonzero()[:, 0])
        assert torch.equal(theirs, (test.user == writer).nonzero()[:, 0])
    assert any(len(part) == 0 for part in partition.test)
    assert (partition.dropped, partition.notes) == (0, ())


def test_writers_without_training_examples_are_left_out_and_noted() -> None:
    train, test = labelled(200), labelled(100, seed=1)
    assert train.user is not None
    assert test.user is not None
    rest = train.take((train.user > 3).nonzero()[:, 0])
    partition = ByWriter(4).split(rest, test, generator())
    assert partition.notes == (
        "2 users without training examples are left out",
        "4 of 5 users, drawn at random",
    )
    assert all((test.user[part] > 3).all() for part in partition.test)
    assert partition.dropped == len(rest) - sum(map(len, partition.train)) > 0


def test_test_examples_that_no_client_can_have_are_noted() -> None:
    train = Split(torch.zeros(20, 1), torch.arange(20) % 2)
    test = Split(torch.zeros(9, 1), torch.arange(9) % 3)
    partition = Shards(2).split(train, test, generator())
    assert partition.notes == ("3 test examples of classes that no client holds are left out",)
    assert sum(map(len, partition.test)) == 6


@pytest.mark.parametrize("kind", ["iid", "dirichlet", "shards"])
def test_a_test_split_may_be_empty(kind: str) -> None:
    partition = KINDS[kind](3).split(labelled(50), labelled(0), generator())
    assert [len(part) for part in partition.test] == [0, 0, 0]


@pytest.mark.parametrize(
    ("partition", "message"),
    [
        (Iid(31), r"30 training examples cannot be shared out to 31 parts"),
        (Shards(16), r"30 training examples cannot be shared out to 32 parts"),
        (Dirichlet(31, 1.0), r"30 training examples cannot be shared out to 31 parts"),
        (Dirichlet(15, 1e-3), r"1000 draws of Dirichlet\(0.001\).*15 clients.*larger alpha"),
        (Dirichlet(15, 1e-200), r"1000 draws of Dirichlet"),
        (ByWriter(8), r"asks for 8 clients, but 7 users have training examples"),
    ],
)
def test_what_cannot_be_shared_out_is_refused(partition: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        partition.split(labelled(30), labelled(10), generator())


def test_by_writer_needs_users() -> None:
    anonymous = Split(torch.zeros(5, 1), torch.arange(5))
    with pytest.raises(DataError, match=r"by-writer needs a data set with user ids, such as fem"):
        ByWriter().split(anonymous, anonymous, generator())


def test_an_empty_client_is_named() -> None:
    with pytest.raises(DataError, match=r"client 1 would hold no training example"):
        Partition((torch.tensor([0]), torch.tensor([])), (torch.tensor([]),) * 2)


def test_dirichlet_honours_its_minimum() -> None:
    free, bound = (
        Dirichlet(10, 1.0, minimum).split(labelled(1000), labelled(10), generator())
        for minimum in (1, 60)
    )
    assert min(map(len, free.train)) < 60 <= min(map(len, bound.train))


@component
class Run:
    partition: AnyPartition


def test_partitions_are_read_by_name() -> None:
    content = {"partition": {"name": "dirichlet", "clients": 5, "alpha": 0.1}}
    assert from_config(Run, content).partition == Dirichlet(5, 0.1)
    with pytest.raises(ConfigError, match=r"partition.alpha: .*greater than 0"):
        from_config(Run, {"partition": {"name": "dirichlet", "clients": 5, "alpha": 0}})
    with pytest.raises(ConfigError, match=r"partition.clients: .*greater than or equal to 1"):
        from_config(Run, {"partition": {"name": "iid", "clients": 0}})
