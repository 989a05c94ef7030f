"""Points that an inner maximisation has moved, and what the model's loss says of them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn

from fedrobust.compute.network import ascent, cross_entropy
from fedrobust.perturb.geometry import per_example
from fedrobust.typing import Images, Labels, Mask

Loss: TypeAlias = Callable[[Tensor, Labels], Tensor]
"""From the model's outputs and labels to the loss of each example [b]."""
_FAR = 1e6
"""A point that has moved farther comes from a model, or a price, with which nothing holds it."""


@dataclass(frozen=True, eq=False)
class Transport:
    """The moved points x [b, ...] and what tells how good they are, each [b].

    ``loss`` is l(θ; x), ``cost`` is ‖x − x₀‖₂², ``residual`` is ‖∇ₓ l − 2γ(x − x₀)‖₂ (with a box,
    of its part that points into the box), 0 at a maximiser. ``curvature`` is the largest slope of
    ∇ₓ l seen between consecutive points: above 2γ the problem is not concave there.
    """

    x: Images
    loss: Tensor
    cost: Tensor
    residual: Tensor
    curvature: Tensor


def losses(
    model: nn.Module, x: Images, y: Labels, loss: Loss = cross_entropy
) -> tuple[Tensor, Tensor]:
    """The loss of each example [b], and its gradient by the input [b, ...]."""
    _, value, slope = ascent(model, x, lambda found: loss(found, y))
    return value, slope


def sound(model: nn.Module) -> bool:
    """Whether all parameters are finite: where they are not, no care makes a point of NaN."""
    return all(bool(parameter.isfinite().all()) for parameter in model.parameters())


def usable(slope: Tensor, x: Images, x0: Images) -> Tensor:
    """``slope`` with 0 where it is none: a coordinate of infinite slope has no step of its own.

    Not far from ``x0``, where the ascent has blown up and must show it.
    """
    if slope.sum().isfinite():
        return slope
    finite = slope.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
    return torch.where(per_example(near(x, x0), x), finite, slope)


def near(x: Images, x0: Images) -> Mask:
    """Which points [b, ...] have moved by less than any that a sound ascent gives."""
    return (x - x0).flatten(1).abs().amax(dim=1) <= _FAR


def slope_along(rise: Tensor, run: Tensor) -> Tensor:
    """⟨rise, run⟩ / ‖run‖² of each example; 0 where it moved too little to tell from rounding."""
    length = squares(run)
    told = length > torch.finfo(run.dtype).eps
    return torch.where(told, (rise * run).flatten(1).sum(dim=1) / torch.where(told, length, 1), 0)


def squares(x: Tensor) -> Tensor:
    """The squared ℓ2 norm of each example [b]."""
    return x.flatten(1).square().sum(dim=1)
