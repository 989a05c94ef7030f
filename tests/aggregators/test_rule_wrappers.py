"""Rules around other rules: mixing and bucketing, and what passes through them."""

from dataclasses import dataclass, replace
from typing import Any

import pytest
import rule_oracles as oracles
import torch
from torch import Tensor

from fedrobust.aggregators import (
    Aggregation,
    AnyAggregator,
    Bucketing,
    CenteredClipping,
    Context,
    FLTrust,
    Krum,
    Mean,
    Median,
    MultiKrum,
    NearestNeighborMixing,
    TrimmedMean,
)
from fedrobust.config.component import component, from_config, to_config
from fedrobust.errors import ConfigError
from fedrobust.federation.server import aggregate, rooted


def normal(n: int, d: int, seed: int = 0) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def mixed(f: int, rule: Any) -> NearestNeighborMixing:
    return NearestNeighborMixing(f, rule)


def bucketed(f: int, rule: Any) -> Bucketing:
    return Bucketing(2, rule)


wrappers = pytest.mark.parametrize("wrap", [mixed, bucketed])


@dataclass(frozen=True)
class Recorder:
    """A user's own rule that has nothing but ``aggregate``, and tells what it was given."""

    given: list[tuple[Tensor, Context]]

    def aggregate(self, updates: Tensor, context: Context) -> Aggregation:
        self.given.append((updates, context))
        return Aggregation(updates[0], kept=torch.tensor([1, 2]), memory="new")


def test_mixing_takes_each_rows_nearest_itself_included_by_index_where_they_tie() -> None:
    updates = torch.tensor([[0.0], [1.0], [2.0], [4.0], [4.0], [4.0]])
    given: list[Any] = []
    mixed(2, Recorder(given))(updates)
    # Of 0 and the three rows at 4, all as far from 2, the first two; of those at 4 the first for 0.
    want = torch.tensor([[1.75], [1.75], [1.75], [3.5], [3.5], [3.5]])
    assert torch.equal(given[0][0], want)
    mixed(2, Recorder(given))(updates[[3, 0, 4, 1, 2, 5]])
    want = torch.tensor([[3.5], [1.75], [3.5], [1.75], [1.75], [3.5]])
    assert torch.equal(given[1][0], want)


def test_mixing_selects_clients_whose_neighbourhood_was_selected() -> None:
    updates = normal(13, 20)
    rows = oracles.mixed(updates.double().tolist(), 3)[0]
    for rule, oracle in ((Krum(3), oracles.krum), (MultiKrum(3), oracles.multi_krum)):
        got, want = mixed(3, rule).aggregate(updates, Context()), oracle(rows, 3)
        assert got.kept is not None
        assert got.kept.tolist() == want.kept
        torch.testing.assert_close(got.vector, torch.tensor(want.vector), rtol=1e-6, atol=1e-7)


def test_mixing_without_byzantine_rows_is_the_mean() -> None:
    updates = normal(7, 10)
    torch.testing.assert_close(mixed(0, Median())(updates), Mean()(updates))


@pytest.mark.parametrize(("n", "s"), [(11, 1), (11, 2), (11, 3), (12, 4), (3, 9)])
def test_buckets_are_means_of_s_rows_each_drawn_from_the_generator(n: int, s: int) -> None:
    updates = normal(n, 6)
    given: list[Any] = []
    draws = []
    for seed in (1, 1, 2):
        generator = torch.Generator().manual_seed(seed)
        Bucketing(s, lambda rows: given.append(rows) or rows[0])(
            updates, Context(generator=generator)
        )
        draws.append(torch.randperm(n, generator=torch.Generator().manual_seed(seed)))
    for rows, order in zip(given, draws, strict=True):
        want = torch.stack([updates[bucket].double().mean(dim=0) for bucket in order.split(s)])
        torch.testing.assert_close(rows.double(), want, rtol=1e-6, atol=1e-7)
    assert torch.equal(given[0], given[1])
    assert n == 3 or not torch.equal(given[0], given[2])


def test_without_a_generator_the_draw_is_the_same_and_no_global_one_is_touched() -> None:
    updates, rule = normal(9, 4), Bucketing(2, Median())
    before = torch.get_rng_state()
    assert torch.equal(rule(updates), rule(updates))
    assert torch.equal(torch.get_rng_state(), before)


def test_bucketing_names_the_rows_of_the_buckets_that_were_kept() -> None:
    updates = normal(11, 5)
    got = Bucketing(2, Recorder([])).aggregate(updates, Context())
    second, third = oracles.buckets(11, 2)[1:3]
    assert got.kept is not None
    assert got.kept.tolist() == sorted([*second, *third])


def test_a_bucket_has_the_counts_of_its_rows_together_and_a_mix_its_clients() -> None:
    updates, counts = normal(5, 4), torch.tensor([1, 10, 100, 1000, 10000])
    given: list[Any] = []
    Bucketing(2, Recorder(given))(updates, Context(counts=counts))
    assert given[0][1].counts.tolist() == [
        sum(10**i for i in bucket) for bucket in oracles.buckets(5, 2)
    ]
    mixed(1, Recorder(given))(updates, Context(counts=counts))
    assert torch.equal(given[1][1].counts, counts)
    # With equal counts, the mean of bucket means is the mean, also where one bucket is smaller.
    equal = Context(counts=torch.full((5,), 7))
    torch.testing.assert_close(Bucketing(2, Mean())(updates, equal), Mean()(updates))


