"""A user's own rule: what it may answer, and what it is told it did wrong."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fedrobust.aggregators import (
    Aggregation,
    Bucketing,
    Context,
    GeometricMedian,
    Krum,
    Mean,
    NearestNeighborMixing,
    NormBound,
)
from fedrobust.aggregators.aggregator import apply
from fedrobust.errors import ConfigError
from fedrobust.federation.server import aggregate

ROWS = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))


class Keeping:
    """Keeps what it is told to, and averages everything."""

    def __init__(self, kept: Any) -> None:
        self.kept = kept

    def aggregate(self, updates: Tensor, context: Context) -> Aggregation:
        return Aggregation(updates.mean(dim=0), self.kept)


MASK = [False, True, False, False, True, True]
KEPT: dict[str, Any] = {
    "mask": torch.tensor(MASK),
    "mask in an array": np.array(MASK),
    "mask in a list": MASK,
    "indices": torch.tensor([5, 1, 4]),
    "twice": torch.tensor([5, 1, 4, 1]),
    "small": torch.tensor([1, 4, 5], dtype=torch.uint8),
    "array": np.array([4, 1, 5]),
    "list": [5, 4, 1],
    "tuple": (1, 4, 5),
}


@pytest.mark.parametrize("kept", KEPT.values(), ids=KEPT)
def test_what_a_rule_kept_becomes_ascending_indices(kept: Any) -> None:
    """A mask was read as the indices 0 and 1."""
    answer = apply(Keeping(kept), ROWS, Context())  # type: ignore[arg-type]
    assert answer.kept is not None
    assert answer.kept.dtype == torch.int64
    assert answer.kept.tolist() == [1, 4, 5]
    outcome = aggregate(Keeping(kept), ROWS, Context())  # type: ignore[arg-type]
    assert outcome.kept is not None
    assert outcome.kept.tolist() == [1, 4, 5]


def test_kept_rows_are_the_rounds_also_where_some_were_dropped() -> None:
    rows = torch.cat([ROWS[:1] * torch.nan, ROWS])
    outcome = aggregate(Keeping(torch.tensor(MASK)), rows, Context())  # type: ignore[arg-type]
    assert outcome.kept is not None
    assert outcome.kept.tolist() == [2, 5, 6]
    buckets = Bucketing(2, Keeping([True, False, False])).aggregate(ROWS, Context())
    assert buckets.kept is not None
    assert len(buckets.kept) == 2
    none = apply(Keeping([]), ROWS, Context()).kept  # type: ignore[arg-type]
    assert none is not None
    assert none.tolist() == []


NOT_KEPT: dict[str, tuple[Any, str]] = {
    "beyond": ([6], "it names row 6"),
    "negative": (torch.tensor([-1, 2]), "it names row -1"),
    "short mask": (torch.tensor([True, False]), r"it is a tensor torch.bool, \[2\]"),
    "floats": (torch.tensor([1.0, 2.0]), r"it is a tensor torch.float32, \[2\]"),
    "matrix": (torch.ones(6, 1, dtype=torch.long), r"\[6, 1\]"),
    "sparse": (torch.ones(6).to_sparse(), "it is a tensor that is sparse"),
    "text": ("all" * 10**5, "it is 'allall"),
    "names": (["a"], "it is a value of type list"),
    "number": (3, "it is a tensor torch.int64"),
}


@pytest.mark.parametrize(("kept", "message"), NOT_KEPT.values(), ids=NOT_KEPT)
def test_rows_that_there_are_not_cannot_be_kept(kept: Any, message: str) -> None:
    with pytest.raises(ConfigError, match="kept of the aggregator Keeping must be a mask") as told:
        aggregate(Keeping(kept), ROWS, Context())  # type: ignore[arg-type]
    told.match(message)
    told.match(r"mask \[6\], or indices from 0 to 5")
    assert len(str(told.value)) < 300


ANSWERS: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "list": (lambda r: [0.5] * 10**5, "a value of type list; use torch.tensor to convert numbers"),
    "tuple": (lambda r: (r[0], None), "a value of type tuple"),
    "array": (lambda r: r[0].numpy(), "of type ndarray; use torch.from_numpy to convert an array"),
    "none": (lambda r: None, "it gave None"),
    "row": (lambda r: r[:1], r"float32, \[1, 4\]; give its row \[0\]"),
    "number": (lambda r: r.mean(), r"float32, \[\]"),
    "sparse": (lambda r: r[0].to_sparse(), "one that is sparse"),
    "meta": (lambda r: r[0].to("meta"), "one that is on the meta device"),
    "complex": (lambda r: r[0].to(torch.complex64), "one that is complex"),
    "no tensor within": (lambda r: Aggregation(None), "it gave None"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize(("rule", "message"), ANSWERS.values(), ids=ANSWERS)
def test_an_answer_that_is_no_vector_is_told_shortly(rule: Any, message: str) -> None:
    for made in (rule, NearestNeighborMixing(1, rule)):
        with pytest.raises(ConfigError, match=r"must give one tensor \[4\]") as told:
            aggregate(made, ROWS, Context())
        told.match(message)
        assert len(str(told.value)) < 300


def test_a_rule_with_aggregate_must_return_an_aggregation() -> None:
    class Bare:
        name = "bare"

        def aggregate(self, updates: Tensor, context: Context) -> Any:
            return updates[0]

    with pytest.raises(ConfigError, match=r"aggregator bare must return an Aggregation .*it retur"):
        aggregate(Bare(), ROWS, Context())  # type: ignore[arg-type]


def test_whole_numbers_are_numbers_and_an_aggregation_is_an_answer() -> None:
    signs: Any = lambda rows: rows.sum(dim=0).sign().long()  # noqa: E731
    outcome = aggregate(signs, ROWS, Context())
    assert outcome.vector is not None
    assert torch.equal(outcome.vector, ROWS.sum(dim=0).sign())
    whole: Any = lambda rows: Aggregation(rows[2], [2], "memory")  # type: ignore[arg-type] # noqa: E731
    outcome = aggregate(whole, ROWS, Context())
    assert outcome.kept is not None
    assert (outcome.kept.tolist(), outcome.memory) == ([2], "memory")


def test_no_autograd_history_leaves_a_rule() -> None:
    weight = torch.ones(4, requires_grad=True)

    class Learnt:
        def aggregate(self, updates: Tensor, context: Context) -> Aggregation:
            vector = weight * updates.mean(dim=0)
            return Aggregation(vector, memory={"last": [vector]})

    outcome = aggregate(Learnt(), ROWS, Context())  # type: ignore[arg-type]
    assert outcome.vector is not None
    assert not outcome.vector.requires_grad
    assert torch.equal(outcome.vector, ROWS.mean(dim=0))
    memory: Any = outcome.memory
    assert not memory["last"][0].requires_grad
    kept = aggregate(Learnt(), ROWS, Context(), graph=True)  # type: ignore[arg-type]
    assert kept.vector is not None
    assert kept.vector.requires_grad


COUNTS = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], dtype=torch.float64)


@pytest.mark.parametrize(
    "rule",
    [
        Mean(),
        NormBound(1.0),
        GeometricMedian(weighted=True),
        Bucketing(2, Mean()),
        Bucketing(2, NormBound(1.0)),
        NearestNeighborMixing(1, Mean()),
    ],
)
def test_counts_weigh_the_same_whatever_their_unit(rule: Any) -> None:
    """Of counts that sum to infinity the mean was NaN, and other rules gave wrong answers."""
    for size in (1e-310, 1e-300, 2.0**-40, 1.0, 2.0**40, 2.5e307):
        want = rule(ROWS, Context(counts=COUNTS))
        got = rule(ROWS, Context(counts=COUNTS * size))
        exact = size in (1.0, 2.0**40, 2.0**-40)
        if exact:
            assert torch.equal(got, want), f"{size}"
        torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-7)


def test_counts_have_no_history() -> None:
    counts = COUNTS.clone().requires_grad_()
    for rule in (Mean(), NormBound(1.0), GeometricMedian(weighted=True), Bucketing(2, Mean())):
        assert not rule(ROWS, Context(counts=counts)).requires_grad


CONTEXTS: dict[str, tuple[dict[str, Any], str]] = {
    "counts list": ({"counts": [1] * 6}, "counts must be a tensor or None, got a value of type li"),
    "counts sparse": ({"counts": torch.ones(6).to_sparse()}, "counts must be a dense .* is sparse"),
    "counts complex": ({"counts": torch.ones(6).cfloat()}, "counts must be a dense.*complex"),
    "root array": ({"root": np.ones(4)}, "root must be a tensor or None, got a value of type nda"),
    "root meta": ({"root": torch.ones(4, device="meta")}, "root must be a dense .* meta device"),
    "seed": ({"generator": 0}, "generator must be a torch.Generator or None, got 0"),
}


@pytest.mark.parametrize(("fields", "message"), CONTEXTS.values(), ids=CONTEXTS)
def test_a_context_of_other_things_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^Context: {message}"):
        Context(**fields)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_updates_that_are_no_matrix_of_floats_are_refused() -> None:
    for wrong, message in (
        (ROWS.numpy(), r"one tensor \[n, d\], got ndarray; use torch.from_numpy to"),
        (ROWS.to_sparse(), "must be a dense tensor of plain numbers; this one is sparse"),
        (ROWS.to("meta"), "this one is on the meta device"),
        (torch.nested.nested_tensor(list(ROWS)), "this one is nested"),
        (torch.quantize_per_tensor(ROWS, 0.1, 0, torch.qint8), "this one is quantized"),
        (ROWS.to(torch.float8_e4m3fn), "must be floating point, got torch.float8_e4m3fn"),
        (ROWS[None], r"must be \[n, d\], got shape \[1, 6, 4\]"),
    ):
        with pytest.raises(ValueError, match=f"^Krum: .*{message}"):
            Krum(1)(wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^Krum: context must be a Context, got None"):
        Krum(1)(ROWS, None)  # type: ignore[arg-type]
    assert not Krum(1)(ROWS.clone().requires_grad_()).requires_grad
