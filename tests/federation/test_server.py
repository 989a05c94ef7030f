"""The server refuses what is not finite or misshapen, and its tolerance pays for it."""

from typing import Any

import pytest
import torch
from torch import Tensor

from fedrobust.aggregators import (
    Bulyan,
    Context,
    FLTrust,
    GeometricMedian,
    Krum,
    Mean,
    Median,
)
from fedrobust.errors import ConfigError
from fedrobust.federation.server import Outcome, Server, aggregate, place

ROWS = torch.randn(11, 5, generator=torch.Generator().manual_seed(0))


def spoiled(*which: int, value: float = float("nan")) -> Tensor:
    rows = ROWS.clone()
    for i in which:
        rows[i, 3] = value
    return rows


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_rows_that_are_not_finite_are_dropped_and_f_falls(value: float) -> None:
    outcome = aggregate(Bulyan(2), spoiled(1, 7, value=value), Context())
    rest = ROWS[[0, 2, 3, 4, 5, 6, 8, 9, 10]]
    assert outcome.dropped == (1, 7)
    assert outcome.vector is not None
    assert torch.equal(outcome.vector, Bulyan(0)(rest))
    assert outcome.kept is not None
    assert outcome.kept.tolist() == [0, 2, 3, 4, 5, 6, 8, 9, 10]


def test_kept_rows_are_those_of_the_rounds_matrix() -> None:
    outcome = aggregate(Krum(2), spoiled(0), Context())
    alone = Krum(1).aggregate(ROWS[1:], Context())
    assert alone.kept is not None
    assert outcome.kept is not None
    assert outcome.kept.tolist() == (alone.kept + 1).tolist()
    assert outcome.vector is not None
    assert torch.equal(outcome.vector, ROWS[int(outcome.kept)])


def test_sample_counts_follow_the_rows() -> None:
    counts = torch.arange(1.0, 12.0)
    outcome = aggregate(Mean(), spoiled(4), Context(counts=counts))
    good = [i for i in range(11) if i != 4]
    expected = (counts[good, None] * ROWS[good]).sum(0) / counts[good].sum()
    assert outcome.vector is not None
    torch.testing.assert_close(outcome.vector, expected)


def test_no_step_where_the_condition_fails_and_it_says_so() -> None:
    outcome = aggregate(Krum(4), spoiled(*range(9)), Context(memory="kept"))
    assert outcome.vector is None
    assert outcome.reason is not None
    assert "9 rows" in outcome.reason
    assert "n >= 2f + 3" in outcome.reason
    assert outcome.memory == "kept"
    nothing = aggregate(Median(), spoiled(*range(11)), Context())
    assert nothing.vector is None
    assert "no row" in str(nothing.reason)


def test_a_rule_with_too_few_rows_is_not_blamed_on_rows_that_were_not_dropped() -> None:
    few = aggregate(Krum(2), ROWS[:3], Context())
    assert few.vector is None
    assert few.dropped == ()
    assert few.reason == "3 clients took part: Krum needs n >= 2f + 3: n = 3, f = 2 needs 7"
    alone = aggregate(Krum(2), ROWS[:1], Context())
    assert str(alone.reason).startswith("1 client took part: Krum needs")
    rows = spoiled(0)[:3]
    assert aggregate(Krum(2), rows, Context()).reason == (
        "1 row was missing, not finite or of the wrong shape, which leaves 2: "
        "Krum needs n >= 2f + 3: n = 2, f = 1 needs 5"
    )
    assert aggregate(Median(), ROWS[:0], Context()).reason == (
        "0 clients took part: there are no rows to aggregate"
    )


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_what_is_placed_is_dense_and_real_and_has_no_history() -> None:
    sent = torch.full((2, 5), 1.5)
    for unfit in (
        sent.to_sparse(),
        sent.to("meta"),
        sent.to(torch.complex64),
        torch.nested.nested_tensor(list(sent)),
        torch.quantize_per_tensor(sent, 0.1, 0, torch.qint8),
    ):
        rows = ROWS.clone()
        assert "in place of rows [2, 5]" in place(rows, [2, 5], unfit)
        assert torch.equal(rows, ROWS)
    for numbers in (sent.long(), sent > 0, sent.double(), sent.clone().requires_grad_()):
        rows = ROWS.clone()
        assert place(rows, [2, 5], numbers) == ""
        assert torch.equal(rows[[2, 5]], numbers.detach().float())
        assert not rows.requires_grad
    kept = ROWS.clone()
    place(kept, [2, 5], sent.requires_grad_(), graph=True)
    assert kept.requires_grad


