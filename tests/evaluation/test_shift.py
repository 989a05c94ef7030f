"""Examples are moved as far as was asked, and the errors are those of the moved examples."""

import math

import pytest
import torch
from torch import nn

from fedrobust.evaluation.shift import THOROUGH, _next_price, _score, error_under_shift
from fedrobust.perturb.wasserstein import Ascent

G = torch.Generator().manual_seed(0)
X = torch.randn(200, 2, generator=G, dtype=torch.float64)
Y = (X[:, 0] + 0.4 * X[:, 1] > 0.3).long()


def network(classes: int = 2) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        made = nn.Sequential(nn.Linear(2, 8), nn.ELU(), nn.Linear(8, classes)).double()
    optimizer = torch.optim.Adam(made.parameters(), lr=0.05)
    for _ in range(100):
        optimizer.zero_grad()
        nn.functional.cross_entropy(made(X), Y).backward()
        optimizer.step()
    return made


MODEL = network()
LEVELS = (0.0, 0.001, 0.01, 0.1, 0.5, 2.0)


def test_a_move_without_end_has_an_infinite_cost() -> None:
    """And not the largest number, with which a search for a price would go on."""
    far = X[:10].clone()
    far[3] = torch.inf
    assert _score("wrm", 0.1, MODEL, X[:10], far, Y[:10], 10).reached == math.inf


@pytest.mark.slow
@pytest.mark.parametrize("method", ["wrm", "pgd"])
def test_levels_are_reached_and_errors_rise(method: str) -> None:
    found = error_under_shift(MODEL, X, Y, levels=LEVELS, method=method)
    assert [score.rho for score in found] == list(LEVELS)
    for score in found:
        assert score.reached == pytest.approx(score.rho, rel=0.021, abs=1e-12)
    errors = [score.error for score in found]
    with torch.no_grad():
        clean = (MODEL(X).argmax(dim=1) != Y).double().mean().item()
    assert errors[0] == clean
    assert errors == sorted(errors)
    assert errors[-1] > (0.7 if method == "pgd" else 2 * clean)


def test_the_search_goes_on_where_a_lower_price_moves_points_less() -> None:
    """As an ascent may that stops short. The level lies between the prices 4 and 16."""
    known = {1.0: 0.5, 4.0: 0.9, 16.0: 0.1}
    found = _next_price(known, 0.6)
    assert found is not None
    assert 4 < found < 16
    assert _next_price({1.0: 0.1, 4.0: 0.9}, 0.5) is None


@pytest.mark.long
def test_levels_may_come_in_any_order() -> None:
    up = error_under_shift(MODEL, X, Y, levels=(0.01, 0.5))
    mixed = error_under_shift(MODEL, X, Y, levels=(0.5, 0.01))
    by_level = {score.rho: score.reached for score in mixed}
    for score in up:
        assert by_level[score.rho] == pytest.approx(score.rho, rel=0.021)


@pytest.mark.slow
def test_the_price_shift_raises_the_loss_more_than_one_radius_for_all() -> None:
    """It is the solution of the problem that the other satisfies the constraint of."""
    wrm = error_under_shift(MODEL, X, Y, levels=(0.1,), ascent=Ascent(60, rule="backtracking"))
    pgd = error_under_shift(MODEL, X, Y, levels=(0.1,), method="pgd")
    for one, other in zip(wrm, pgd, strict=True):
        assert one.loss > other.loss


@pytest.mark.slow
def test_false_positives_and_negatives_make_up_the_error() -> None:
    for score in error_under_shift(MODEL, X, Y, levels=(0.1,)):
        assert score.false_positive is not None
        assert score.false_negative is not None
        share = Y.double().mean().item()
        whole = (1 - share) * score.false_positive + share * score.false_negative
        assert score.error == pytest.approx(whole)
    (three,) = error_under_shift(network(3), X, Y, levels=(0.1,))
    assert three.false_positive is None
    ones = Y == 1
    (alone,) = error_under_shift(MODEL, X[ones], Y[ones], levels=(0.1,))
    assert alone.false_positive is None
    assert alone.false_negative == alone.error


def test_pgd_stays_within_its_radius() -> None:
    (score,) = error_under_shift(MODEL, X, Y, levels=(0.09,), method="pgd")
    assert score.reached <= 0.09 + 1e-9


@pytest.mark.slow
def test_a_level_out_of_reach_is_met_as_far_as_it_can_be() -> None:
    flat = nn.Sequential(nn.Linear(2, 2)).double()
    nn.init.zeros_(flat[0].weight)
    (score,) = error_under_shift(flat, X, Y, levels=(0.1,))
    assert score.reached == 0
    x = X.sigmoid()
    (boxed,) = error_under_shift(
        MODEL, x, Y, levels=(50.0,), ascent=Ascent(30, rule="backtracking", box=True)
    )
    assert 0.05 < boxed.reached < 2


@pytest.mark.parametrize("level", [-0.1, math.nan, math.inf])
def test_a_level_is_a_squared_distance(level: float) -> None:
    with pytest.raises(ValueError, match="mean squared distances"):
        error_under_shift(MODEL, X, Y, levels=(level,), ascent=THOROUGH)
