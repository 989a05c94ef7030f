"""The loss around the examples, as PGD sees it and as it is, which shows gradient masking."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fedrobust.compute.network import ascent, batched_logits, cross_entropy, frozen, margin, right
from fedrobust.perturb import Pgd
from fedrobust.perturb.geometry import unit
from fedrobust.typing import Images, Labels

_EXAMPLES = 32
_POINTS = 17
_PAIRS = 64


@dataclass(frozen=True)
class Surface:
    """The loss on ``examples`` correctly classified examples, at x + a·u + b·v, a, b in ``ticks``.

    u is a step of length ε along which the margin z_y − max z_i falls, and v is a random step. The
    margin has a slope where the cross-entropy has none. Where the margin has no slope either, u is
    estimated from pairs of random points. ``loss`` [b][a] is the median cross-entropy in float32,
    which PGD climbs. ``errors`` is the share of mistakes. ``lead`` is the mean margin divided by
    its mean size at the examples themselves, so that scaling the logits does not change it.
    """

    ticks: list[float]
    loss: list[list[float | None]]
    lead: list[list[float | None]]
    errors: list[list[float | None]]
    examples: int


def surface(model: nn.Module, x: Images, y: Labels, plain: Pgd) -> dict[str, Any]:
    """Return the fields of the :class:`Surface` around the first correctly classified examples.

    If the model classifies none correctly, take the first of all examples.
    """
    some = right(model, x, y, _EXAMPLES).nonzero()[:_EXAMPLES, 0]
    x, y = (x[some], y[some]) if len(some) else (x[:_EXAMPLES], y[:_EXAMPLES])
    source = torch.Generator().manual_seed(0)
    with frozen(model):
        _, _, slope = ascent(model, x, lambda found: -margin(found, y))
    slope = slope.nan_to_num(nan=0.0)
    flat = slope.flatten(1).abs().amax(dim=1) == 0
    if flat.any():
        slope[flat] = _felt(model, x[flat], y[flat], plain, source)
    noise = torch.randn(x.shape, generator=source, dtype=x.dtype).to(x.device)
    u, v = (_step(way, plain) for way in (slope, noise))
    ticks = torch.linspace(-1, 1, _POINTS).tolist()
    grid = [[_looked(model, (x + a * u + b * v).clamp(0, 1), y) for a in ticks] for b in ticks]
    size = max(_looked(model, x, y)[3], 1e-30)
    found = Surface(
        [round(tick, 4) for tick in ticks],
        [[_rounded(point[0]) for point in row] for row in grid],
        [[_rounded(point[1] / size) for point in row] for row in grid],
        [[_rounded(point[2]) for point in row] for row in grid],
        len(x),
    )
    return asdict(found)


def _felt(model: nn.Module, x: Images, y: Labels, plain: Pgd, source: torch.Generator) -> Tensor:
    """Estimate where the margin falls from pairs of random points, without any gradient."""
    total = torch.zeros_like(x)
    for _ in range(_PAIRS):
        noise = torch.randn(x.shape, generator=source, dtype=x.dtype).to(x.device)
        way = _step(noise, plain)
        sides = ((x + s * way).clamp(0, 1) for s in (1, -1))
        there, back = (margin(batched_logits(model, side, len(x)), y) for side in sides)
        rise = (back - there).nan_to_num(nan=0.0, posinf=1.0, neginf=-1.0).sign()
        total += rise.view(-1, *[1] * (x.dim() - 1)) * way
    return total


def _step(way: Tensor, plain: Pgd) -> Tensor:
    return plain.eps * (way.sign() if plain.norm == "linf" else unit(way))


def _looked(model: nn.Module, x: Images, y: Labels) -> tuple[float, float, float, float]:
    """Return the median loss, the mean margin, the share of mistakes and the mean margin size."""
    found = batched_logits(model, x, len(x))
    leads, loss = margin(found, y).double(), cross_entropy(found, y).double().median()
    return (
        float(loss),
        float(leads.mean()),
        float((leads <= 0).double().mean()),
        float(leads.abs().mean()),
    )


def _rounded(value: float) -> float | None:
    """Round to four digits, which suffice for a picture; None for a number that is not finite."""
    return float(f"{value:.4g}") if math.isfinite(value) else None
