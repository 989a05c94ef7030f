"""What an audit says of labels of another order, and of models that look at their whole batch."""

import warnings
from pathlib import Path

import pytest
import torch
from planted import EPS, digits, natural, robust
from torch import nn

from fedrobust.errors import ModelError, ModelWarning
from fedrobust.evaluation import audit
from fedrobust.evaluation.auditing.indicators import AT_CHANCE, Indicator, at_chance

pytestmark = pytest.mark.slow


def sign_of(found: object) -> Indicator:
    [sign] = [sign for sign in found.signs if sign.name == AT_CHANCE]  # type: ignore[attr-defined]
    return sign


def test_labels_shifted_by_one_are_never_called_genuine() -> None:
    """Nothing stands, so nothing is masked: the clean accuracy is what is wrong."""
    _, _, x, y = digits()
    found = audit(robust(), x, (y + 1) % 10, eps=EPS)
    assert found.clean < 0.05
    assert found.verdict == "inconclusive"
    assert sign_of(found).word == "at chance"
    assert "check that labels and pixels" in found.reason
    assert f"right on {100 * found.clean:.1f} %" in found.reason
    honest = audit(robust(), x, y, eps=EPS)
    assert honest.verdict == "genuine"
    assert sign_of(honest) == Indicator(AT_CHANCE, 0.0, 0.0, 0.0, 0.0)


def test_the_sign_of_chance_is_by_how_much_one_answer_is_right_more_often() -> None:
    y = torch.tensor([0] * 60 + [1] * 40)
    never = torch.zeros(100, dtype=torch.bool)
    found = at_chance(never, y)
    assert found.value == pytest.approx(0.6)
    assert found.beyond is True
    assert at_chance(y == 0, y).beyond is None, "as good as one answer: more examples must tell"
    assert at_chance(~never, y).beyond is False
    assert at_chance(never, torch.zeros(100, dtype=torch.long)).beyond is False, "one class alone"


class Normed(nn.Module):
    """An honest network behind a normalisation by the statistics of the batch at hand."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm, self.body = norm, natural()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(0.3 + 0.35 * self.norm(x))


def test_answers_that_depend_on_the_batch_are_said_and_never_genuine() -> None:
    _, _, x, y = digits()
    found = audit(Normed(nn.BatchNorm2d(1, track_running_stats=False)), x[:60], y[:60], eps=0.01)
    assert found.verdict != "genuine"
    assert any("depends on the rest of its batch" in note for note in found.notes)
    plain = audit(natural(), x[:60], y[:60], eps=0.01)
    assert not plain.notes


def test_a_model_that_cannot_answer_one_example_is_refused_at_the_start() -> None:
    _, _, x, y = digits()
    norm = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64, track_running_stats=False))
    model = Normed(nn.Sequential(norm, nn.Unflatten(1, (1, 8, 8))))
    with pytest.raises(ModelError, match="1 at a time: ValueError: Expected more than 1 value"):
        audit(model, x[:33], y[:33], eps=EPS, batch_size=16)


def test_what_a_model_draws_comes_from_the_audits_seed() -> None:
    honest = natural()

    class Noisy(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return honest(x + 0.1 * torch.randn_like(x))

    _, _, x, y = digits()
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        state = torch.get_rng_state()
        found.append(audit(Noisy(), x[:40], y[:40], eps=0.02).to_json())
        assert torch.equal(torch.get_rng_state(), state)
    for content in found:
        for taken in content["taken"]:
            del taken["seconds"]
    assert found[0] == found[1]


@pytest.mark.long
def test_an_audit_of_a_randomised_model_that_is_interrupted_comes_to_the_same(
    tmp_path: Path,
) -> None:
    honest = natural()

    class Noisy(nn.Module):
        def __init__(self, most: float) -> None:
            super().__init__()
            self.left = most

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.left -= len(x)
            if self.left < 0:
                raise OSError("the machine went away")
            return honest(x + 0.1 * torch.randn_like(x))

        def __repr__(self) -> str:
            return "Noisy()"

    _, _, x, y = digits()
    x, y, journal = x[:40], y[:40], tmp_path / "progress.jsonl"
    whole = Noisy(1e9)
    expected = audit(whole, x, y, eps=0.02, batch_size=16).to_json()
    with pytest.raises(ModelError, match="went away"):
        audit(Noisy((1e9 - whole.left) * 0.6), x, y, eps=0.02, batch_size=16, journal=journal)
    found = audit(Noisy(1e9), x, y, eps=0.02, batch_size=16, journal=journal).to_json()
    for content in (expected, found):
        for taken in content["taken"]:
            del taken["seconds"]
    assert found == expected


def test_images_with_channels_last_are_told_of_where_a_model_flattens() -> None:
    """A model may want them so: the audit goes on."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    x, y = torch.rand(20, 8, 8, 1), torch.arange(20) % 10
    with pytest.warns(ModelWarning, match=r"\[20, 8, 8, 1\].*pass x.permute\(0, 3, 1, 2\)") as told:
        found = audit(model, x, y, eps=0.1)
    assert [warning.filename for warning in told] == [__file__]
    with warnings.catch_warnings():
        warnings.simplefilter("error", ModelWarning)
        right = audit(model, x.permute(0, 3, 1, 2), y, eps=0.1)
        small = torch.rand(20, 8, 5, 1)
        audit(nn.Sequential(nn.Flatten(), nn.Linear(40, 10)), small, y, eps=0.1)
        signals = nn.Sequential(nn.Conv2d(8, 1, (3, 1), stride=8), nn.Flatten(), nn.Linear(8, 10))
        audit(signals, torch.rand(20, 8, 64, 1), y, eps=0.1)  # it takes only one of the orders
    assert right.clean == found.clean
