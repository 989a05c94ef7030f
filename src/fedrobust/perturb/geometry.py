"""Balls around inputs: points on their surface, and projections into them and into [0, 1]."""

from typing import Literal, TypeAlias

import torch
from torch import Tensor

from fedrobust.typing import Images, Mask

Norm: TypeAlias = Literal["linf", "l2"]


def require_radius(eps: float, norm: Norm, box: bool) -> None:
    """Refuse an ℓ∞ radius that looks like one for bytes. Raises: ``ValueError``."""
    if norm == "linf" and box and eps > 1:
        raise ValueError(
            f"eps is {eps:g}, but it is in units of the [0, 1] pixel range: "
            f"did you mean {eps:g}/255?"
        )


_SLACK = 1e-6


def allowed(found: Images, x: Images, eps: float | None, norm: Norm, box: bool) -> Mask:
    """Return which points [b, ...] are finite, in the ball around x, and with ``box`` in [0, 1].

    The check allows for rounding: of a ball by as much as the points themselves are rounded.
    Without ``eps`` there is no ball.
    """
    half, unit = x.dtype in (torch.float16, torch.bfloat16), torch.finfo(x.dtype).eps
    slack = max(_SLACK, (0.5 if half else 8) * unit)
    largest = found.flatten(1).abs().amax(dim=1).float().nan_to_num(1.0)
    # The ℓ2 norm of roundings grows with the square root of their number.
    root = x[0].numel() ** 0.5 if norm == "l2" and len(x) else 1.0
    if half:
        found, x = found.float(), x.float()
        rounding = slack * largest.clamp(min=1) * root
    else:
        rounding = slack + unit * (largest - 1).clamp(min=0) * root
    flat = found.flatten(1)
    fit = flat.isfinite().all(dim=1)
    if eps is not None:
        fit &= size(found - x, norm) <= eps * (1 + 1e-4) + rounding
    if box:
        fit &= (flat.amin(dim=1) >= -slack) & (flat.amax(dim=1) <= 1 + slack)
    return fit


def inside(x: Images, x0: Images, eps: float, norm: Norm, box: bool) -> Images:
    """Move ``x`` into the ball of radius ``eps`` around ``x0``, and with ``box`` into [0, 1]."""
    if norm == "linf":
        x = torch.maximum(torch.minimum(x, x0 + eps), x0 - eps)
    else:
        offset = x - x0
        length = offset.flatten(1).norm(dim=1).clamp_min(torch.finfo(x.dtype).tiny)
        x = x0 + offset * per_example((eps / length).clamp(max=1), x)
    return x.clamp(0, 1) if box else x


class Ball:
    """The ball of radius ``eps`` around ``x0``, and with ``box`` only its part in [0, 1]."""

    def __init__(self, x0: Images, eps: float, norm: Norm, box: bool) -> None:
        self.x0, self.eps, self.norm, self.box = x0, eps, norm, box
        self.low, self.high = x0 - eps, x0 + eps
        if box:
            self.low, self.high = self.low.clamp(0, 1), self.high.clamp(0, 1)

    def project_(self, x: Images) -> Images:
        """Move ``x`` into it, in place where the norm allows it."""
        if self.norm == "linf":
            return x.clamp_(self.low, self.high)
        return inside(x, self.x0, self.eps, self.norm, self.box)


def on_sphere(x: Images, eps: float, norm: Norm, generator: torch.Generator) -> Tensor:
    """Return a random offset of norm ``eps`` for each example of ``x``."""
    where = generator.device
    if norm == "linf":
        way = torch.rand(x.shape, generator=generator, dtype=x.dtype, device=where) * 2 - 1
        longest = way.flatten(1).abs().amax(dim=1).clamp_min(torch.finfo(x.dtype).tiny)
        return (eps * way / per_example(longest, x)).to(x.device)
    way = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=where)
    return (eps * unit(way)).to(x.device)


def size(offset: Tensor, norm: Norm) -> Tensor:
    """Return the norm of each example's ``offset`` [b]."""
    flat = offset.flatten(1)
    return flat.abs().amax(dim=1) if norm == "linf" else flat.norm(dim=1)


def unit(x: Images) -> Images:
    """Return each example divided by its ℓ2 norm; 0 stays 0."""
    # Dividing by the largest entry first keeps tiny gradients from underflowing in the norm.
    scale = x.flatten(1).abs().amax(dim=1)
    scaled = x / per_example(torch.where(scale > 0, scale, 1), x)
    length = scaled.flatten(1).norm(dim=1)
    return scaled / per_example(torch.where(length > 0, length, 1), x)


def per_example(values: Tensor, x: Images) -> Tensor:
    """Return ``values`` [b] in a shape that multiplies ``x`` [b, ...]."""
    return values.reshape(-1, *[1] * (x.dim() - 1))
