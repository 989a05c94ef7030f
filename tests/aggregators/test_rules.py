"""Every rule is the one of its definition, and has the properties its theory gives it."""

import math
from dataclasses import replace

import pytest
import rule_oracles as oracles
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from largest_tensor import LargestTensor
from rule_table import (
    BOUNDED,
    MATRICES,
    MOVING,
    TYING,
    Rule,
    every_rule,
    feasible,
    heavy_tailed,
    most_f,
    normal,
    with_outliers,
)
from torch import Tensor

from fedrobust.aggregators import (
    Bulyan,
    Context,
    Krum,
    Mean,
    MeanAroundMedian,
    Median,
    MultiKrum,
)


def agrees(rule: Rule, f: int, updates: Tensor, case: str = "", wider: bool = False) -> None:
    """``rule`` selects the oracle's rows, and its vector is the oracle's but for rounding.

    ``wider``: also where the same numbers are given in float64.
    """
    answer = rule.oracle(updates.double().tolist(), f)
    is_that(rule, f, updates, answer, case)
    if wider:
        is_that(rule, f, updates.double(), answer, f"{case}, float64")


def is_that(rule: Rule, f: int, updates: Tensor, answer: oracles.Answer, case: str) -> None:
    got = rule.aggregate(f, updates)
    assert (None if got.kept is None else got.kept.tolist()) == answer.kept, case
    assert got.kept is None or got.kept.dtype == torch.int64, case
    assert got.vector.dtype == updates.dtype, case
    assert got.vector.shape == updates.shape[1:], case
    want = torch.tensor(answer.vector, dtype=torch.float64)
    size = torch.tensor(answer.size, dtype=torch.float64)
    info = torch.finfo(updates.dtype)
    slack = (2 * info.eps if rule.rounds else 1e-14) * size + torch.tensor(answer.error)
    slack += info.eps * want.abs() + info.smallest_normal * info.eps
    assert ((got.vector.double() - want).abs() <= slack).all(), case


@pytest.mark.slow
@every_rule
def test_is_the_rule_of_its_definition(rule: Rule) -> None:
    for name, matrix in MATRICES.items():
        for n, f, d in [
            (rule.least(0), 0, 3),
            (rule.least(1), 1, 1),
            (rule.least(2), 2, 40),
            (17, 1, 9),
            (24, most_f(rule, 24), 33),
            (51, most_f(rule, 51), 17),
            (60, 12, 100),
        ]:
            if not feasible(rule, n, f):
                continue
            agrees(rule, f, matrix(n, d, f), f"{name}, n = {n}, f = {f}", wider=True)


@pytest.mark.slow
@every_rule
def test_is_the_rule_of_its_definition_in_a_thousand_coordinates(rule: Rule) -> None:
    agrees(rule, most_f(rule, 60), with_outliers(60, 1000, most_f(rule, 60)))


awkward = st.sampled_from([-1e-3, 1e-3, 0.0, 1.0, 1.0 + 2**-23, -1.0, 3.0, 1e30, -1e30, 1.5e38])


@pytest.mark.slow
@pytest.mark.parametrize("rule", TYING.values(), ids=TYING)
@settings(derandomize=True, deadline=None, max_examples=150, database=None)
@given(data=st.data())
def test_is_the_rule_of_its_definition_where_values_tie(rule: Rule, data: st.DataObject) -> None:
    f = data.draw(st.integers(0, 2))
    n = data.draw(st.integers(rule.least(f), rule.least(f) + 4))
    d = data.draw(st.integers(1, 3))
    rows = st.lists(awkward, min_size=d, max_size=d)
    values = data.draw(st.lists(rows, min_size=n, max_size=n))
    agrees(rule, f, torch.tensor(values, dtype=torch.float32))


