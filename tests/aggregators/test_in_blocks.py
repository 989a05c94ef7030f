"""Rules on blocks of coordinates, against the same rules on the whole matrix."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from fedrobust.aggregators import (
    Aggregation,
    Aggregator,
    Bucketing,
    Bulyan,
    CenteredClipping,
    Context,
    GeometricMedian,
    Krum,
    Mean,
    MeanAroundMedian,
    Median,
    MinimumDiameterAveraging,
    MultiKrum,
    NearestNeighborMixing,
    TrimmedMean,
    in_blocks,
)
from fedrobust.aggregators.aggregator import NoAnswerError
from fedrobust.aggregators.in_blocks import SomeRows, aggregate_in_blocks, works_in_blocks
from fedrobust.aggregators.kernels.dispatch import columns_at_a_time, recut
from fedrobust.errors import ConfigError


@dataclass
class Cut:
    """A matrix that is handed out in blocks; each block is spoilt when the next is asked for."""

    matrix: Tensor
    widths: Sequence[int]
    passes: int = 0
    most: int = 0
    """The most entries that were handed out at a time."""

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
        self.passes += 1
        for part in self.matrix.split(self.widths, dim=1):
            block = part.clone() if rows is None else part[rows].clone()
            self.most = max(self.most, block.numel())
            yield block
            block.fill_(torch.nan)


def every(d: int, width: int) -> list[int]:
    """Blocks of one width, the last of which may be smaller."""
    return [width] * (d // width) + [d % width] * (d % width > 0)


def uneven(d: int) -> list[int]:
    """Blocks that become larger and smaller, from one coordinate on."""
    widths, step = list[int](), 1
    while (left := d - sum(widths)) > 0:
        widths.append(min(left, step))
        step = step * 3 if step < d // 4 else 1
    return widths


CUTS: dict[str, Callable[[int], list[int]]] = {
    "one block": lambda d: [d],
    "the last is smaller": lambda d: every(d, d // 3 - 1),
    "uneven": uneven,
    "all but one": lambda d: [d - 1, 1],
}


def normal(n: int, d: int, seed: int = 0) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def far(rows: Tensor) -> Tensor:
    rows = rows.clone()
    rows[1::5] = 1e30 * rows[1::5].sign()
    return rows


MATRICES: dict[str, Callable[[Tensor], Tensor]] = {
    "normal": lambda rows: rows,
    "offset": lambda rows: 1e3 + 1e-3 * rows,
    "far": far,
    "tiny": lambda rows: 1e-20 * rows,
    "ties": lambda rows: 0.004 * rows.sign(),
    "float64": lambda rows: rows.double() + 1e3,
    "half": lambda rows: rows.half(),
}

RULES: dict[str, Aggregator] = {
    "mean": Mean(),
    "median": Median(),
    "trimmed-mean": TrimmedMean(2),
    "mean-around-median": MeanAroundMedian(2),
    "krum": Krum(2),
    "krum of n-f-1": Krum(2, "n-f-1"),
    "multi-krum": MultiKrum(2),
    "multi-krum of 1": MultiKrum(2, m=1),
    "bulyan": Bulyan(2),
    "bulyan n-2f": Bulyan(2, second_stage="n-2f"),
    "minimum-diameter-averaging": MinimumDiameterAveraging(2),
}


def same(found: Aggregation, want: Aggregation) -> None:
    assert found.vector.dtype == want.vector.dtype
    assert torch.equal(found.vector, want.vector)
    assert (found.kept is None) == (want.kept is None)
    if found.kept is not None:
        assert want.kept is not None
        assert torch.equal(found.kept, want.kept)


@pytest.mark.parametrize("kind", MATRICES)
@pytest.mark.parametrize("name", RULES)
def test_the_bits_of_the_whole_matrix_for_every_cut(name: str, kind: str, path: str) -> None:
    rule = RULES[name]
    for n, d in ((11, 1700), (13, 37)):
        updates = MATRICES[kind](normal(n, d))
        context = Context(counts=torch.arange(n) + 1)
        want = rule.aggregate(updates, context)
        cuts = {each: cut(d) for each, cut in CUTS.items()} | {"ones": [1] * d if d < 99 else [d]}
        for widths in cuts.values():
            same(aggregate_in_blocks(rule, Cut(updates, widths), context), want)


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_bits_where_the_matrix_is_many_blocks_of_the_kernels(
    name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The matrix takes both paths where blocks alone would take one, and blocks of all widths."""
    from fedrobust.aggregators.kernels import compiled, dispatch

    monkeypatch.setattr(dispatch, "_BLOCK", 1 << 12)
    monkeypatch.setattr(compiled, "LEAST", 1 << 10)
    rule, n, d = RULES[name], 11, 5003
    updates = normal(n, d).to(dtype)
    context = Context(counts=torch.rand(n, generator=torch.Generator().manual_seed(1)))
    want = rule.aggregate(updates, context)
    for widths in (every(d, 700), every(d, 1), uneven(d), every(d, columns_at_a_time(n)), [d]):
        same(aggregate_in_blocks(rule, Cut(updates, widths), context), want)


