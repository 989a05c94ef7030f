"""Rows whose squares are no float32 numbers: what is sent is what float64 would send."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from crafting import normal, rows_of, seeded, view_of
from torch import Tensor

from fedrobust.aggregators import Krum, Mean
from fedrobust.attacks import (
    ALittleIsEnough,
    Budgeted,
    GaussianNoise,
    InnerProduct,
    Jittered,
    LocalModelPoisoning,
    Mimic,
    MinMax,
    MinSum,
    Optimized,
    Shrink,
    SignFlip,
)
from fedrobust.attacks.estimates import expected_benign, honest
from fedrobust.attacks.moments import lengths, mean, moments
from fedrobust.federation.threat import View

SIZES = [1e-30, 1e-20, 1e-10, 1.0, 1e10, 1e20, 1e30]
ATTACKS: dict[str, Any] = {
    "alie": ALittleIsEnough(-1.5),
    "alie max": ALittleIsEnough("max"),
    "inner product": InnerProduct(2.0),
    "min-max": MinMax(),
    "min-max unit": MinMax("unit"),
    "min-sum": MinSum(),
    "min-sum sign": MinSum("sign"),
    "mimic": Mimic(),
    "trimmed mean": LocalModelPoisoning("trimmed-mean"),
    "krum": LocalModelPoisoning("krum", threshold=1e-40),
    "shrink": Shrink(2.0),
    "sign-flip": SignFlip(3.0),
    "jittered": Jittered(SignFlip(), 0.5),
    "budgeted": Budgeted(SignFlip(9.0), 1.5),
    "optimized": Optimized(InnerProduct(1.0)),
    "optimized direction": Optimized(ALittleIsEnough(-1.0), objective="direction"),
}


def seen(dtype: torch.dtype, own: Tensor, benign: Tensor | None) -> View:
    """The same in another dtype, down to the last bit."""
    parameters = normal(1, own.shape[1], seed=7)[0].float()
    more = None if benign is None else benign.float().to(dtype)
    return view_of(own.float().to(dtype), more, parameters=parameters.to(dtype), clients=9)


def of_its_length(got: Tensor, want: Tensor) -> None:
    """Row by row, equal up to float32's rounding of its greatest entry."""
    for row, true in zip(got.double(), want, strict=True):
        torch.testing.assert_close(row, true, rtol=1e-5, atol=2e-6 * float(true.abs().max()))


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("sees", [True, False])
def test_rows_of_any_size_give_the_answer_of_float64(attack: Any, size: float, sees: bool) -> None:
    """The oracle is the same attack on rows of size 1 in float64, which is right, times the size.

    So it does not share what overflows. Draws are those of float32.
    """
    own, benign = normal(4, 6) + 0.3, normal(5, 6, seed=1) + 0.3
    if not sees and isinstance(attack, Mimic):
        pytest.skip("needs benign updates")
    view = seen(torch.float32, size * own, size * benign if sees else None)
    if isinstance(attack, Optimized):
        view = replace(view, rule=Mean())
    true = seen(torch.float64, view.own.double() / size, None)
    true = replace(true, rule=view.rule)
    if view.benign is not None:
        true = replace(true, benign=view.benign.double() / size, benign_clients=view.benign_clients)
    if isinstance(attack, LocalModelPoisoning) and attack.against == "trimmed-mean":
        # Where parameters play a part, so does the size that they have.
        view, true = (replace(v, parameters=0 * v.parameters) for v in (view, true))
    if drawn(attack):
        check_draws(attack, view, size)
    else:
        of_its_length(rows_of(attack, view), size * rows_of(attack, true))


def drawn(attack: Any) -> bool:
    """Whether it draws numbers, which are others in float64."""
    return isinstance(attack, Jittered | Mimic) or getattr(attack, "against", "") == "trimmed-mean"


def check_draws(attack: Any, view: View, size: float) -> None:
    """What such an attack does by definition, in float64."""
    rows = rows_of(attack, view).double() / size
    if isinstance(attack, Jittered):
        own = view.own.double() / size
        torch.testing.assert_close(
            (rows + own).norm(dim=1), 0.5 * own.norm(dim=1), rtol=1e-5, atol=0
        )
        return
    others = honest(view).double() / size
    if isinstance(attack, Mimic):
        assert bool((others.float() == rows[0].float()).all(dim=1).any())
        return
    middle = others.mean(dim=0)
    if view.benign is None:
        share = (middle - rows) * middle.sign() / others.std(dim=0, correction=0)
        assert bool(((share > 3 - 1e-4) & (share < 4 + 1e-4)).all())
        return
    low, high = others.aminmax(dim=0)
    edge = torch.where(middle > 0, low, high)
    beyond = (edge - rows) * middle.sign()
    assert bool(((beyond > -1e-5) & (beyond <= edge.abs() + 1e-5)).all())


