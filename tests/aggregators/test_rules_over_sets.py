"""Rules that choose a set of rows: the exact search, ties, limits; and Krum's two counts."""

import random
from itertools import combinations

import numpy as np
import pytest
import rule_oracles as oracles
import torch
from scipy.optimize import Bounds, LinearConstraint, milp
from torch import Tensor

from fedrobust.aggregators import (
    Context,
    Krum,
    MinimumDiameterAveraging,
    MultiKrum,
    SmallestMaximumEigenvalueAveraging,
)
from fedrobust.aggregators.kernels import vertex_cover
from fedrobust.aggregators.kernels.ranking import ranked
from fedrobust.aggregators.kernels.vertex_cover import Search


def normal(n: int, d: int, seed: int = 0) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def random_graph(n: int, density: float, seed: int) -> list[int]:
    draw = random.Random(seed)
    graph = [0] * n
    for i, j in combinations(range(n), 2):
        if draw.random() < density:
            graph[i] |= 1 << j
            graph[j] |= 1 << i
    return graph


def graph_of(n: int, pairs: str) -> list[int]:
    graph = [0] * n
    for i, j in (map(int, pair) for pair in pairs.split()):
        graph[i] |= 1 << j
        graph[j] |= 1 << i
    return graph


def ring(n: int) -> list[int]:
    return [1 << (i - 1) % n | 1 << (i + 1) % n for i in range(n)]


def independent(graph: list[int], chosen: tuple[int, ...]) -> bool:
    return not any(graph[i] >> j & 1 for i, j in combinations(chosen, 2))


GRAPHS = {
    **{
        f"{n} at {p}, {s}": random_graph(n, p, s)
        for n in (1, 5, 9, 11)
        for p in (0.1, 0.3, 0.6, 1)
        for s in range(4)
    },
    "two odd rings": [*ring(5), *(bits << 5 for bits in ring(5))],
    "partners, not the one they share": graph_of(7, "01 02 03 14 15 25 26 36 34"),
}


def test_covers_are_found_where_there_are_any_and_the_first_rows_are_kept() -> None:
    for name, graph in GRAPHS.items():
        n = len(graph)
        order = random.Random(n).sample(range(n), n)
        place = {vertex: k for k, vertex in enumerate(order)}
        for f in range(n):
            sets = [s for s in combinations(range(n), n - f) if independent(graph, s)]
            assert Search().coverable(graph, f) == bool(sets), f"{name}, f = {f}"
            if sets:
                first = min(sets, key=lambda s: sorted(place[i] for i in s))
                assert sorted(Search().keeping_first(graph, f, order)) == list(first), (
                    f"{name}, f = {f}"
                )


def fits_within(table: np.ndarray, f: int, limit: float) -> bool:
    """Whether n − f rows have no pair beyond ``limit``, by an integer program."""
    n = len(table)
    pairs = [(i, j) for i, j in combinations(range(n), 2) if table[i, j] > limit]
    matrix = np.zeros((len(pairs) + 1, n))
    for k, pair in enumerate(pairs):
        matrix[k, pair] = 1
    matrix[-1] = 1
    low = np.array([-np.inf] * len(pairs) + [n - f])
    high = np.array([1.0] * len(pairs) + [n])
    result = milp(
        np.zeros(n),
        constraints=LinearConstraint(matrix, low, high),
        bounds=Bounds(0, 1),
        integrality=np.ones(n),
    )
    return bool(result.success)


@pytest.mark.parametrize("f", [12, 24])
@pytest.mark.parametrize("kind", ["normal", "hostile", "signs"])
def test_fifty_one_rows_have_no_set_of_less_diameter(kind: str, f: int) -> None:
    updates = normal(51, 30)
    if kind == "hostile":
        updates[:f] = updates[f:].mean(dim=0) + 0.8 * normal(f, 30, 1)
    elif kind == "signs":
        updates = updates.sign()
    kept = MinimumDiameterAveraging(f).aggregate(updates, Context()).kept
    table = np.array(oracles.distances(updates.double().tolist()))
    diameter = table[np.ix_(kept, kept)].max()
    assert len(kept) == 51 - f
    assert fits_within(table, f, diameter)
    assert not fits_within(table, f, diameter * (1 - 1e-9))


