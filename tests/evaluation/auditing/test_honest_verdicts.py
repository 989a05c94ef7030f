"""What looks like masking and is none, and what is hidden from the audit itself."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fedrobust.errors import ModelError
from fedrobust.evaluation import audit, robust_accuracy
from fedrobust.perturb import Pgd


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def linear(weight: Tensor, bias: float) -> nn.Linear:
    """Two classes: 1 where ⟨w, x⟩ + b is above 0."""
    model = nn.Linear(len(weight), 2, dtype=weight.dtype)
    with torch.no_grad():
        model.weight.copy_(torch.stack([-weight, weight]))
        model.bias.copy_(torch.tensor([-bias, bias]))
    return model


class Decoy(nn.Module):
    """Shows attacks another direction than the one by which it answers."""

    def __init__(self, shown: Tensor, true: Tensor, by: str) -> None:
        super().__init__()
        self.shown, self.true, self.by = shown, true, by

    def forward(self, x: Tensor) -> Tensor:
        attacked = x.requires_grad if self.by == "input" else torch.is_grad_enabled()
        z = (x.flatten(1) - 0.5) @ (self.shown if attacked else self.true)
        return torch.stack([-z, z], dim=1)


@pytest.mark.parametrize("by", ["mode", "input"])
def test_a_model_that_shows_attacks_another_one_is_refused(by: str) -> None:
    ways = torch.randn(2, 64, generator=seeded()).sign()
    x = torch.rand(60, 1, 8, 8, generator=seeded(1))
    model = Decoy(ways[0], ways[1], by)
    y = ((x.flatten(1) - 0.5) @ ways[1] > 0).long()
    message = "depends on whether gradients are taken"
    with pytest.raises(ModelError, match=message):
        robust_accuracy(model, x, y, attack=Pgd(eps=0.03, step_size=0.01, steps=4))
    with pytest.raises(ModelError, match=message):
        audit(model, x, y, eps=0.03)


def sign(found: Any, name: str) -> Any:
    return next(each for each in found.signs if each.name == name)


@pytest.mark.parametrize("scale", [1.0, 10.0])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_model_that_rises_with_every_input_is_not_masked(scale: float, norm: Any) -> None:
    """Its gradient has one sign, and PGD along it is exact; large logits hide the loss."""
    x = 0.5 * torch.rand(80, 1, 4, 4, generator=seeded())
    y = torch.arange(80) % 2
    x[y == 1] += 0.5
    model = nn.Sequential(nn.Flatten(), linear(scale * torch.ones(16), -8.0 * scale))
    found = audit(model, x, y, eps=0.02, norm=norm)
    # At ten times the logits, two of 80 losses are exactly 0, and so are their gradients.
    assert sign(found, "the gradient is 0").value <= (0 if scale == 1 else 0.05)
    assert found.verdict != "masked"


class OneSign(nn.Module):
    """Has a gradient of one sign by a term that is nothing in float32 and hides the true one."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(1)
        z = (flat.detach() - 0.5) @ self.weight + 1e-12 * flat.sum(dim=1)
        return torch.stack([-z, z], dim=1)


@pytest.mark.parametrize("seed", range(3))
def test_one_sign_that_leads_nowhere_still_counts(seed: int) -> None:
    """Brightness may well change the answer, but not as little as the gradient says."""
    weight = torch.randn(64, generator=seeded(seed)).sign()
    x = torch.rand(80, 1, 8, 8, generator=seeded(1))
    y = ((x.flatten(1) - 0.5) @ weight > 0).long()
    found = audit(OneSign(weight), x, y, eps=0.03)
    assert sign(found, "the gradient is 0").value > 0.9
    assert found.verdict == "masked"


class Constant(nn.Module):
    """Gives one answer to everything; the gradient reaches the input all the same."""

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(1)
        return torch.stack([flat.sum(dim=1), flat.sum(dim=1) + 9], dim=1)


def test_the_order_of_the_examples_does_not_matter() -> None:
    """300 of one class come first: an honest model is audited, and a constant one told."""
    x = torch.rand(320, 1, 4, 4, generator=seeded())
    y = (torch.arange(320) >= 300).long()
    x[y == 1] = 0.5 + x[y == 1] / 2
    x[y == 0] /= 2
    y[0] = 1  # one wrong label
    honest = nn.Sequential(nn.Flatten(), linear(torch.ones(16), -8.0))
    told = "the model gives one answer to everything: there is nothing to audit"
    assert told not in audit(honest, x, y, eps=0.01).notes
    for order in (torch.arange(320), torch.randperm(320, generator=seeded(2))):
        found = audit(Constant(), x[order], y[order], eps=0.01)
        assert told in found.notes
        assert found.verdict == "inconclusive"


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_an_honest_model_in_half_precision_is_not_masked(kind: torch.dtype) -> None:
    """Steps of ε/30 are far below the distance of two numbers of bfloat16 there."""
    weight = torch.randn(192, generator=seeded()).sign()
    x = (0.5 + 0.4 * torch.rand(90, 3, 8, 8, generator=seeded(1))).to(kind)
    model = nn.Sequential(nn.Flatten(), linear(weight, float(-0.7 * weight.sum()))).to(kind)
    with torch.no_grad():
        y = model(x).argmax(dim=1)
    eps = 8 / 255
    claim = Pgd(eps=eps, step_size=eps / 30, steps=40)
    single, same = model.float(), x.float()
    true = robust_accuracy(single, same, y, attack=claim)
    assert true < 0.5
    found = audit(model.to(kind), x, y, eps=eps, claim=claim)
    assert found.verdict != "masked"
    assert found.claimed == pytest.approx(true, abs=0.06)