@pytest.mark.parametrize("size", SIZES)
def test_mimic_learns_the_same_direction_whatever_the_size(size: float) -> None:
    states = []
    for scale in (1.0, size):
        view, state = seen(torch.float32, normal(2, 6), scale * normal(5, 6, seed=1)), None
        for _ in range(3):
            _, state = Mimic().craft(state, view, seeded())
        assert state is not None
        states.append(state)
    torch.testing.assert_close(states[0]["z"], states[1]["z"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(states[0]["mean"] * size, states[1]["mean"], rtol=1e-5, atol=0)


def test_a_budget_holds_where_the_noise_has_no_float32_norm() -> None:
    """Noise of 1e18, of which 1000 squares are no number: it was sent as it was, 3.3e19 long."""
    own = normal(2, 1000).float()
    view = view_of(own)
    rows = rows_of(Budgeted(GaussianNoise(1e19), 1.0), view).double()
    torch.testing.assert_close(rows.norm(dim=1), own.double().norm(dim=1), rtol=1e-5, atol=0)
    noise = rows_of(GaussianNoise(1e19), view).double()
    cosine = torch.nn.functional.cosine_similarity(rows, noise, dim=1)
    torch.testing.assert_close(cosine, torch.ones(2, dtype=torch.float64))


def test_moments_are_those_of_each_column_of_its_own_size() -> None:
    sizes = torch.tensor([0.0, 1e-40, 1e-30, 1e-18, 1e-3, 1.0, 1e18, 1e30, 3e37])
    rows = (normal(7, 9) * sizes).float()
    rows[:, 4] = 0.25
    deviation, middle = moments(rows)
    true, centre = torch.std_mean(rows.double(), dim=0, correction=0)
    torch.testing.assert_close(deviation.double(), true, rtol=1e-5, atol=1e-44)
    for j in range(9):
        apart = abs(float(middle[j]) - float(centre[j]))
        assert apart <= 1e-6 * float(rows[:, j].abs().max()) + 1e-44
    ordinary = normal(7, 50).float()
    assert all(map(torch.equal, moments(ordinary), torch.std_mean(ordinary, dim=0, correction=0)))
    huge = 1e200 * normal(7, 3)
    torch.testing.assert_close(moments(huge)[0] / 1e200, (huge / 1e200).std(dim=0, correction=0))


def test_lengths_are_those_of_each_row() -> None:
    sizes = [0.0, 1e-40, 1e-25, 1e-3, 1.0, 1e19, 1e30, 3e37]
    rows = (normal(8, 100) * torch.tensor(sizes, dtype=torch.float64)[:, None]).float()
    got = lengths(rows)[:, 0].double()
    want = [math.sqrt(math.fsum(v * v for v in row)) for row in rows.double().tolist()]
    torch.testing.assert_close(got, torch.tensor(want, dtype=torch.float64), rtol=1e-6, atol=0)
    ordinary = normal(5, 40).float()
    assert torch.equal(lengths(ordinary), ordinary.norm(dim=1, keepdim=True))
    assert lengths(rows[:0]).shape == (0, 1)


def test_a_mean_of_the_greatest_numbers_is_one() -> None:
    rows = torch.full((9, 2), 3e38)
    rows[:, 1] = 2.0
    torch.testing.assert_close(mean(rows), torch.tensor([3e38, 2.0]))


def test_rows_that_are_not_finite_count_where_there_are_no_others() -> None:
    own = normal(4, 3)
    own[1, 2] = torch.nan
    own[3, 0] = torch.inf
    view = view_of(own, clients=6)
    good = view_of(own[[0, 2]], clients=6)
    for attack in (ALittleIsEnough(-1.0), InnerProduct(2.0), MinMax(), MinSum()):
        assert torch.equal(rows_of(attack, view)[0], rows_of(attack, good)[0])
    assert torch.equal(honest(view), own[[0, 2]])
    simulated = expected_benign(view, 9, seeded())
    assert torch.equal(simulated[:2], own[[0, 2]])
    assert bool(torch.isfinite(simulated).all())
    nothing = view_of(own[1:2].repeat(3, 1), rule=Krum(1), clients=9)
    for attack in (LocalModelPoisoning("krum"), Optimized(SignFlip()), ALittleIsEnough(-1.0)):
        assert bool(rows_of(attack, nothing)[:, 2].isnan().all())


def test_krum_is_asked_in_float64_whether_it_took_the_row() -> None:
    """The difference of a row of 1e30 from any other has no float32 norm, nor has the row."""
    benign = (1e30 * (normal(8, 400) + 5)).float()
    view = view_of(benign[:2], benign, rule=Mean(), parameters=torch.zeros(400))
    assert torch.equal(rows_of(LocalModelPoisoning("krum"), view), view.own)
