"""Distances are right where the quick formula cancels or overflows, in PyTorch and compiled."""

import pytest
import torch
from rule_oracles import distances as exact_distances
from torch import Tensor

from fedrobust.aggregators.kernels import dispatch


def normal(n: int, d: int, seed: int = 0) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def clusters(offsets: list[float], each: int, spread: float, d: int = 30) -> Tensor:
    rows = [o + spread * normal(each, d, seed) for seed, o in enumerate(offsets)]
    return torch.cat(rows)


HARD = {
    "plain": normal(20, 100),
    "one-coordinate": normal(20, 1),
    "one-row": normal(1, 5),
    "common-offset": 1e3 + 1e-3 * normal(40, 100),
    "huge-offset": 1e8 + normal(20, 100).double(),
    "two-clusters": clusters([1e3, -1e3], 10, 1e-2),
    "clusters-in-clusters": clusters([1e9, 1e9 + 1e4, 1e9 + 2e4, -5.0], 6, 1.0).double(),
    "chain": (2.0 ** torch.arange(-40, 40).double())[:, None] * normal(1, 9).double(),
    "outliers": torch.cat([normal(10, 50), 1e30 * normal(4, 50), 1e30 + normal(2, 50)]),
    "tiny": 1e-20 * normal(20, 50),
    "large": 1e15 * normal(20, 50),
    "duplicates": normal(4, 50).repeat(5, 1),
    "duplicates-at-an-offset": (1e4 + 1e-2 * normal(4, 50)).repeat(5, 1),
    "signs": 1e-3 * normal(20, 300).sign(),
    "zeros": torch.zeros(6, 4),
    "half": normal(9, 30).half(),
}


@pytest.mark.usefixtures("path")
def test_distances_have_twelve_right_digits() -> None:
    for name, updates in HARD.items():
        got = dispatch.squared_distances(updates)
        want = torch.tensor(exact_distances(updates.double().tolist()), dtype=torch.float64)
        assert got.dtype == torch.float64, name
        assert torch.equal(got, got.T), name
        torch.testing.assert_close(got, want, rtol=5e-13, atol=0, msg=name)


@pytest.mark.slow
def test_long_rows_that_nearly_cancel_keep_twelve_digits() -> None:
    # Just above the share of the norms below which a distance is taken again.
    updates = (normal(1, 200_000) + 0.13 * normal(16, 200_000, seed=1)).double()
    want = torch.stack([((updates - row) ** 2).sum(dim=1) for row in updates])
    torch.testing.assert_close(dispatch.squared_distances(updates), want, rtol=1e-12, atol=0)


def test_float64_entries_whose_squares_overflow_give_infinity_and_equal_rows_zero() -> None:
    updates = normal(8, 20).double()
    updates[1] = 1e200
    updates[2] = -1e200
    updates[4] = 1e200 * normal(1, 20, seed=5).double()[0]
    updates[6] = updates[4]
    updates[7] = 1.7e308
    updates[3] = -1.7e308
    got = dispatch.squared_distances(updates)
    want = torch.tensor(exact_distances(updates.tolist()), dtype=torch.float64)
    assert got[4, 6] == 0
    assert got[3, 7] == got[0, 1] == torch.inf
    torch.testing.assert_close(got, want, rtol=1e-12, atol=0)


# Ten rows ever nearer to the others: seen from one of them, all that are nearer still cancel.
DECOYS = (10.0 ** torch.arange(10, -290, -1).double()).clamp(min=1)[:, None]


@pytest.mark.parametrize(
    ("updates", "most"),
    [
        (normal(300, 200), 1),
        (1e3 + 1e-3 * normal(300, 200), 2),
        (1e3 + 1e-3 * normal(300, 200).index_select(0, torch.arange(300) // 150 * 299), 4),
        (clusters([1e3, -1e3, 1e5], 100, 1e-3, d=200), 10),
        (1e12 + DECOYS * normal(300, 50).double(), 4),
    ],
    ids=["plain", "common-offset", "two-distinct-rows", "three-clusters", "decoys-come-first"],
)
def test_cancelled_pairs_are_taken_again_together(
    monkeypatch: pytest.MonkeyPatch, updates: Tensor, most: int
) -> None:
    passes = []
    once = dispatch._gram_distances
    monkeypatch.setattr(
        dispatch, "_gram_distances", lambda *args: passes.append(args) or once(*args)
    )
    dispatch.squared_distances(updates)
    assert len(passes) <= most
