"""The Fast Minimum-Norm attack (Pintor et al. 2021): how near the nearest mistake lies."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from fedrobust.component import Count, Flag, Positive, component
from fedrobust.perturb.geometry import Norm, per_example, unit
from fedrobust.perturb.pgd import answers, frozen, margin, require_pixels
from fedrobust.typing import Images, Labels

_SHRINK = 0.05
"""γ₀, by which the radius changes at first."""


@dataclass(frozen=True, eq=False)
class Nearest:
    """For each example the nearest misclassified point found, and its distance, ∞ for none."""

    x: Images
    distance: Tensor


@component
class MinimumNorm:
    """The nearest misclassified input, without a radius given: the Fast Minimum-Norm attack.

    With the margin L = z_y − max_{i≠y} z_i, a step of length α along −∇L/‖∇L‖₂ alternates with a
    projection to radius ε. Until a mistake is found, ε = ‖δ‖ + L/‖∇L‖_q, the distance to the
    boundary of the linearised model, and a little more; then ε shrinks by 1 − γ on the wrong side,
    below the best norm found, and grows by 1 + γ on the right one. α goes from ``step_size`` to a
    hundredth of it, γ from .05 to .0001, by cosine. One search serves every ε at once: what is
    misclassified within ε is what lies at a distance of at most ε.

    Raises: ``ValueError`` for inputs outside the box.

    Reference: Pintor et al., "Fast minimum-norm adversarial attacks through adaptive norm
    constraints", NeurIPS 2021, algorithm 1. Difference: the distance to the boundary is taken
    1 + γ times, since a point on it is no mistake.
    """

    steps: Count = 100
    norm: Norm = "linf"
    step_size: Positive = 1.0
    box: Flag = True
    name: Literal["minimum-norm"] = "minimum-norm"

    def search(
        self, model: nn.Module, x: Images, y: Labels, *, batch: int | None = None
    ) -> Nearest:
        """The nearest mistakes for ``x`` [b, ...]; an example that is one lies at distance 0."""
        if self.box:
            require_pixels(x)
        size = batch or max(len(x), 1)
        pairs = zip(torch.split(x, size), torch.split(y, size), strict=True)
        with frozen(model):
            parts = [self._descend(model, *pair) for pair in pairs]
        return Nearest(*(torch.cat(column) for column in zip(*parts, strict=True)))

    def _descend(self, model: nn.Module, x0: Images, y: Labels) -> tuple[Images, Tensor]:
        delta, best_x = torch.zeros_like(x0), x0.clone()
        best = torch.full((len(x0),), torch.inf, dtype=x0.dtype, device=x0.device)
        radius = best.clone()
        for step in range(self.steps + 1):
            lead, slope, wrong = _looked(model, x0 + delta, y)
            size = self._size(delta)
            nearer = wrong & (size < best)
            best = torch.where(nearer, size, best)
            best_x = torch.where(per_example(nearer, x0), x0 + delta, best_x)
            if step == self.steps:
                break
            turn = (1 + math.cos(math.pi * step / self.steps)) / 2
            alpha = self.step_size * (0.01 + 0.99 * turn)
            gamma = 1e-4 + (_SHRINK - 1e-4) * turn
            dual = slope.flatten(1).norm(p=1 if self.norm == "linf" else 2, dim=1)
            edge = size + lead.clamp_min(0) / dual.clamp_min(1e-12)
            grown = torch.where(best.isinf(), edge, radius) * (1 + gamma)
            radius = torch.where(wrong, torch.minimum(radius * (1 - gamma), best), grown)
            delta = self._within(delta - alpha * unit(slope), radius)
            if self.box:
                delta = (x0 + delta).clamp(0, 1) - x0
        return best_x, best

    def _size(self, delta: Tensor) -> Tensor:
        flat = delta.flatten(1)
        return flat.abs().amax(dim=1) if self.norm == "linf" else flat.norm(dim=1)

    def _within(self, delta: Tensor, radius: Tensor) -> Tensor:
        if self.norm == "linf":
            edge = per_example(radius, delta)
            return torch.maximum(torch.minimum(delta, edge), -edge)
        length = self._size(delta).clamp_min(1e-12)
        return delta * per_example((radius / length).clamp(max=1), delta)


def _looked(model: nn.Module, x: Images, y: Labels) -> tuple[Tensor, Tensor, Tensor]:
    """L, its gradient by x, and which examples are misclassified."""
    with torch.enable_grad():
        x = x.detach().requires_grad_(True)
        logits = model(x)
        lead = margin(logits, y)
        (slope,) = torch.autograd.grad(lead.sum(), x)
    lead = lead.detach().to(x.dtype).nan_to_num(nan=0.0)
    return lead, slope.nan_to_num(nan=0.0), answers(logits.detach()) != y
