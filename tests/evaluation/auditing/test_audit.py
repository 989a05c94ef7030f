"""Planted models get the verdict that they deserve, and the figures are what they are called."""

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from planted import (
    EPS,
    Decoy,
    Noisy,
    Probabilities,
    Rounded,
    Times,
    digits,
    distilled,
    natural,
    robust,
    sign,
)
from torch import Tensor, nn

from fedrobust.compute.randomness import Streams
from fedrobust.evaluation import Audit, audit, robust_accuracy
from fedrobust.evaluation.auditing.model_check import subject
from fedrobust.evaluation.auditing.progress_file import About, ProgressFile
from fedrobust.evaluation.auditing.runner import AttackRunner, attacked
from fedrobust.evaluation.intervals import Share
from fedrobust.perturb import Pgd
from fedrobust.progress import UNWATCHED

pytestmark = pytest.mark.slow

FOUND: dict[str, Audit] = {}


def audited(name: str, model: nn.Module, **keys: Any) -> Audit:
    """The audit of a model, once for all tests."""
    if name not in FOUND:
        _, _, x, y = digits()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            FOUND[name] = audit(model, x, y, **{"eps": EPS} | keys)
    return FOUND[name]


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_honest_models_are_genuine_robust_or_not(norm: Any) -> None:
    """Plain PGD tells the truth of both, to a few points."""
    eps = EPS if norm == "linf" else 0.5
    for name, model in (("natural", natural()), ("robust", robust())):
        found = audited(f"{name} {norm}", model, norm=norm, eps=eps)
        assert found.verdict == "genuine", str(found)
        assert found.claimed - 0.15 < found.robust <= found.claimed <= found.clean
    assert "no robustness" not in audited(f"robust {norm}", robust()).reason
    assert audited(f"robust {norm}", robust()).robust > audited(f"natural {norm}", natural()).robust


@pytest.mark.parametrize(
    ("name", "made", "signs"),
    [
        ("logits × 100", lambda: Times(natural(), 100.0), ("rescaled", "Square", "the gradient")),
        ("robust, logits × 100", lambda: Times(robust(), 100.0), ("the gradient", "survives")),
        ("distilled", distilled, ("rescaled", "Square")),
        ("rounded", lambda: Rounded(natural()), ("Square", "the gradient", "survives")),
        ("decoy", lambda: Decoy(natural()), ("Square", "the gradient")),
        ("rounded off", lambda: Rounded(natural(), False), ("Square", "the gradient", "survives")),
    ],
)
def test_masked_models_are_caught_with_their_signs(
    name: str, made: Any, signs: tuple[str, ...]
) -> None:
    found = audited(name, made())
    assert found.verdict == "masked", str(found)
    for start in signs:
        assert sign(found, start) is True, f"{start}: {found}"
    assert found.claimed > 0.85
    assert found.robust < found.claimed - 0.05


def test_no_scale_of_the_logits_changes_what_is_robust() -> None:
    """The battery says of a model with logits × 100 what it says of the model."""
    for model in (natural(), robust()):
        kind = "natural" if model is natural() else "robust"
        loud = audited(
            "logits × 100" if kind == "natural" else "robust, logits × 100", Times(model, 100.0)
        )
        plain = audited(f"{kind} linf", model)
        assert abs(loud.robust - plain.robust) <= 0.02


def test_a_randomised_model_is_named_and_never_genuine() -> None:
    found = audited("noisy", Noisy(natural()))
    assert found.verdict != "genuine"
    assert any("randomised" in note for note in found.notes)


