"""Where each client has its own BatchNorm: whose model answers which examples."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from normed import FEW, LOCAL

from fedrobust import Experiment, run
from fedrobust.data import Dataset, Digits, Partition, Split
from fedrobust.errors import ConfigError
from fedrobust.runs.prepare import prepare
from fedrobust.runs.shared_data import shared_data

Tiny = Callable[..., Experiment]


class TwoHospitals:
    """A user's own partition: client 0 holds the first half; nobody holds test examples."""

    clients = 2

    def split(self, train: Split, test: Split, generator: torch.Generator) -> Partition:
        order = torch.argsort(train.y, stable=True)
        none = torch.empty(0, dtype=torch.long)
        return Partition(tuple(p.sort().values for p in order.chunk(2)), (none, none))


def test_held_out_examples_go_to_clients_with_such_labels(tiny: Tiny) -> None:
    experiment = tiny(
        **LOCAL | {"aggregator": "mean"},
        partition=TwoHospitals(),
        malicious=0,
        attack=None,
    )
    ready = prepare(experiment)
    assert ready.held_by is not None
    assert ready.test_by is not None
    for y, owner in (
        (ready.chooses.y[ready.held_out], ready.held_by),
        (ready.dataset.test.y[ready.test], ready.test_by),
    ):
        assert (owner[y < 4] == 0).all()
        assert (owner[y > 5] == 1).all()
        assert len(y) == len(owner)
    assert len(ready.held_out) == 40
    assert len(ready.test) == 360
    again = prepare(experiment)
    assert again.held_by is not None
    assert torch.equal(again.held_by, ready.held_by)


class AllTestsWith:
    """A user's own partition of three clients, of whom only ``holders`` have test examples."""

    clients = 3

    def __init__(self, *holders: int) -> None:
        self.holders = holders

    def split(self, train: Split, test: Split, generator: torch.Generator) -> Partition:
        order = torch.randperm(len(train), generator=generator)
        each = iter(torch.arange(len(test)).chunk(len(self.holders)))
        none = torch.empty(0, dtype=torch.long)
        parts = tuple(next(each) if i in self.holders else none for i in range(3))
        return Partition(tuple(p.sort().values for p in order.chunk(3)), parts)


def test_examples_that_no_benign_client_answers_are_left_out_or_refused(tiny: Tiny) -> None:
    def prepared(*holders: int) -> Any:
        experiment = tiny(
            **LOCAL | {"aggregator": "mean", "attack": {"name": "sign-flip"}, "threat": {}},
            partition=AllTestsWith(*holders),
            malicious=1,
        )
        return prepare(experiment)

    (bad,) = prepared(0, 1, 2).federation.malicious
    benign, idle = sorted({0, 1, 2} - {bad})
    ready = prepared(bad, benign)
    assert ready.test_by is not None
    assert set(ready.test_by.tolist()) == {benign}, "neither the malicious client nor the idle one"
    assert len(ready.test) == 180
    assert set(ready.held_by.tolist()) == {benign, idle}
    with pytest.raises(ConfigError, match="own test examples, and none of them has any: evaluate"):
        prepared(bad)


def test_training_examples_are_answered_by_who_holds_them(tiny: Tiny) -> None:
    experiment = tiny(**LOCAL | {"evaluation": FEW | {"split": "train", "samples": 200}})
    ready = prepare(experiment)
    data = shared_data(experiment, ready.streams)
    assert ready.held_by is not None
    for index, owner in zip(ready.held_out.tolist(), ready.held_by.tolist(), strict=True):
        assert index in data.partition.train[owner].tolist()
        assert owner not in ready.federation.malicious
    assert 120 < len(ready.held_out) < 200


def test_held_out_examples_of_a_user_are_answered_by_its_client(tiny: Tiny) -> None:
    digits = Digits(validation=300).load()
    splits = [
        Split(split.x, split.y, torch.arange(len(split)) % 7)
        for split in (digits.train, digits.test)
    ]
    data = Dataset("written", *splits, classes=10, validation=300)
    experiment = tiny(
        **LOCAL | {"aggregator": "mean", "attack": {"name": "sign-flip"}},
        data=data,
        partition={"name": "by-writer", "clients": 5},
        malicious=1,
        rounds=1,
    )
    ready, result = prepare(experiment), run(experiment)
    users, (bad,) = ready.partition.users, ready.federation.malicious
    assert users is not None
    assert ready.chooses.user is not None
    assert ready.held_by is not None
    asked = ready.chooses.user[ready.held_out]
    assert asked.tolist() == [users[client] for client in ready.held_by.tolist()]
    assert 20 < len(asked) < 40
    scores = result.metrics[0]["per_user"]["examples"]
    assert scores.keys() == {str(user) for user in users} - {str(users[bad])}
