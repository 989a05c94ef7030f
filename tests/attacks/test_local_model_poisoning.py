"""Local model poisoning: the crafted row is the one that Krum takes; beyond the honest range."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from crafting import OWN, Quadratic, float64, normal, rows_of, view_of
from torch import Tensor

from fedrobust.aggregators import Krum, Mean, MultiKrum, TrimmedMean
from fedrobust.attacks import LocalModelPoisoning, SignFlip
from fedrobust.errors import ConfigError

KRUM = LocalModelPoisoning("krum")
TRIM = LocalModelPoisoning("trimmed-mean")


def distance(a: Tensor, b: Tensor) -> float:
    return math.dist(a.tolist(), b.tolist())


def bound(honest: Tensor, crafted: int) -> float:
    """The paper's bound on λ for n = honest + crafted devices, of which ``crafted`` are bad."""
    n, d = len(honest) + crafted, honest.shape[1]
    near = n - crafted - 2
    scores = []
    for i, row in enumerate(honest):
        others = sorted(distance(row, other) for j, other in enumerate(honest) if j != i)
        scores.append(sum(others[:near]))
    home = max(math.hypot(*row.tolist()) for row in honest)
    return min(scores) / (max(1, n - 2 * crafted - 1) * math.sqrt(d)) + home / math.sqrt(d)


def halved(
    honest: Tensor, signs: Tensor, crafted: int, takes: Callable[[Tensor, Tensor], bool]
) -> Tensor | None:
    """The first of bound, bound / 2, … whose row is taken among the honest rows."""
    size = bound(honest, crafted)
    while size >= 1e-5:
        row = -size * signs
        if takes(row, torch.cat([row.expand(crafted, -1), honest])):
            return row
        size /= 2
    return None


def krum_takes(row: Tensor, rows: Tensor) -> bool:
    """By the definition: n - f - 2 nearest others, squared, f the rows equal to ``row``."""
    f = int((rows == row).all(dim=1).sum())
    scores = []
    for i, one in enumerate(rows):
        others = sorted(distance(one, two) ** 2 for j, two in enumerate(rows) if j != i)
        scores.append(sum(others[: max(1, len(rows) - f - 2)]))
    return scores.index(min(scores)) < f


CASES = [
    (benign, m, d, seed, shift)
    for benign, m in [(6, 1), (7, 2), (9, 3), (11, 4), (5, 4)]
    for d, seed in [(1, 0), (4, 1), (30, 2)]
    for shift in (0.0, 0.3, 3.0)
]


@pytest.mark.parametrize(("b", "m", "d", "seed", "shift"), CASES)
def test_krum_with_full_knowledge_is_the_papers_search(
    b: int, m: int, d: int, seed: int, shift: float
) -> None:
    benign = normal(b, d, seed) + shift
    own = normal(m, d, seed + 50) + shift
    row = halved(benign, benign.mean(dim=0).sign(), m, krum_takes)
    expected = own if row is None else row.expand(m, -1)
    seen = view_of(own, benign)
    torch.testing.assert_close(rows_of(KRUM, seen), expected)
    if b + m >= 2 * m + 3:
        told = rows_of(KRUM, replace(seen, rule=Krum(f=m)))
        torch.testing.assert_close(told, expected)


def test_krum_takes_the_row_of_most_of_these_cases() -> None:
    """Else the test above would compare honest rows with honest rows."""
    taken = 0
    for b, m, d, seed, shift in CASES:
        benign = normal(b, d, seed) + shift
        own = normal(m, d, seed + 50) + shift
        taken += not torch.equal(rows_of(KRUM, view_of(own, benign)), own)
    assert taken > 0.5 * len(CASES)


@pytest.mark.parametrize("m", [3, 4, 6])
@pytest.mark.parametrize("shift", [0.0, 0.5, 2.0])
def test_krum_with_partial_knowledge_adds_crafted_rows_until_one_is_taken(
    m: int, shift: float
) -> None:
    own = normal(m, 20, seed=m) + shift
    signs = own.mean(dim=0).sign()
    tries = (halved(own, signs, count, krum_takes) for count in range(1, m - 1))
    row = next((row for row in tries if row is not None), None)
    expected = own if row is None else row.expand(m, -1)
    torch.testing.assert_close(rows_of(KRUM, view_of(own)), expected)