class Centred(nn.Module):
    """The same answers by logits that sum to 0, so that no one moves their sum."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x)
        return logits - logits.mean(dim=1, keepdim=True)


def test_probabilities_are_taken_for_what_they_are() -> None:
    found, plain = audited("soft", Probabilities(robust())), audited("robust linf", robust())
    assert found.verdict == "genuine"
    assert found.claimed == plain.claimed  # log p are logits, up to a constant
    assert abs(found.robust - plain.robust) <= 0.01
    assert any("probabilities" in note for note in found.notes)
    assert not any("exactly 1" in note for note in found.notes)


def test_probabilities_that_were_rounded_to_1_are_named() -> None:
    """softmax(100 z): which logits were behind a probability of 1 cannot be told."""
    _, _, x, y = digits()
    found = subject(Probabilities(Times(natural(), 100.0)), x, y)
    (note,) = [note for note in found.notes if "exactly 1" in note]
    assert "audit the model without its softmax" in note


def test_a_gradient_of_zero_is_named_and_not_one_that_sums_to_zero() -> None:
    _, _, x, y = digits()
    found = subject(Rounded(natural()), x, y)
    assert found.differentiable
    assert any("gradient of the logits is 0 at all of 16" in note for note in found.notes)
    assert not subject(Centred(natural()), x, y).notes


def test_a_model_without_a_path_for_gradients_is_named() -> None:
    found = audited("rounded off", Rounded(natural(), False))
    assert any("no gradient reaches" in note for note in found.notes)


def test_the_claim_is_plain_pgd_and_robust_the_worst_of_all() -> None:
    _, _, x, y = digits()
    found = audited("natural linf", natural())
    attack = Pgd(eps=EPS, step_size=EPS / 30, steps=40)
    assert found.claimed == robust_accuracy(
        natural(), x, y, attack=attack, generator=Streams(0).generator("audit")
    )
    names = [taken.name for taken in found.taken]
    assert names[:3] == ["plain PGD", "PGD, 100 steps", "rescaled PGD"]
    assert names[3:6] == ["Square", "noise", "one step"]
    assert {"APGD-CE", "targeted APGD-DLR"} <= set(names)
    by_name = {taken.name: taken for taken in found.taken}
    right = round(found.clean * len(x))
    assert by_name["plain PGD"].tried == by_name["Square"].tried == right
    assert by_name["APGD-CE"].tried < round(found.claimed * len(x)) + 1
    assert by_name["PGD, 100 steps"].tried == round(found.claimed * len(x))
    last = by_name["targeted APGD-DLR"]
    assert last.tried - last.fell == round(found.robust * len(x))


class Uneven(nn.Module):
    """Logits that are tiny for most examples and huge for the others."""

    def __init__(self) -> None:
        super().__init__()
        self.model = natural()

    def forward(self, x: Tensor) -> Tensor:
        dark = x.flatten(1).mean(dim=1, keepdim=True) < 0.32
        logits: Tensor = self.model(x) * torch.where(dark, 1e-4, 1e2)
        return logits


def test_the_factor_is_the_one_that_fells_the_most() -> None:
    """One taken from the typical lead, which is tiny here, would leave the huge logits huge."""
    _, _, x, y = digits()
    x, y, plain = x[:100], y[:100], Pgd(eps=EPS, step_size=EPS / 10, steps=20)
    journal = ProgressFile(None, About("", None))
    field = AttackRunner(Uneven(), x, y, (EPS, "linf"), 256, 0, UNWATCHED, journal)
    chosen, _ = field.rescaled(plain, plain)
    index = torch.arange(100)

    def fells(factor: float) -> int:
        source = torch.Generator().manual_seed(0)
        draw = partial(plain.draw, x, source)
        found = attacked(Uneven(), replace(chosen, factor=factor), x, y, index, draw)
        return int((Uneven()(found).argmax(dim=1) != y).sum())

    assert fells(chosen.factor) >= max(fells(f) for f in (1.0, 0.1, 0.01, 0.001)) - 3
    assert fells(chosen.factor) > fells(1.0) + 3


class Undefined(nn.Module):
    """The same function, whose gradient at black pixels is no number."""

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = robust()(x) + 0 * torch.sqrt(x.flatten(1)[:, :1])
        return logits


def test_points_that_are_no_images_fell_nobody() -> None:
    _, _, x, y = digits()
    robust()
    found = audit(Undefined(), x, y, eps=0.5, norm="l2")
    plain = audited("robust l2", robust(), eps=0.5, norm="l2")
    assert found.verdict == "masked"
    assert found.robust >= plain.robust


def test_a_battery_that_refutes_the_claim_is_not_overlooked() -> None:
    found = replace(audited("natural linf", natural()), claimed=0.9, robust=0.5)
    assert "takes 40.0 points off the claim" in found.reason
    names = [sign.name for sign in found.signs]
    assert "the battery beats plain PGD" in names
    (beaten,) = [s for s in audited("distilled", distilled()).signs if s.name.startswith("the bat")]
    assert beaten.beyond


class Constant(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.tensor([1.0] + [0.0] * 9) + 0 * x.flatten(1)[:, :1]


def test_an_honest_claim_of_nothing_is_called_so() -> None:
    """Far out of its depth a natural model is right less often than one answer to everything."""
    _, _, x, y = digits()
    found = audit(natural(), x, y, eps=0.4)
    assert found.robust <= torch.bincount(y).max() / len(y)
    if found.verdict == "genuine":
        said = "there is no robustness" if found.claimed else "the model claims no robustness"
        assert said in found.reason
    honest = replace(found, verdict="genuine", claimed=found.claimed or 0.01)
    common = 100 * float(torch.bincount(y).max()) / len(y)
    assert f"one answer to everything is right on {common:.1f} %" in honest.reason
    near = found.shares | {"robust": Share(round(0.3 * len(y)), len(y))}
    asked = {"settings": found.settings | {"one answer": 0.29}}
    told = replace(honest, shares=near, robust=0.3, **asked).reason
    assert "more examples must tell whether the model withstands more than one answer" in told
    assert "no robustness" not in told
    asked = {"settings": found.settings | {"one answer": 0.15}}
    assert "one answer" not in replace(honest, shares=near, robust=0.3, **asked).reason


def test_a_constant_answer_is_neither_genuine_nor_masked() -> None:
    _, _, x, y = digits()
    found = audit(Constant(), x, y, eps=EPS)
    assert any("one answer to everything" in note for note in found.notes)
    assert found.verdict == "inconclusive"


class Padded(nn.Module):
    """A class that never is, beside noise too faint to show in any other sign."""

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = robust()(x + 0.005 * torch.randn_like(x))
        return torch.cat([logits, torch.full_like(logits[:, :1], -torch.inf)], dim=1)


def test_a_randomised_model_with_infinite_logits_is_found_out() -> None:
    found = audited("padded", Padded())
    assert [s.name for s in found.signs if s.beyond is not False] == []
    assert found.verdict == "inconclusive"
    assert any("randomised" in note for note in found.notes)
    assert not any("no numbers" in note for note in found.notes)


class ByNumpy(nn.Module):
    """Leaves PyTorch on the way."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            logits = natural()(torch.from_numpy(x.numpy().copy()))
        return torch.from_numpy(logits.numpy())