@pytest.mark.parametrize("name", ["trimmed-mean", "krum", "bulyan", "multi-krum"])
def test_real_sizes(name: str) -> None:
    """Beyond a million entries nothing is patched."""
    rule, n, d = RULES[name], 24, 120_001
    updates = 1e3 + 1e-3 * normal(n, d)
    columns = Cut(updates, every(d, 20_000))
    same(aggregate_in_blocks(rule, columns, Context()), rule.aggregate(updates, Context()))
    assert columns.passes == (1 if name == "trimmed-mean" else 2)
    assert columns.most == n * 20_000


def test_rows_in_another_order_are_selected_in_that_order() -> None:
    updates = far(normal(15, 400))
    order = torch.randperm(15, generator=torch.Generator().manual_seed(2))
    # Bulyan's last picks compare two rows by their distance to each other, and so tie.
    for name in ("krum", "multi-krum", "minimum-diameter-averaging"):
        one = aggregate_in_blocks(RULES[name], Cut(updates, every(400, 90)), Context())
        other = aggregate_in_blocks(RULES[name], Cut(updates[order], every(400, 70)), Context())
        assert one.kept is not None
        assert other.kept is not None
        assert sorted(order[other.kept].tolist()) == one.kept.tolist()
        torch.testing.assert_close(one.vector, other.vector)


def test_distances_of_some_blocks_only_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that only the first coordinates set apart, and that seem closest by the last ones."""
    monkeypatch.setattr(in_blocks, "recut", lambda blocks, n: blocks)
    updates = 0.1 * normal(11, 300)
    updates[:2, :50] += 5
    updates[:2, 200:] = 0
    cut = Cut(updates, every(300, 100))
    want = Krum(2).aggregate(updates, Context())
    same(aggregate_in_blocks(Krum(2), cut, Context()), want)
    assert want.kept is not None
    assert int(want.kept) not in (0, 1)
    assert int(Krum(2).select(updates[:, 200:])) in (0, 1)


def test_pieces_are_cut_where_kernels_cut_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    from fedrobust.aggregators.kernels import dispatch

    monkeypatch.setattr(dispatch, "_BLOCK", 40)
    n, d = 4, 97  # ten columns at a time
    matrix = torch.arange(n * d).view(n, d).float()
    for widths in (every(d, 1), every(d, 7), every(d, 10), every(d, 33), uneven(d), [d], [12, 85]):
        cut = Cut(matrix, widths)
        found = [piece.clone() for piece in recut(cut.blocks(), n)]
        assert torch.equal(torch.cat(found, dim=1), matrix)
        assert all(piece.shape[1] % 10 == 0 for piece in found[:-1])
        assert min(piece.shape[1] for piece in found) >= 10
    assert [p.shape[1] for p in recut(Cut(matrix[:, :3], [1, 1, 1]).blocks(), n)] == [3]


@dataclass(frozen=True)
class Own:
    """A user's own rule."""

    def aggregate(self, updates: Tensor, context: Context) -> Aggregation:
        return Aggregation(updates.amax(dim=0))