def test_krum_that_refuses_so_few_rows_is_replaced_by_ones_own() -> None:
    own = normal(4, 20)
    view = view_of(own, rule=Krum(f=4))
    with pytest.raises(ValueError, match="Krum needs"):
        Krum(f=4)(own)
    assert torch.equal(rows_of(KRUM, view), rows_of(KRUM, view_of(own)))
    assert not torch.equal(rows_of(KRUM, view), own)


def test_the_rule_itself_is_asked_where_it_is_known() -> None:
    """A rule that takes short first rows alone: λ is halved down to it, whatever Krum would take.

    Under a rule that never answers with one row, the rows are those of an adversary who does not
    know it: knowing more must not disarm the attack.
    """
    own, benign = normal(2, 16), normal(8, 16, seed=1)

    def short(rows: Tensor) -> Tensor:
        return rows[0] if rows[0].norm() < 0.1 else rows[-1]

    row = rows_of(KRUM, view_of(own, benign, rule=short))[0]
    start = bound(benign, 2)
    halvings = math.log2(start * 4 / float(row.norm()))
    assert halvings == pytest.approx(round(halvings))
    assert 0.05 <= row.norm() < 0.1
    blind = rows_of(KRUM, view_of(own, benign))
    assert not torch.equal(blind, own)
    assert torch.equal(rows_of(KRUM, view_of(own, benign, rule=Mean())), blind)


def test_with_rule_and_number_known_the_missing_rows_are_simulated() -> None:
    own, counts = normal(3, 16), []

    def taking(rows: Tensor) -> Tensor:
        counts.append(len(rows))
        return rows[0]

    row = rows_of(KRUM, view_of(own, rule=taking, clients=14))[0]
    assert counts == [14]
    assert torch.equal(row.sign(), -own.mean(dim=0).sign())


def test_krum_that_cannot_be_fooled_gets_honest_rows() -> None:
    own = normal(3, 5)
    for benign in (normal(1, 5).expand(8, -1) + 3, torch.zeros(8, 5, dtype=torch.float64)):
        assert torch.equal(rows_of(KRUM, view_of(own, benign)), own)


def test_the_threshold_ends_the_search() -> None:
    """Of updates below 1e-5 the default threshold leaves nothing to try."""
    own, benign = 1e-6 * normal(2, 9), 1e-6 * normal(9, 9, seed=1)
    assert torch.equal(rows_of(KRUM, view_of(own, benign)), own)
    finer = LocalModelPoisoning("krum", threshold=1e-12)
    scaled = rows_of(KRUM, view_of(1e6 * own, 1e6 * benign))
    torch.testing.assert_close(1e6 * rows_of(finer, view_of(own, benign)), scaled)
    found = float(rows_of(finer, view_of(own, benign)).abs().max())
    for share, taken in ((0.999, True), (1.001, False)):
        limited = LocalModelPoisoning("krum", threshold=share * found)
        assert torch.equal(rows_of(limited, view_of(own, benign)), own) != taken


def test_the_papers_numbers_are_the_defaults() -> None:
    assert (KRUM.b, KRUM.threshold) == (2.0, 1e-5)


PARAMETERS = float64([10.0, -10.0, 10.0, -10.0, 5.0])[0]
RANGES = float64([1.0, 1.0, -3.0, -3.0, -1.0], [3.0, 3.0, -1.0, -1.0, 1.0])


@pytest.mark.parametrize("against", ["trimmed-mean", "median"])
@pytest.mark.parametrize("b", [2.0, 4.0])
def test_full_knowledge_draws_beyond_the_extremes_of_the_parameters(against: str, b: float) -> None:
    """w = (11..13, -9..-7, 7..9, -13..-11, 4..6), rising, rising, falling, falling, still.

    So w is drawn from [11/b, 11], [-9b, -9], [9, 9b], [-11, -11/b], and Δ is w less parameters.
    """
    attack = LocalModelPoisoning(against, b=b)
    view = view_of(torch.zeros(4000, 5, dtype=torch.float64), RANGES, parameters=PARAMETERS)
    w = rows_of(attack, view) + PARAMETERS
    edges = [(11 / b, 11.0), (-9 * b, -9.0), (9.0, 9 * b), (-11.0, -11 / b)]
    for column, (low, high) in zip(w.T, edges, strict=False):
        width = high - low
        assert low <= column.min() < low + 0.01 * width
        assert high - 0.01 * width < column.max() <= high
        assert column.mean() == pytest.approx((low + high) / 2, abs=0.02 * width)
    assert torch.equal(w[:, 4], torch.full((4000,), 5.0, dtype=torch.float64))