class InPlace(nn.Module):
    """An honest model that centres its input where it lies."""

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = natural()(x.mul_(2.0).sub_(1.0).add_(1.0).div_(2.0))
        return logits


def test_a_model_that_works_in_place_is_judged_like_any_other() -> None:
    _, _, x, y = digits()
    given = x.clone()
    found, plain = audit(InPlace(), given, y, eps=EPS), audited("natural linf", natural())
    assert torch.equal(given, x)
    assert found.shares == plain.shares
    assert [sign.value for sign in found.signs] == [sign.value for sign in plain.signs]


def test_a_model_that_leaves_pytorch_is_named_and_judged() -> None:
    _, _, x, y = digits()
    found = audit(ByNumpy(), x, y, eps=EPS)
    assert any("no gradient reaches" in note for note in found.notes)
    assert found.verdict == "masked"
    assert found.robust < 0.8


def test_the_same_seed_gives_the_same_audit() -> None:
    _, _, x, y = digits()
    first, again = (audit(natural(), x[:30], y[:30], eps=EPS) for _ in range(2))
    assert first.shares == again.shares
    assert [(t.name, t.fell) for t in first.taken] == [(t.name, t.fell) for t in again.taken]


def test_the_model_is_put_back_as_it_was() -> None:
    _, _, x, y = digits()
    model = nn.Sequential(natural(), nn.Dropout(0.9))
    model.train()
    natural().eval()
    found = audit(model, x[:40], y[:40], eps=EPS)
    assert model.training
    assert not natural().training
    assert all(p.requires_grad for p in model.parameters())
    assert found.clean > 0.8  # not with nine tenths of the logits dropped


class Wide(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"eps": 0.0}, "without a ball there is no robustness"),
        ({"eps": "8px"}, "eps is '8px': give a radius above 0, such as 0.3 or 8 / 255"),
        ({"eps": "8/0"}, "eps is '8/0': give a radius above 0"),
        ({"x": lambda x: x * 255}, "normalise them inside the model"),
        ({"y": lambda y: y + 5}, "labels go from"),
        ({"x": lambda x: x[:, :, :5]}, "does not take examples torch.float32"),
        ({"model": Wide()}, "must give logits"),
        ({"x": lambda x: x[:10]}, "examples but"),
        ({"claim": Pgd(eps=0.2, step_size=0.1, steps=2)}, "the claim is PGD in linf with eps"),
    ],
)
def test_what_cannot_be_audited_is_said(changes: dict[str, Any], message: str) -> None:
    _, _, x, y = digits()
    keys: dict[str, Any] = {"eps": EPS, "model": natural(), "x": x[:40], "y": y[:40]}
    for name, change in changes.items():
        keys[name] = change(keys[name]) if name in "xy" else change
    with pytest.raises(ValueError, match=message):
        audit(keys.pop("model"), keys.pop("x"), keys.pop("y"), **keys)
