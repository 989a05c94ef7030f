"""Optimized around other wrappers searches the innermost attack, and leaves the wrappers alone."""

import pytest
import torch

from fedrobust.aggregators import Mean
from fedrobust.attacks import Budgeted, Delayed, InnerProduct, Jittered, Optimized, ZeroUpdate

ROWS = torch.randn(6, 50, generator=torch.Generator().manual_seed(0))


def test_a_budget_holds_whatever_is_searched() -> None:
    attack = Optimized(attack=Budgeted(attack=InnerProduct(epsilon=1000.0), budget=10.0))
    found = attack(ROWS, malicious=2, rule=Mean())
    shares = found.norm(dim=1) / ROWS[:2].norm(dim=1)
    assert torch.allclose(shares, torch.full((2,), 10.0), rtol=1e-5)


def test_the_innermost_number_is_searched() -> None:
    plain = Optimized(attack=InnerProduct(epsilon=1.0), high=7.0)
    within = Optimized(
        attack=Delayed(attack=Budgeted(attack=InnerProduct(epsilon=1.0), budget=1e6), start=1),
        high=7.0,
    )
    asked = {"malicious": 2, "rule": Mean()}
    assert torch.equal(plain(ROWS, **asked), within(ROWS, **asked))


def test_a_wrappers_own_field_is_searched_where_it_is_named() -> None:
    inner = Jittered(attack=InnerProduct(epsilon=1.0), radius=0.5)
    (named, unnamed) = (
        Optimized(attack=inner, parameter=name, low=3.0, high=4.0)._with(3.5)
        for name in ("radius", None)
    )
    assert named == Jittered(attack=InnerProduct(epsilon=1.0), radius=3.5)
    assert unnamed == Jittered(attack=InnerProduct(epsilon=3.5), radius=0.5)


def test_wrappers_around_nothing_to_search_are_refused() -> None:
    with pytest.raises(ValueError, match="real number of zero-update to search; it has none"):
        Optimized(attack=Budgeted(attack=ZeroUpdate(), budget=10.0))
