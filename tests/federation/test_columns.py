"""Rounds whose updates are never a matrix, on a backend of this process: the bits of LOCAL."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from fedrobust import Streams, run_round
from fedrobust.aggregators import Aggregator, Bulyan, Context, Krum, Mean, Median, TrimmedMean
from fedrobust.attacks import ALittleIsEnough, GaussianNoise, LabelFlip
from fedrobust.errors import ConfigError
from fedrobust.federation.backends import LOCAL
from fedrobust.federation.columns import Merged
from fedrobust.federation.server import Outcome, aggregate, aggregate_columns
from fedrobust.federation.state import Federation

ROWS = torch.randn(11, 50, generator=torch.Generator().manual_seed(0))


@dataclass
class Kept:
    """A matrix that is given in blocks of seven coordinates."""

    matrix: Tensor
    finite: Sequence[bool] = ()
    asked: int = 0
    """The rows that were asked for, in all passes."""

    def __post_init__(self) -> None:
        self.finite = self.finite or self.matrix.isfinite().all(dim=1).tolist()

    @property
    def n(self) -> int:
        return len(self.matrix)

    @property
    def d(self) -> int:
        return self.matrix.shape[1]

    @property
    def dtype(self) -> torch.dtype:
        return self.matrix.dtype

    def blocks(self, rows: Sequence[int] | None = None) -> Iterator[Tensor]:
        wanted = list(range(self.n) if rows is None else rows)
        self.asked += len(wanted)
        for part in self.matrix.split(7, dim=1):
            yield part[wanted].clone()


def spoiled(*which: int) -> Tensor:
    rows = ROWS.clone()
    for i in which:
        rows[i, 3] = torch.nan
    return rows


def same(found: Outcome, want: Outcome) -> None:
    assert (found.vector is None) == (want.vector is None)
    if found.vector is not None and want.vector is not None:
        assert torch.equal(found.vector, want.vector)
    assert (found.kept is None) == (want.kept is None)
    if found.kept is not None and want.kept is not None:
        assert found.kept.tolist() == want.kept.tolist()
    assert (found.dropped, found.reason, found.memory) == (want.dropped, want.reason, want.memory)


@pytest.mark.parametrize("rule", [Mean(), Median(), TrimmedMean(2), Krum(2), Bulyan(2)])
@pytest.mark.parametrize(
    ("bad", "refused"), [((), ()), ((0, 7), ()), ((1,), (4, 1)), (range(9), ()), (range(11), ())]
)
def test_the_books_of_the_server_are_those_of_a_matrix(
    rule: Aggregator, bad: Sequence[int], refused: tuple[int, ...]
) -> None:
    context = Context(counts=torch.arange(1.0, 12.0), memory="kept")
    rows = spoiled(*bad)
    want = aggregate(rule, rows, context, refused)
    found = aggregate_columns(rule, Kept(rows), context, refused)
    if want.vector is not None:  # rules that have no memory return none
        assert want.dropped == tuple(sorted({*bad, *refused}))
    same(found, want)


def test_a_vector_that_is_not_finite_is_no_step() -> None:
    rows = torch.full((3, 4), 3e38)

    class Doubles(Median):
        by_coordinate = True

        def aggregate(self, updates: Tensor, context: Context) -> Any:
            answer = super().aggregate(updates, context)
            return type(answer)(2 * answer.vector)

    same(aggregate_columns(Doubles(), Kept(rows), Context()), aggregate(Doubles(), rows, Context()))
    assert aggregate(Doubles(), rows, Context()).vector is None


def test_rows_of_malicious_clients_are_fetched_once_and_lie_beside_the_others() -> None:
    columns = Kept(spoiled(2)[:4])
    merged = Merged.of(columns, [10, 20, 30, 40, 50], [20, 50], [0, 1, 2, 3], ROWS)
    assert columns.asked == 1  # client 50 has not trained
    assert torch.equal(merged.rows[0], ROWS[1])
    assert merged.rows[1].tolist() == [0.0] * 50
    merged.rows[:] = torch.tensor([[1.0], [torch.inf]])
    assert merged.finite == [True, True, False, True, False]
    whole = torch.cat(list(merged.blocks()), dim=1)
    assert whole.shape == (5, 50)
    assert torch.equal(whole[[0, 3]], ROWS[[0, 3]])
    assert whole[1].tolist() == [1.0] * 50
    assert whole[4].isinf().all()
    some = torch.cat(list(merged.blocks([1, 3])), dim=1)
    assert torch.equal(some, whole[[1, 3]])


class Away:
    """Local training as LOCAL has it, whose rows are given in blocks."""

    def local_updates(self, *given: Any) -> Kept:
        return Kept(LOCAL.local_updates(*given))


def federation(**changes: Any) -> Federation:
    draw = torch.Generator().manual_seed(1)
    clients = [(torch.rand(30, 8, generator=draw), torch.arange(30) % 3) for _ in range(11)]
    made = Federation.of(torch.nn.Linear(8, 3), clients, **changes)
    # Not the first ones, so that their places among all and among themselves differ.
    return replace(made, malicious=frozenset((3, 8)[: len(made.malicious)]))


@pytest.mark.parametrize("rule", [TrimmedMean(2), Krum(2), Bulyan(2)], ids=lambda r: r.name)
@pytest.mark.parametrize(
    "attack",
    [None, LabelFlip(), GaussianNoise(0.1), ALittleIsEnough(k=-1.0)],
    ids=lambda a: getattr(a, "name", "nobody"),
)
@pytest.mark.parametrize("colluders", [True, False])
def test_rounds_have_the_bits_of_local(rule: Any, attack: Any, colluders: bool) -> None:
    if attack is not None and attack.name == "a-little-is-enough" and not colluders:
        pytest.skip("it needs colluders")
    played = federation(
        aggregator=rule,
        attack=attack,
        malicious=0 if attack is None else 2,
        threat={"colluders": colluders, "clients": True},
    )
    here = there = played.start()
    rng = Streams(seed=1)
    for _ in range(3):
        here, log = run_round(here.clone(), played, rng)
        there, other = run_round(there.clone(), played, rng, backend=Away())
        same(other.outcome, log.outcome)
    assert torch.equal(here.parameters, there.parameters)


class Counts:
    """An attack that sends how many clients take part, as it is told."""

    def craft(self, state: None, view: Any, rng: Any) -> tuple[Tensor, None]:
        return torch.full((view.rows, len(view.parameters)), float(view.clients)), None


def test_an_attacker_is_told_the_number_of_all_clients() -> None:
    played = federation(attack=Counts(), malicious=2, threat={"clients": True})
    here, _ = run_round(played.start(), played, Streams(seed=1))
    there, _ = run_round(played.start(), played, Streams(seed=1), backend=Away())
    assert torch.equal(here.parameters, there.parameters)
    assert here.parameters.mean() > 1


def test_an_action_and_rows_of_the_wrong_shape() -> None:
    played = federation(aggregator=Bulyan(2), attack=LabelFlip(), malicious=2)
    rng, start = Streams(seed=1), played.start()
    for action in (torch.full((2, 27), 0.5), torch.zeros(2, 26), torch.full((2, 27), torch.nan)):
        _, log = run_round(start.clone(), played, rng, action=action)
        _, other = run_round(start.clone(), played, rng, action=action, backend=Away())
        same(other.outcome, log.outcome)
    assert len(other.dropped) == 2


@pytest.mark.parametrize("granted", ["benign", "rule"])
def test_an_attack_that_sees_whole_rows_of_all_is_refused(granted: str) -> None:
    played = federation(
        aggregator=Median(), attack=LabelFlip(), malicious=2, threat={granted: True}
    )
    with pytest.raises(ConfigError, match=rf"threat\.{granted}: true the attack .* all 11 clients"):
        run_round(played.start(), played, Streams(seed=1), backend=Away())
    rows = torch.zeros(2, 27)
    run_round(played.start(), played, Streams(seed=1), backend=Away(), action=rows)
