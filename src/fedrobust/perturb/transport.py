"""Points that an inner maximisation has moved, and their losses."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn

from fedrobust.compute.frozen import Ascended
from fedrobust.compute.network import cross_entropy
from fedrobust.perturb.geometry import per_example
from fedrobust.typing import Images, Labels, Mask

Loss: TypeAlias = Callable[[Tensor, Labels], Tensor]
"""A function of the model's outputs and labels: the loss of each example [b]."""
_FAR = 1e6
"""A point that has moved farther than this shows that the ascent has blown up."""


@dataclass(frozen=True, eq=False)
class Transport:
    """The moved points x [b, ...] and measures of their quality, each [b].

    ``loss`` is l(θ; x), and ``cost`` is ‖x − x₀‖₂². ``residual`` is ‖∇ₓ l − 2γ(x − x₀)‖₂ (with a
    box, only of the part that points into the box); it is 0 at a maximiser. ``curvature`` is the
    largest slope of ∇ₓ l seen between consecutive points: above 2γ the problem is not concave
    there.
    """

    x: Images
    loss: Tensor
    cost: Tensor
    residual: Tensor
    curvature: Tensor

    @classmethod
    def joined(cls, parts: Sequence["Transport"]) -> "Transport":
        """Return the points of all parts, one part after another."""
        columns = zip(*(vars(part).values() for part in parts), strict=True)
        return cls(*(torch.cat(column) for column in columns))


def losses(
    network: Ascended, x: Images, y: Labels, loss: Loss = cross_entropy
) -> tuple[Tensor, Tensor]:
    """Return the loss of each example [b], and its gradient by the input [b, ...]."""
    _, value, slope = network.ascent(x, lambda found: loss(found, y))
    return value, slope


def sound(model: nn.Module) -> bool:
    """Whether all parameters are finite; otherwise no method can give finite points."""
    return all(bool(parameter.isfinite().all()) for parameter in model.parameters())


def usable(slope: Tensor, x: Images, x0: Images) -> Tensor:
    """Return ``slope`` with 0 where it is not finite: such a coordinate makes no step.

    This does not apply far from ``x0``: there the ascent has blown up and must show it.
    """
    if slope.sum().isfinite():
        return slope
    finite = slope.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
    return torch.where(per_example(near(x, x0), x), finite, slope)


def near(x: Images, x0: Images) -> Mask:
    """Return which points [b, ...] have moved less than the limit ``_FAR``."""
    return (x - x0).flatten(1).abs().amax(dim=1) <= _FAR


def slope_along(rise: Tensor, run: Tensor, x: Images) -> Tensor:
    """Return ⟨rise, run⟩ / ‖run‖² of each example; 0 where the move is short.

    With a move from ``x`` whose square is below ε_machine of the mean square of x's entries, the
    quotient would be that of roundings.
    """
    length, information = squares(run), torch.finfo(run.dtype)
    size = x.flatten(1).square().mean(dim=1)
    told = length > (information.eps * size).clamp(min=information.tiny)
    return torch.where(told, (rise * run).flatten(1).sum(dim=1) / torch.where(told, length, 1), 0)


def squares(x: Tensor) -> Tensor:
    """Return the squared ℓ2 norm of each example [b]."""
    return x.flatten(1).square().sum(dim=1)
