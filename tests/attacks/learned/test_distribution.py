"""Distances of samples against brute force, and what a comparison must not flatter."""

from itertools import permutations

import pytest
import torch
from ring import normal, seeded

from fedrobust.attacks.learned import distribution
from fedrobust.attacks.learned.attacker_state import AttackerState, _nearest, compared
from fedrobust.attacks.learned.distribution import (
    compare,
    growth,
    joined,
    spread,
    wasserstein_distance,
)
from fedrobust.data import Split
from fedrobust.federation.attack import Truth


def sample(n: int, seed: int, d: int = 3, at: float = 0.0) -> Split:
    y = torch.arange(n) % 2
    return Split(normal(n, d, seed=seed) + at, y[torch.randperm(n, generator=seeded(seed))])


@pytest.mark.slow
@pytest.mark.parametrize("label_cost", [0.0, 1.0, 5.0])
@pytest.mark.parametrize("scale", [1.0, 0.2])
def test_it_is_the_cheapest_matching(label_cost: float, scale: float) -> None:
    """All 720 ways of matching six examples with six."""
    a, b = sample(6, 1), sample(6, 2)
    best = min(
        sum(
            float((a.x[i] - b.x[j]).norm()) / (scale * 3**0.5)
            + label_cost * float(a.y[i] != b.y[j])
            for i, j in enumerate(order)
        )
        / 6
        for order in permutations(range(6))
    )
    found = wasserstein_distance(a, b, scale=scale, label_cost=label_cost)
    assert found == pytest.approx(best, rel=1e-9)


def test_images_count_by_all_their_pixels_and_samples_may_differ_in_size() -> None:
    a = Split(torch.zeros(2, 1, 2, 2), torch.tensor([0, 0]))
    b = Split(torch.ones(4, 1, 2, 2), torch.tensor([0, 0, 0, 1]))
    assert wasserstein_distance(a, b) == pytest.approx(1 + 0.25)


@pytest.mark.slow
def test_large_samples_come_close_to_the_exact_distance(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = sample(150, 1), sample(120, 2, at=1.0)
    exact = wasserstein_distance(a, b)
    monkeypatch.setattr(distribution, "EXACT", 100)
    assert wasserstein_distance(a, b) == pytest.approx(exact, rel=0.05)
    assert wasserstein_distance(a, b) != exact


def test_an_empty_sample_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        wasserstein_distance(sample(3, 0), sample(3, 1).take(torch.arange(0)))


def test_a_pool_grows_by_the_distance_of_the_whole_pools() -> None:
    """The short way against the definition, the transport of the old pool to the grown one."""
    pool, new = sample(90, 1), sample(40, 2, at=0.7)
    whole = wasserstein_distance(pool, joined(pool, new), scale=0.3)
    assert growth(pool, new, seeded(), scale=0.3) == pytest.approx(whole, rel=1e-12)
    thinned = {growth(pool, new, seeded(i), scale=0.3, most=60) for i in range(5)}
    assert len(thinned) == 5
    assert sum(thinned) / 5 == pytest.approx(whole, rel=0.1)
    parts = growth(pool, new, seeded(), scale=0.3, most=len(new) - 10)
    assert parts == pytest.approx(whole, rel=0.2)
    assert parts != whole
    assert growth(pool, pool, seeded()) == pytest.approx(0, abs=1e-12)


def test_a_comparison_is_at_equal_counts_beside_its_floor() -> None:
    """A large pool of the truth is as near as the floor, not nearer for being large."""
    truth, own = sample(2000, 1), sample(200, 2, at=1.0)
    learned = truth.take(torch.arange(1500))
    found = compare(own, learned, truth, classes=3, most=150, generator=seeded())
    assert found.examples == 150
    assert found.own > 2 * found.floor
    assert found.learned == pytest.approx(found.floor, rel=0.25)
    assert found.learned > 0.5 * found.floor
    assert found.labels["truth"] == pytest.approx((0.5, 0.5, 0.0))
    assert sum(found.labels["learned"]) == pytest.approx(1)
    assert len(found.labels["own"]) == 3


def test_the_spread_is_that_of_the_coordinates() -> None:
    x = torch.tensor([[0.0, 10.0], [2.0, 10.0]])
    assert spread(Split(x, torch.tensor([0, 1]))) == pytest.approx(0.5**0.5)
    assert spread(Split(torch.ones(3, 2), torch.tensor([0, 1, 0]))) == 1.0


def test_a_point_beside_a_real_example_is_at_its_true_distance() -> None:
    """By a product of matrices in float32, points this near would be at distance 0."""
    real = 2 * torch.randn(6000, 2, generator=torch.Generator().manual_seed(0))
    real[5] += 6.0  # far out, where float32 is coarse
    real[3] = real[5] - torch.tensor([5e-4, 0.0])  # farther, and earlier in the list
    near = real[[5, 5900]] + torch.tensor([1e-4, 0.0])
    found, distance = _nearest(near, Split(real, torch.zeros(6000, dtype=torch.long)))
    torch.testing.assert_close(distance, torch.full((2,), 1e-4), rtol=0.02, atol=0)
    assert torch.equal(found, real[[5, 5900]])


def test_what_the_attacker_has_is_no_reference_for_what_it_reconstructs() -> None:
    """Own examples that an inversion left where they were are no find, and lie at the floor."""
    draw = seeded()
    x, y = torch.randn(600, 20, generator=draw), torch.randint(10, (600,), generator=draw)
    own, others = Split(x[:300], y[:300]), Split(x[300:], y[300:])
    found = compared(AttackerState(x=own.x[:100], y=own.y[:100]), Truth(others, own, 10))
    assert found is not None
    assert found["nearest"] > 0.3
    assert found["own"] == pytest.approx(found["floor"], rel=0.1)
    assert found["learned"] == pytest.approx(found["floor"], rel=0.1)
    nobody = others.take(torch.arange(0))
    assert compared(AttackerState(x=own.x, y=own.y), Truth(nobody, own, 10)) is None
