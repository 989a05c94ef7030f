"""The ring of DRFL: the law of its points, its labels, its margin."""

import math

import pytest
import torch

from fedrobust.config.component import from_config
from fedrobust.data import SyntheticRing
from fedrobust.errors import ConfigError


def test_variant_a_is_a_standard_normal_labelled_by_its_norm() -> None:
    data = SyntheticRing().load()
    x, y = data.train.x, data.train.y
    assert (len(x), len(data.test), data.shape, data.classes) == (50_000, 10_000, (2,), 2)
    assert x.dtype == torch.float32
    assert torch.equal(y, (x.square().sum(1).sqrt() > 2).long())
    # 50,000 draws: four standard errors of a mean, a variance, a share.
    assert x.mean(0).abs().max() < 4 / math.sqrt(50_000)
    assert (x.var(0) - 1).abs().max() < 4 * math.sqrt(2 / 50_000)
    assert abs(torch.corrcoef(x.T)[0, 1]) < 4 / math.sqrt(50_000)
    outside = math.exp(-2)  # P(‖X‖ > 2)
    share = float(y.double().mean())
    assert abs(share - outside) < 4 * math.sqrt(outside * (1 - outside) / 50_000)
    assert data.notes[0].startswith(f"{1 - share:.1%} of the training points have label 0")


def test_variant_b_leaves_a_margin_and_keeps_the_counts() -> None:
    radius, margin = math.sqrt(2), 1.3
    data = SyntheticRing(n=20_000, test=5_000, radius=radius, margin=margin).load()
    assert (len(data.train), len(data.test)) == (20_000, 5_000)
    norm = data.train.x.norm(dim=1)
    near, far = radius / margin, radius * margin
    assert not ((norm > near) & (norm < far)).any()
    assert torch.equal(data.train.y, (norm >= far).long())
    inside, beyond = 1 - math.exp(-(near**2) / 2), math.exp(-(far**2) / 2)
    expected = beyond / (inside + beyond)
    assert abs(float(data.train.y.double().mean()) - expected) < 4 * 0.5 / math.sqrt(20_000)


def test_the_seed_decides_and_test_points_are_others() -> None:
    one, two = SyntheticRing(n=100, test=50).load(), SyntheticRing(n=100, test=50).load()
    assert torch.equal(one.train.x, two.train.x)
    assert torch.equal(one.test.x, two.test.x)
    assert not torch.equal(one.train.x, SyntheticRing(n=100, test=50, seed=1).load().train.x)
    assert not torch.isin(one.test.x, one.train.x).any()
    assert torch.equal(one.test.x, SyntheticRing(n=300, test=50).load().test.x)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"margin": 1.0}, r"margin: .*greater than 1"),
        ({"margin": 100.0}, r"margin 100 leaves out all but .*smaller margin"),
        ({"radius": 0.0}, r"radius: .*greater than 0"),
        ({"n": 0}, r"n: .*greater than or equal to 1"),
    ],
)
def test_a_bad_ring_is_refused(change: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        from_config(SyntheticRing, change)