def test_in_single_precision_a_draw_is_never_within_the_range() -> None:
    theta = 1e3 * normal(1, 5000)[0].float()
    benign = 1e-3 * normal(6, 5000, seed=1).float()
    rows = rows_of(TRIM, view_of(benign[:2], benign, parameters=theta))
    rising = benign.mean(dim=0) > 0
    assert (rows <= benign.min(dim=0).values)[:, rising].all()
    assert (rows >= benign.max(dim=0).values)[:, ~rising].all()


def test_partial_knowledge_draws_three_to_four_deviations_off() -> None:
    """μ = (2, -2), σ = (1, 2): from [-2, -1] and from [4, 6]."""
    own = float64([1.0, 0.0], [3.0, -4.0]).repeat(2000, 1)
    rows = rows_of(TRIM, view_of(own, parameters=PARAMETERS[:2]))
    for column, (low, high) in zip(rows.T, [(-2.0, -1.0), (4.0, 6.0)], strict=True):
        assert low <= column.min() < low + 0.01
        assert high - 0.01 < column.max() <= high
        assert column.mean() == pytest.approx((low + high) / 2, abs=0.05)
    assert torch.unique(rows[:, 0]).numel() == 4000


def test_too_few_colluders_send_honest_updates() -> None:
    assert (KRUM.requires.min_colluders, TRIM.requires.min_colluders) == (3, 2)
    for attack, m in ((KRUM, 2), (KRUM, 1), (TRIM, 1)):
        assert torch.equal(rows_of(attack, view_of(OWN[:m])), OWN[:m])
        assert torch.equal(rows_of(attack, view_of(OWN[:m], OWN[:0])), OWN[:m])


def test_fields_are_checked() -> None:
    with pytest.raises(ConfigError, match="greater than 1"):
        LocalModelPoisoning("median", b=1.0)
    with pytest.raises(ConfigError, match="'krum', 'trimmed-mean' or 'median'"):
        LocalModelPoisoning("bulyan")


@pytest.mark.slow
def test_krum_takes_it_each_round_and_goes_the_wrong_way() -> None:
    toy, taken = Quadratic(), []
    for knows in ((), ("benign",), ("benign", "rule"), ("clients", "rule")):
        taken.clear()
        toy.play(
            Krum(f=3),
            KRUM,
            watch=lambda rows, answer: taken.append(torch.equal(rows[0], answer)),
            knows=knows,
        )
        assert sum(taken) > 10 or not knows, (knows, taken)
    honest = toy.error(Krum(f=3), None)
    assert toy.error(Krum(f=3), SignFlip(scale=3.0)) < 1.2 * honest
    assert toy.error(Krum(f=3), KRUM, knows=("benign",)) > 3 * honest
    assert toy.error(Mean(), KRUM, knows=("benign",)) < 1.5 * toy.error(Mean(), None)


def test_a_row_that_krum_takes_points_away_from_the_honest_step() -> None:
    toy = Quadratic()

    def check(rows: Tensor, answer: Tensor) -> None:
        if torch.equal(rows[0], answer) and torch.equal(rows[0], rows[1]):
            steps.append(float(answer @ rows[3:].mean(dim=0)))

    steps: list[float] = []
    toy.play(Krum(f=3), KRUM, watch=check, knows=("benign",))
    assert len(steps) > 10
    assert max(steps) < 0


def test_the_trimmed_mean_suffers_and_multi_krum_does_not() -> None:
    toy = Quadratic()
    for knows in ((), ("benign",)):
        trimmed = toy.error(TrimmedMean(f=3), TRIM, knows=knows)
        assert trimmed > 1.7 * toy.error(TrimmedMean(f=3), None)
        assert toy.error(MultiKrum(f=3), TRIM, knows=knows) < 1.2 * toy.error(MultiKrum(f=3), None)
