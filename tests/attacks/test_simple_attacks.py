"""The attacks of one formula: what each sends, on numbers worked out by hand."""

import math
from dataclasses import replace

import pytest
import torch
from crafting import BENIGN, OWN, VIEW, Quadratic, float64, normal, rows_of, view_of
from hypothesis import given, settings
from hypothesis import strategies as st

from fedrobust.aggregators import Mean, Median, MultiKrum
from fedrobust.attacks import (
    ALittleIsEnough,
    GaussianNoise,
    InnerProduct,
    LabelFlip,
    Poisons,
    Shrink,
    SignFlip,
    ZeroUpdate,
)
from fedrobust.errors import ConfigError

KNOWN = view_of(OWN, BENIGN)
NOBODY = view_of(OWN, BENIGN[:0])


def all_send(row: list[float], m: int = 3) -> torch.Tensor:
    return float64(*[row] * m)


def test_gaussian_noise_has_the_scale_and_new_draws_for_each_client() -> None:
    view = replace(VIEW, parameters=torch.zeros(20_000), own=torch.empty(0, 20_000))
    rows, _ = GaussianNoise(scale=0.5).craft(None, view, torch.Generator().manual_seed(0))
    assert rows.shape == (3, 20_000)
    torch.testing.assert_close(rows.std(dim=1), torch.full((3,), 0.5), rtol=0.03, atol=0)
    assert rows.mean().abs() < 0.01
    assert torch.corrcoef(rows).triu(1).abs().max() < 0.03


def test_zero_update_sends_nothing_and_trains_on_nothing() -> None:
    view = replace(VIEW, own=OWN[:0])
    assert torch.equal(rows_of(ZeroUpdate(), view), torch.zeros_like(OWN))
    assert not ZeroUpdate().requires.uses_honest_updates


def test_sign_flip_turns_each_row_round() -> None:
    torch.testing.assert_close(rows_of(SignFlip(scale=3.0)), -3.0 * OWN)


def test_shrink_goes_from_the_parameters_to_zero_by_each_own_length() -> None:
    """Lengths √21, √13, √69; θ/‖θ‖ = (3, 0, 4)/5."""
    view = replace(VIEW, parameters=torch.tensor([6.0, 0.0, 8.0], dtype=torch.float64))
    lengths = [math.sqrt(21), math.sqrt(13), math.sqrt(69)]
    expected = float64(*[[-0.3 * size, 0.0, -0.4 * size] for size in lengths])
    torch.testing.assert_close(rows_of(Shrink(scale=0.5), view), expected)


def test_shrink_has_no_direction_at_zero() -> None:
    assert torch.equal(rows_of(Shrink()), torch.zeros_like(OWN))


def test_shrink_drives_the_mean_to_zero_and_not_multi_krum() -> None:
    toy = Quadratic()
    shrunk = toy.play(Mean(), Shrink(scale=4.0)).norm() / toy.best.norm()
    assert shrunk < 0.7
    assert toy.error(MultiKrum(f=3), Shrink(scale=4.0)) < 0.03


def test_inner_product_is_minus_epsilon_times_the_mean() -> None:
    attack = InnerProduct(epsilon=2.0)
    mine = all_send([-8.0, -4.0, 2.0])
    torch.testing.assert_close(rows_of(attack), mine)
    torch.testing.assert_close(rows_of(attack, KNOWN), all_send([-2.0, -4.0, -12.0]))
    torch.testing.assert_close(rows_of(attack, NOBODY), mine)


@pytest.mark.parametrize("epsilon", [1.0, 3.9, 4.2])
def test_inner_product_turns_the_mean_round_beyond_benign_over_malicious(epsilon: float) -> None:
    """12 benign of 15: the aggregate is (12 - 3ε)/15 of the benign mean, and 30 steps of rate 0.2.

    Without noise the error is a power of 1 - 0.2 (12 - 3ε)/15, above 1 exactly where ε > 4.
    """
    toy = Quadratic(noise=0.0)
    attack = InnerProduct(epsilon=epsilon)
    expected = (1 - 0.2 * (12 - 3 * epsilon) / 15) ** 30
    assert toy.error(Mean(), attack, knows=("benign",)) == pytest.approx(expected, rel=1e-9)
    assert (expected > 1) == (epsilon > 4)
    assert toy.error(Median(), attack, knows=("benign",)) < 0.01


def test_a_little_is_enough_is_mean_plus_k_deviations_of_the_colluders() -> None:
    mean = [4.0, 2.0, -1.0]
    deviation = [math.sqrt((9 + 1 + 16) / 3), 0.0, math.sqrt((9 + 1 + 4) / 3)]  # divisor n
    expected = [m - 1.5 * s for m, s in zip(mean, deviation, strict=True)]
    torch.testing.assert_close(rows_of(ALittleIsEnough(k=-1.5)), all_send(expected))
    torch.testing.assert_close(rows_of(ALittleIsEnough(k=-1.5), NOBODY), all_send(expected))


def test_a_little_is_enough_of_gradients_is_that_of_updates_with_the_other_sign() -> None:
    """Gradients are updates over -η: moved by k deviations of theirs, they are moved by -k here."""
    gradients = -OWN / 0.1
    moved = gradients.mean(dim=0) - 1.5 * gradients.std(dim=0, correction=0)
    torch.testing.assert_close(
        rows_of(ALittleIsEnough(k=-1.5, of="gradients")), all_send((-0.1 * moved).tolist())
    )
    view = view_of(OWN, clients=9)
    of_updates, of_gradients = (
        rows_of(ALittleIsEnough("max", of=of), view) - OWN.mean(dim=0)
        for of in ("updates", "gradients")
    )
    assert of_updates.abs().max() > 0
    torch.testing.assert_close(of_gradients, -of_updates)