@pytest.mark.slow
@settings(derandomize=True, deadline=None, max_examples=300, database=None)
@given(
    values=st.lists(st.sampled_from([i * 0.001 for i in range(-4, 5)]), min_size=1, max_size=11),
    data=st.data(),
)
def test_the_closest_values_are_those_of_the_definition_without_rounding(
    values: list[float], data: st.DataObject
) -> None:
    f = data.draw(st.integers(0, (len(values) - 1) // 2))
    column = torch.tensor(values, dtype=torch.float32)[:, None]
    closest = oracles.closest_by_definition(column[:, 0].tolist(), len(values) - 2 * f)
    want = torch.tensor([math.fsum(closest) / len(closest)])
    torch.testing.assert_close(MeanAroundMedian(f)(column), want, rtol=2e-7, atol=1e-18)


@every_rule
def test_does_not_depend_on_the_order_of_the_rows(rule: Rule) -> None:
    if rule.ordered:
        pytest.skip("the order of the rows is a draw")
    for n in (15, 20):
        f, updates = most_f(rule, n), heavy_tailed(n, 50)
        order = torch.randperm(n, generator=torch.Generator().manual_seed(3))
        before, after = rule.aggregate(f, updates), rule.aggregate(f, updates[order])
        if before.kept is not None:
            assert torch.equal(order[after.kept].sort().values, before.kept), f"n = {n}"
        tolerance = 0 if rule.same_bits else 1e-6
        torch.testing.assert_close(after.vector, before.vector, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("rule", MOVING.values(), ids=MOVING)
def test_moves_with_a_translation(rule: Rule) -> None:
    for offset in (1.0, -1e3, 1e6):
        # Multiples of 2^-20: the translated rows are exact.
        updates = (normal(15, 50).double() * 2**20).round() / 2**20
        f = most_f(rule, 15)
        here, there = rule.aggregate(f, updates), rule.aggregate(f, updates + offset)
        assert here.kept is None or torch.equal(here.kept, there.kept), f"{offset}"
        torch.testing.assert_close(there.vector - offset, here.vector, rtol=0, atol=1e-8)


@every_rule
def test_scales_with_a_power_of_two_exactly(rule: Rule) -> None:
    for scale in (0.0, 2.0**-70, 0.25, 2.0**50):
        f, updates = most_f(rule, 15), normal(15, 50)
        if rule.length is None or scale == 0:
            scaled = rule
        else:
            made = rule.make(f)
            longer = replace(made, **{rule.length: scale * getattr(made, rule.length)})
            scaled = replace(rule, make=lambda f, longer=longer: longer)
        assert torch.equal(scaled(f, scale * updates), scale * rule(f, updates)), f"{scale}"


@pytest.mark.parametrize("rule", MOVING.values(), ids=MOVING)
def test_equal_rows_give_that_row_without_overflow(rule: Rule) -> None:
    for value in (3e38, -3e38, 1e-40):
        n = 15
        updates = torch.full((n, 4), value)
        assert torch.equal(rule(most_f(rule, n), updates), updates[0]), f"{value}"
        greatest = torch.full((n, 4), 1.7e308, dtype=torch.float64)
        torch.testing.assert_close(rule(0, greatest), greatest[0], rtol=1e-15, atol=0)


@pytest.mark.parametrize("size", [3e38, 1.7e308])
def test_an_even_median_of_huge_values_does_not_overflow(size: float) -> None:
    dtype = torch.float32 if size < 1e39 else torch.float64
    updates = torch.tensor([[size], [size], [-size], [size]], dtype=dtype)
    assert Median()(updates).item() == updates[0].item()
    assert Median()(updates[1:3]).item() == 0


@pytest.mark.parametrize("rule", BOUNDED.values(), ids=BOUNDED)
def test_a_coordinate_leaves_the_benign_range_no_further_than_claimed(rule: Rule) -> None:
    for seed in range(8):
        n = 19
        f = most_f(rule, n)
        benign = heavy_tailed(n - f, 200)
        low, high = benign.min(dim=0).values, benign.max(dim=0).values
        # Just outside the range, far outside, at its edge, on one side and on both.
        factor = [0.01, 1e20, 0.0, 3.0][seed % 4]
        side = normal(f, 200, seed).sign() if seed < 4 else torch.ones(f, 200)
        byzantine = torch.where(side > 0, high + factor * (high - low), low - factor * (high - low))
        got = rule(f, torch.cat([byzantine, benign]))
        room = rule.stretch * (high - low) * (1 + 1e-5)
        assert (got >= low - room).all(), f"seed {seed}"
        assert (got <= high + room).all(), f"seed {seed}"


@every_rule
def test_outliers_do_bounded_harm(rule: Rule) -> None:
    for n in (11, 19, 30):
        f = most_f(rule, n)
        size = with_outliers(n, 100, f)
        result = rule.aggregate(f, size)
        if not rule.robust:
            assert result.vector.norm() > 1e25, f"n = {n}"
            continue
        assert result.vector.abs().max() < 10, f"n = {n}"
        huge = size.double()
        huge[huge.abs() > 1e29] *= 1e170
        harmed = rule(f, huge)
        assert harmed.abs().max() < 10, f"n = {n}"
        torch.testing.assert_close(harmed.float(), result.vector, rtol=1e-6, atol=1e-7)


def test_of_bulyans_second_stages_one_follows_equal_rows_from_afar() -> None:
    """In its last pick each of two equal rows has another one at distance 0."""
    benign = normal(9, 50)
    rows = torch.cat([benign, benign.new_full((2, 50), 1e6)])
    assert Bulyan(2)(rows).abs().max() <= benign.abs().max()
    found = Bulyan(2, second_stage="n-2f").aggregate(rows, Context())
    assert found.kept is not None
    assert len({9, 10} & set(found.kept.tolist())) == 1
    assert found.vector.min() > 1e5
    assert Bulyan(2, "n-2f").tolerating(1) == Bulyan(1, "n-2f")


def test_mean_weighs_rows_by_the_servers_counts() -> None:
    updates = normal(4, 10)
    counts = torch.tensor([1, 0, 5, 2])
    want = (counts[:, None] * updates.double()).sum(dim=0) / 8
    got = Mean()(updates, Context(counts=counts))
    torch.testing.assert_close(got.double(), want, rtol=1e-7, atol=1e-8)
    big = torch.full((4, 2), 1.7e308, dtype=torch.float64)
    assert Mean()(big, Context(counts=counts * 10**9)).isfinite().all()
    torch.testing.assert_close(Mean()(updates, Context(counts=counts * 10**9)), got)


def test_a_tie_at_plus_and_minus_lr_takes_the_lower() -> None:
    lr = torch.tensor([-0.1, -0.1, 0.0, 0.1, 0.1])[:, None]
    assert MeanAroundMedian(1)(lr).item() == pytest.approx(-0.2 / 3)
    assert MeanAroundMedian(2)(lr).item() == 0
    # Both are at distance 1 of the median in float32; in truth the upper one is closer.
    near = torch.tensor([-1.0, 2.0**-30, 2.0**-30, 1.0, 9.0])[:, None]
    assert MeanAroundMedian(1)(near).item() == pytest.approx(1 / 3)
    even = torch.tensor([-0.1, -0.1, 0.1, 0.1])[:, None]
    assert MeanAroundMedian(1)(even).item() == pytest.approx(-0.1)


def test_krum_answers_with_a_row_as_it_was_sent() -> None:
    updates = 1e3 + 1e-3 * normal(9, 30)
    result = Krum(f=2).aggregate(updates, Context())
    (row,) = result.kept.tolist()
    assert torch.equal(result.vector, updates[row])
    result.vector.zero_()
    assert updates[row].any()


def test_multi_krum_takes_m_rows() -> None:
    updates = normal(9, 30)
    for m in range(1, 10):
        kept = MultiKrum(2, m=m).aggregate(updates, Context()).kept
        assert kept.tolist() == oracles.multi_krum(updates.double().tolist(), 2, m).kept
    assert torch.equal(MultiKrum(2, m=1)(updates), Krum(2)(updates))


@every_rule
def test_autograd_history_is_not_carried_along(rule: Rule) -> None:
    assert not rule(0, normal(5, 4).requires_grad_()).requires_grad


@pytest.mark.slow
@every_rule
def test_three_hundred_rows_need_no_second_copy_but_the_mix_itself(rule: Rule) -> None:
    f = 0 if rule.sets else 60
    updates = 1e3 + normal(300, 20_000)
    context = rule.context(updates)
    with LargestTensor() as largest:
        rule.make(f).aggregate(updates, context)
    copies = {"nearest-neighbor-mixing": 1, "bucketing": 1 / 2}.get(rule.make(f).name, 0)
    assert largest.bytes <= max(8 << 20, copies * updates.numel() * 4)