class OwnProjection:
    """A user's set, by what it makes of the parameters."""

    def __init__(self, made: Any) -> None:
        self.made = made

    def project(self, parameters: Tensor) -> Any:
        return self.made(parameters)


NO_POINTS: dict[str, tuple[Any, str]] = {
    "array": (lambda p: p.numpy(), "a value of type ndarray"),
    "short": (lambda p: p[1:], r"a tensor torch.float32, \[1\]"),
    "nan": (lambda p: p * torch.nan, "one that is not finite"),
    "none": (lambda p: None, "None"),
}


@pytest.mark.parametrize(("made", "message"), NO_POINTS.values(), ids=NO_POINTS)
def test_an_own_projection_that_gives_no_point_is_told(made: Any, message: str) -> None:
    server = Server(projection=OwnProjection(made))
    with pytest.raises(ConfigError, match="projection OwnProjection must give the nearest") as told:
        server.step(torch.ones(2), Outcome(torch.ones(2), None))
    told.match(f"it gave {message}$")


def test_an_own_projection_may_write_to_what_it_gets() -> None:
    server = Server(projection=OwnProjection(lambda p: p.clamp_(0, 1)))
    inside, outcome, _ = server.step(torch.ones(2), Outcome(torch.ones(2), None))
    assert inside.tolist() == [1.0, 1.0]
    assert outcome.projected


def test_misshapen_rows_are_refused() -> None:
    rows = ROWS.clone()
    assert place(rows, [2, 5], torch.zeros(2, 4)) == (
        "a tensor torch.float32, [2, 4] in place of rows [2, 5]"
    )
    assert torch.equal(rows, ROWS)
    assert place(rows, [2, 5], torch.ones(2, 5)) == ""
    assert torch.equal(rows[[2, 5]], torch.ones(2, 5))
    refused = aggregate(Krum(2), ROWS, Context(), refused=(3,))
    assert refused.dropped == (3,)


def test_a_step_that_overflows_is_not_made() -> None:
    parameters = torch.full((2,), 3e38)
    after, outcome, _ = Server(lr=2.0).step(parameters, Outcome(parameters.clone(), None))
    assert torch.equal(after, parameters)
    assert outcome.vector is None
    assert "not finite" in str(outcome.reason)
    after, _, _ = Server(lr=0.5).step(torch.ones(2), Outcome(torch.full((2,), 4.0), None))
    assert after.tolist() == [3.0, 3.0]


@pytest.mark.parametrize("answer", [lambda r: r.mean(), lambda r: r[:1], lambda r: None])
def test_a_users_rule_that_gives_no_vector_is_refused(answer: Any) -> None:
    with pytest.raises(ConfigError, match=r"must give one tensor \[5\] for updates \[11, 5\]"):
        aggregate(answer, ROWS, Context())


def test_a_users_rule_may_be_a_plain_function() -> None:
    outcome = aggregate(lambda rows: rows[0], spoiled(0), Context())  # type: ignore[arg-type]
    assert outcome.vector is not None
    assert torch.equal(outcome.vector, ROWS[1])


def test_rows_without_an_answer_make_no_step_and_say_why() -> None:
    """An attacker must not be able to end a run by rows that are fit, but have no answer."""
    rows = torch.tensor([[1e200], [-1e200], [0.0], [1e180]], dtype=torch.float64)
    outcome = aggregate(GeometricMedian(), rows, Context(memory="kept"))
    assert outcome.vector is None
    assert "1e150 apart" in (outcome.reason or "")
    assert outcome.memory == "kept"
    root = torch.tensor([torch.nan], dtype=torch.float64)
    assert "NaN" in (aggregate(FLTrust(), rows, Context(root=root)).reason or "")
    with pytest.raises(ValueError, match=r"server\.root"):
        aggregate(FLTrust(), rows, Context())