def test_a_little_is_enough_uses_benign_updates_where_they_are_granted() -> None:
    rows = rows_of(ALittleIsEnough(k=2.0), KNOWN)
    torch.testing.assert_close(rows, all_send([3.0, 4.0, 8.0]))


def test_a_lone_colluder_without_a_deviation_sends_its_honest_update() -> None:
    for k in (-1.5, "max", "max-of-all"):
        view = view_of(OWN[:1], clients=9)
        assert torch.equal(rows_of(ALittleIsEnough(k=k), view), OWN[:1])


def furthest(k: str, n: int | None, m: int) -> float:
    """z from the row that is sent where μ = 0 and σ = 1."""
    own = float64(*[[(-1.0) ** i] for i in range(m)])
    if m % 2:
        own[-1] = 0.0
    deviation = math.sqrt(2 * (m // 2) / m)
    return -float(rows_of(ALittleIsEnough(k=k), view_of(own, clients=n))[0, 0]) / deviation


@pytest.mark.parametrize(
    ("k", "n", "m", "share"),
    [
        ("max", 50, 24, 24 / 26),  # s = ⌊50/2 + 1⌋ - 24 = 2 of 26 benign
        ("max-of-all", 50, 24, 48 / 50),
        ("max", 51, 24, 25 / 27),  # FAT's 51 clients: s = ⌊51/2 + 1⌋ - 24 = 2
        ("max-of-all", 51, 24, 49 / 51),
        ("max", 51, 12, 25 / 39),  # s = 14
        ("max", 25, 5, 12 / 20),
        ("max", 15, 2, 7 / 13),
        ("max", 10, 6, 3 / 4),  # a majority of colluders: s = 1
        ("max-of-all", 10, 6, 9 / 10),
        ("max", 8, 7, 0.5),  # one benign client: no deviation passes
        ("max", 3, 6, 0.5),  # a bound below what is seen
    ],
)
def test_the_largest_deviation_is_the_quantile_of_its_formula(
    k: str, n: int, m: int, share: float
) -> None:
    """Φ(z) = share, by the error function and not by the inverse that the attack uses."""
    z = furthest(k, n, m)
    assert 0.5 * (1 + math.erf(z / math.sqrt(2))) == pytest.approx(share, abs=1e-12)


def test_the_largest_deviation_of_the_two_formulas_in_a_table_of_the_normal_distribution() -> None:
    assert furthest("max", 50, 24) == pytest.approx(1.426, abs=5e-4)
    assert furthest("max-of-all", 50, 24) == pytest.approx(1.751, abs=5e-4)


@settings(derandomize=True, deadline=None, max_examples=200, database=None)
@given(n=st.integers(1, 60), m=st.integers(2, 60))
def test_the_largest_deviation_is_a_number_whatever_the_counts(n: int, m: int) -> None:
    assert math.isfinite(furthest("max", n, m))
    assert 0 <= furthest("max-of-all", n, m) < 3


def test_benign_updates_tell_the_number_of_clients() -> None:
    own, benign = normal(4, 6), normal(7, 6, seed=1)
    counted = rows_of(ALittleIsEnough(k="max"), view_of(own, benign))
    assert torch.equal(counted, rows_of(ALittleIsEnough(k="max"), view_of(own, benign, clients=11)))
    assert torch.equal(counted, rows_of(ALittleIsEnough(k="max"), view_of(own, benign, clients=5)))


def test_the_largest_deviation_needs_the_number_of_clients() -> None:
    assert ALittleIsEnough(k="max").requires.knowledge == {"colluders", "clients"}
    assert ALittleIsEnough(k=-1.0).requires.knowledge == {"colluders"}
    with pytest.raises(ValueError, match="a-little-is-enough needs the number of clients, which"):
        rows_of(ALittleIsEnough(k="max"))
    with pytest.raises(ConfigError, match="max"):
        ALittleIsEnough(k="most")


def test_a_little_is_enough_passes_where_a_flipped_sign_does_not() -> None:
    toy, rule = Quadratic(), MultiKrum(f=3)
    honest = toy.error(rule, None)
    assert toy.error(rule, SignFlip(scale=3.0)) < 1.1 * honest
    assert toy.error(rule, ALittleIsEnough(k=-1.0)) > 2 * honest


def test_label_flip_mirrors_the_labels_or_changes_one() -> None:
    x, y = torch.rand(6, 2), torch.tensor([0, 1, 2, 3, 4, 2])
    kept, mirrored = LabelFlip().poison(x, y, 5)
    assert torch.equal(kept, x)
    assert mirrored.tolist() == [4, 3, 2, 1, 0, 2]
    assert LabelFlip(source=2, target=4).poison(x, y, 5)[1].tolist() == [0, 1, 4, 3, 4, 4]
    assert LabelFlip(source=0, target=1).poison(x, y, 5)[1].tolist() == [1, 1, 2, 3, 4, 2]
    assert y.tolist() == [0, 1, 2, 3, 4, 2]
    assert isinstance(LabelFlip(), Poisons)
    assert torch.equal(rows_of(LabelFlip()), OWN)


def test_label_flip_refuses_what_it_cannot_flip() -> None:
    with pytest.raises(ConfigError, match="source and target go together"):
        LabelFlip(source=1)
    with pytest.raises(ConfigError, match="both 3, which changes nothing"):
        LabelFlip(source=3, target=3)
    with pytest.raises(ValueError, match="labels go from 0 to 4; source is 1 and target 5"):
        LabelFlip(source=1, target=5).poison(torch.rand(1, 2), torch.tensor([0]), 5)