class OwnByCoordinate(Own):
    by_coordinate = True

    def aggregate(self, updates: Tensor, context: Context) -> Aggregation:
        return Aggregation(updates.amax(dim=0))


class OwnKrum(Krum):
    """It inherits the two steps, but its answer is another."""

    def aggregate(self, updates: Tensor, context: Context) -> Aggregation:
        return Aggregation(2 * super().aggregate(updates, context).vector)


@pytest.mark.parametrize(
    "rule",
    [
        GeometricMedian(),
        CenteredClipping(1.0),
        NearestNeighborMixing(2, TrimmedMean(2)),
        Bucketing(2, Median()),
        Own(),
        OwnKrum(2),
        lambda rows: rows.mean(dim=0),
    ],
    ids=lambda rule: type(rule).__name__,
)
def test_other_rules_are_refused_with_the_figure(
    rule: Aggregator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(in_blocks, "available_memory", lambda device: 24 * 2**30)
    columns = Cut(torch.zeros(1, 1).expand(1000, 11_173_962), [11_173_962])
    told = (
        r"the rule \S+ needs whole rows.* 1,000 clients × 11,173,962 coordinates take 41\.6 GiB, "
        r"and 24\.0 GiB are free\. These rules work in blocks: mean, median, trimmed-mean, "
        r"mean-around-median, krum, multi-krum, bulyan, minimum-diameter-averaging$"
    )
    with pytest.raises(ConfigError, match=told):
        aggregate_in_blocks(rule, columns, Context())
    assert columns.passes == 0


def test_an_own_rule_may_say_that_it_works_per_coordinate() -> None:
    updates = normal(5, 30)
    found = aggregate_in_blocks(OwnByCoordinate(), Cut(updates, every(30, 7)), Context())  # type: ignore[arg-type]
    assert torch.equal(found.vector, updates.amax(dim=0))
    assert works_in_blocks(OwnByCoordinate)
    assert not works_in_blocks(Own)


def test_bad_rows_and_too_few_are_refused_as_for_the_whole() -> None:
    updates = normal(11, 60)
    with pytest.raises(ValueError, match="Krum needs n >= 2f \\+ 3: n = 11, f = 5 needs 13"):
        aggregate_in_blocks(Krum(5), Cut(updates, every(60, 25)), Context())
    with pytest.raises(ValueError, match="counts must be one number for each of the 11 rows"):
        aggregate_in_blocks(Mean(), Cut(updates, [60]), Context(counts=torch.ones(3)))
    updates[3, 41] = torch.nan
    for rule in (Krum(2), Median()):
        with pytest.raises(ValueError, match="NaN or infinity in row 3"):
            aggregate_in_blocks(rule, Cut(updates, every(60, 25)), Context())
    some = SomeRows(Cut(updates, every(60, 25)), [i for i in range(11) if i != 3])
    same(
        aggregate_in_blocks(Krum(1), some, Context()),
        Krum(1).aggregate(updates[some.chosen], Context()),
    )


def test_a_search_that_takes_too_long_has_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    from fedrobust.aggregators import minimum_diameter_averaging

    def never(distances: Tensor, f: int) -> Tensor:
        raise RecursionError

    monkeypatch.setattr(minimum_diameter_averaging, "least_diameter", never)
    with pytest.raises(NoAnswerError, match="n = 11 rows with f = 2"):
        aggregate_in_blocks(MinimumDiameterAveraging(2), Cut(normal(11, 9), [9]), Context())