@wrappers
def test_memory_root_and_generator_pass_through(wrap: Any) -> None:
    given: list[Any] = []
    context = Context(memory="old", root=torch.ones(4), generator=torch.Generator())
    answer = wrap(1, Recorder(given)).aggregate(normal(7, 4), context)
    assert answer.memory == "new"
    seen = given[0][1]
    assert (seen.memory, seen.root, seen.generator) == ("old", context.root, context.generator)
    clipping = wrap(1, CenteredClipping(0.1))
    first = clipping.aggregate(normal(7, 4), Context())
    second = clipping.aggregate(normal(7, 4), Context(memory=first.memory))
    assert not torch.equal(first.vector, second.vector)


@wrappers
def test_a_trusting_rule_within_is_known_to_need_a_root(wrap: Any) -> None:
    assert rooted(wrap(1, FLTrust()))
    assert rooted(wrap(1, wrap(1, FLTrust())))
    assert not rooted(wrap(1, Median()))
    assert not rooted(wrap(1, lambda rows: rows[0]))
    with pytest.raises(ValueError, match=r"set server\.root"):
        wrap(1, FLTrust())(normal(7, 4))


def test_the_rule_within_is_checked_with_the_rows_that_it_will_see() -> None:
    message = (
        r"^Bucketing hands its rule n = 6 rows: Krum needs n >= 2f \+ 3: n = 6, f = 2 needs 7$"
    )
    Bucketing(2, Krum(2)).check(13)
    with pytest.raises(ValueError, match=message):
        Bucketing(2, Krum(2)).check(12)
    with pytest.raises(ValueError, match=r"^NearestNeighborMixing hands .* Krum needs"):
        mixed(2, Krum(2)).check(6)
    with pytest.raises(ValueError, match=r"^NearestNeighborMixing needs n > 2f: n = 4, f = 2"):
        mixed(2, Median()).check(4)
    with pytest.raises(
        ValueError, match=r"^Bucketing hands .* Bucketing hands its rule n = 3 rows"
    ):
        Bucketing(2, Bucketing(2, Krum(1))).check(12)


@wrappers
def test_both_tolerances_fall_with_dropped_rows(wrap: Any) -> None:
    assert wrap(4, Krum(4)).tolerating(1) == wrap(3, Krum(3))
    assert wrap(4, Krum(4)).tolerating(9) == wrap(0, Krum(0))
    deep = wrap(4, Bucketing(2, TrimmedMean(4)))
    assert deep.tolerating(3) == wrap(1, Bucketing(2, TrimmedMean(1)))
    plain = wrap(2, Mean())
    assert plain.tolerating(1) == wrap(1, Mean())


@wrappers
def test_the_server_drops_rows_that_are_not_finite_inside_too(wrap: Any) -> None:
    updates = normal(17, 5)
    updates[3, 1], updates[8, 0] = torch.nan, torch.inf
    good = [i for i in range(17) if i not in (3, 8)]
    counts = torch.arange(1.0, 18.0)
    outcome = aggregate(wrap(3, MultiKrum(3, m=2)), updates, Context(counts=counts))
    want = wrap(1, MultiKrum(1, m=2)).aggregate(updates[good], Context(counts=counts[good]))
    assert outcome.dropped == (3, 8)
    assert outcome.vector is not None
    assert torch.equal(outcome.vector, want.vector)
    assert outcome.kept is not None
    assert want.kept is not None
    assert outcome.kept.tolist() == [good[i] for i in want.kept]
    few = aggregate(wrap(2, Krum(7)), updates[:11], Context())
    assert few.vector is None
    assert "Krum needs n >= 2f + 3" in str(few.reason)


@wrappers
def test_any_rule_of_a_users_own_may_stand_within(wrap: Any) -> None:
    updates = normal(7, 4)
    assert wrap(1, lambda rows: rows.mean(dim=0))(updates).shape == (4,)
    wrap(1, lambda rows: rows[0]).check(1 + 2)
    with pytest.raises(ConfigError, match=r"must give one tensor \[4\]"):
        wrap(1, lambda rows: rows[:1])(updates)
    inner = wrap(1, Recorder([]))
    assert inner.tolerating(1).rule is inner.rule


@component
class Server:
    aggregator: AnyAggregator


def test_a_wrapper_within_a_wrapper_is_a_config_value() -> None:
    rule = Bucketing(2, NearestNeighborMixing(1, MultiKrum(1, m=2)))
    config = to_config(rule)
    assert config == {
        "name": "bucketing",
        "s": 2,
        "rule": {
            "name": "nearest-neighbor-mixing",
            "f": 1,
            "rule": {"name": "multi-krum", "f": 1, "m": 2, "neighbours": "n-f-2"},
        },
    }
    assert from_config(Server, {"aggregator": config}).aggregator == rule
    config["rule"]["rule"]["neighbors"] = "n-f-1"
    with pytest.raises(ConfigError, match=r"aggregator\.rule\.rule\.neighbors: unknown key"):
        from_config(Server, {"aggregator": config})


@wrappers
@pytest.mark.parametrize("rule", ["krum", 3, None, Krum])
def test_what_is_no_rule_is_refused(wrap: Any, rule: Any) -> None:
    with pytest.raises(ValueError, match=r"must be a mapping with a name|no aggregator"):
        wrap(1, rule)


def test_replace_keeps_the_rule_within() -> None:
    assert replace(mixed(2, Krum(1)), f=1) == mixed(1, Krum(1))