def test_among_sets_of_one_diameter_the_best_ranked_row_decides() -> None:
    def kept(f: int, *values: float) -> list[int]:
        updates = torch.tensor(values, dtype=torch.float32)[:, None]
        chosen = MinimumDiameterAveraging(f).aggregate(updates, Context()).kept
        assert chosen is not None
        return [int(i) for i in chosen]

    # Of three sets of four neighbours the middle one; the rows at the ends are farther from theirs.
    assert kept(2, 0, 1, 2, 3, 4, 5) == [1, 2, 3, 4]
    assert kept(3, 9, 5, 0, 4, 1, 3, 2) == [3, 4, 5, 6]
    # Both ends rank alike, so the one that comes first.
    assert kept(1, 0, 1, 2, 3) == [0, 1, 2]
    assert kept(1, 3, 2, 1, 0) == [0, 1, 2]
    # What differs by rounding alone ranks alike.
    assert ranked(torch.tensor([1 + 1e-14, 1.0, 0.5, 2.0], dtype=torch.float64)).tolist() == [
        2,
        0,
        1,
        3,
    ]


def test_a_search_that_would_explode_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vertex_cover, "_MOST", 5)
    with pytest.raises(ValueError, match=r"among n = 51 rows with f = 24 too many sets nearly win"):
        MinimumDiameterAveraging(24)(normal(51, 30))


def test_too_many_sets_are_refused_before_the_first_round() -> None:
    rule = SmallestMaximumEigenvalueAveraging(12)
    with pytest.raises(ValueError, match=r"<= 10\^9: n = 51, f = 12 have 158,753,389,900 sets"):
        rule.check(51)
    SmallestMaximumEigenvalueAveraging(2).check(51)
    SmallestMaximumEigenvalueAveraging(9).check(20)
    with pytest.raises(ValueError, match="n = 400, f = 2"):
        SmallestMaximumEigenvalueAveraging(2).check(400)


def test_the_least_worst_direction_is_not_the_least_diameter() -> None:
    # Five rows all as far apart, and five on a line, one shared. The line is shorter, but all of
    # its scatter is along it: 4 (0.45 · √2)² = 1.62, where the others' is 1 in each direction.
    simplex = torch.nn.functional.pad(torch.eye(5), (0, 1))
    line = simplex[:1] + 0.45 * 2**0.5 * torch.eye(6)[5] * torch.tensor([[-1], [-1], [1], [1]])
    updates = torch.cat([simplex, line])
    by_diameter = MinimumDiameterAveraging(4).aggregate(updates, Context()).kept
    by_eigenvalue = SmallestMaximumEigenvalueAveraging(4).aggregate(updates, Context()).kept
    assert by_diameter.tolist() == [0, 5, 6, 7, 8]
    assert by_eigenvalue.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("n", [5, 11, 24])
def test_krums_other_count_takes_one_neighbour_more(n: int) -> None:
    f = (n - 1) // 2
    updates = normal(n, 7)
    rows = updates.double().tolist()
    for m in (1, n - f):
        rule = MultiKrum(f, m=m, neighbours="n-f-1")
        want = oracles.multi_krum(rows, f, m, fewer=1)
        assert rule.aggregate(updates, Context()).kept.tolist() == want.kept
    assert torch.equal(MultiKrum(f, neighbours="n-f-1")(updates), rule(updates))
    alone = Krum(f, neighbours="n-f-1")
    best = oracles.multi_krum(rows, f, 1, fewer=1).kept
    assert alone.aggregate(updates, Context()).kept.tolist() == best
    assert alone.tolerating(1) == Krum(f - 1, neighbours="n-f-1")
    assert rule.tolerating(1) == MultiKrum(f - 1, m=n - f, neighbours="n-f-1")
    with pytest.raises(ValueError, match=rf"^Krum needs n > 2f: n = {2 * f}, f = {f}"):
        alone.check(2 * f)


def test_the_two_counts_choose_different_rows() -> None:
    chosen = {
        count: [int(Krum(3, count).aggregate(normal(11, 5, s), Context()).kept) for s in range(20)]
        for count in ("n-f-2", "n-f-1")
    }
    assert chosen["n-f-2"] == [
        int(Krum(3).aggregate(normal(11, 5, s), Context()).kept) for s in range(20)
    ]
    assert chosen["n-f-2"] != chosen["n-f-1"]
    assert Krum(0, "n-f-1")(normal(1, 4)).shape == (4,)
