"""Fast Adaptive Boundary attack (Croce and Hein 2020): the distance to the nearest mistake."""

from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import model_validator
from torch import Tensor, nn

from fedrobust.compute.network import ascent, frozen, logit_of, right, usable
from fedrobust.config import arguments
from fedrobust.config.component import component
from fedrobust.config.scalars import Count, Flag, Pixels
from fedrobust.perturb.geometry import Norm, on_sphere, per_example, require_radius, size
from fedrobust.perturb.inputs import begin, drawn, require_draws
from fedrobust.perturb.perturbation import Draw, adversarial
from fedrobust.perturb.pgd import ranked
from fedrobust.typing import Images, Labels

_BIAS = 0.1
_OVERSHOT = 1.05
_BACK = 0.9


@dataclass(frozen=True, eq=False)
class Nearest:
    """The nearest mistake found for each example, and its distance; x itself and ∞ for none."""

    x: Images
    distance: Tensor


@component
class Fab:
    """The nearest misclassified input, searched for one wrong class after another: targeted FAB.

    For a target t, m(x) = z_y − z_t is linearised at x_i. P is the nearest point, in the norm, of
    {z : m(x_i) + ⟨∇m(x_i), z − x_i⟩ = 0} ∩ [0, 1]. With d = P(x_i) − x_i and d₀ = P(x₀) − x₀,

        x_{i+1} = clip((1 − α)(x_i + η d) + α (x₀ + η d₀)), α = min(‖d‖ / (‖d‖ + ‖d₀‖), 0.1),

    with η = 1.05. A mistake is kept where it is the nearest so far, and the search then goes on
    from x₀ + 0.9 (x_{i+1} − x₀). The ``targets`` likeliest wrong classes are tried, each
    ``restarts`` times. The first search starts at x₀. The others start at a random point, at half
    the distance of the nearest mistake, or at half of ``eps`` if this is less. An example is left
    unchanged once a mistake lies within ``eps``. With ``eps`` = 0 the search is for the nearest
    mistake, and its result serves every radius.

    Raises: ``ValueError`` for inputs outside the box.

    Reference: Croce and Hein, "Minimally distorted adversarial examples with a fast adaptive
    boundary attack", ICML 2020; the targeted form is from "Reliable evaluation of adversarial
    robustness with an ensemble of diverse parameter-free attacks", ICML 2020. Difference: as in the
    latter, there is no final search on the segment from x₀ to the mistake.
    """

    eps: Pixels
    steps: Count = 100
    norm: Norm = "linf"
    targets: Count = 9
    restarts: Count = 1
    box: Flag = True
    name: Literal["fab"] = "fab"
    __call__ = adversarial

    @model_validator(mode="after")
    def _eps_in_pixel_units(self) -> "Fab":
        require_radius(self.eps, self.norm, self.box)
        return self

    def draw(self, x: Images, generator: torch.Generator) -> Tensor | None:
        """Return a direction for every example of ``x``."""
        require_draws(x, generator)
        return on_sphere(x, 1.0, self.norm, generator)

    def maximize(
        self, model: nn.Module, x: Images, y: Labels, draw: Draw, *, batch: int | None = None
    ) -> Images:
        """Return the mistakes within ``eps`` of ``x`` [b, ...]; x itself where none was found."""
        found = self.search(model, x, y, draw, batch=batch)
        x = arguments.pixels(x) if self.box else x
        return torch.where(per_example(found.distance <= self.eps, x), found.x, x)

    def search(
        self, model: nn.Module, x: Images, y: Labels, draw: Draw, *, batch: int | None = None
    ) -> Nearest:
        """Return the nearest mistakes at any distance; a misclassified example has distance 0."""
        given = x
        model, x, y, many = begin(model, x, y, draw, batch, box=self.box)
        best = x.clone()
        with frozen(model):
            classes, wrong = ranked(model, x, y, many)
            distance = torch.where(wrong, 0.0, torch.inf).to(x.dtype)
            for run in range(min(self.targets, classes.shape[1] - 1) * self.restarts):
                target, noise = classes[:, run // self.restarts + 1], None
                if run % self.restarts:
                    noise = drawn(draw, x)
                for part in torch.split((distance > self.eps).nonzero()[:, 0], many):
                    start = x[part]
                    if noise is not None:
                        start = self._begin(start, noise[part], distance[part])
                    best[part], distance[part] = self._walk(
                        model, x[part], y[part], target[part], start, best[part], distance[part]
                    )
        return Nearest(best.to(given.dtype), distance)

    def _begin(self, x: Images, way: Tensor, distance: Tensor) -> Images:
        """Return start points at half the distance found so far, or at most at half of ``eps``."""
        far = distance.clamp(max=self.eps) if self.eps else distance.where(distance.isfinite(), 0)
        return self._boxed(x + per_example(far / 2, x) * way)

    def _walk(
        self,
        model: nn.Module,
        x0: Images,
        y: Labels,
        target: Labels,
        x: Images,
        best: Images,
        distance: Tensor,
    ) -> tuple[Images, Tensor]:
        """Return ``best`` and ``distance`` after a walk to ``target``, with any nearer mistakes."""
        best, distance = best.clone(), distance.clone()
        place = torch.arange(len(x0), device=x0.device)
        for _ in range(self.steps):
            lead, slope = _lead(model, x, y, target)
            there = lead + (slope * (x0 - x)).flatten(1).sum(dim=1)
            d = to_plane(x, slope, lead, self.norm, self.box)
            d0 = to_plane(x0, slope, there, self.norm, self.box)
            far, far0 = size(d, self.norm), size(d0, self.norm)
            share = per_example((far / (far + far0).clamp_min(1e-12)).clamp(max=_BIAS), x)
            x = self._boxed((1 - share) * (x + _OVERSHOT * d) + share * (x0 + _OVERSHOT * d0))
            wrong = ~right(model, x, y, len(x))
            far = size(x - x0, self.norm)
            nearer = wrong & (far < distance[place])
            best[place[nearer]], distance[place[nearer]] = x[nearer], far[nearer]
            x = torch.where(per_example(wrong, x), x0 + _BACK * (x - x0), x)
            keep = distance[place] > self.eps
            if not keep.all():
                x, x0, y, target, place = (v[keep] for v in (x, x0, y, target, place))
            if not len(place):
                break
        return best, distance

    def _boxed(self, x: Images) -> Images:
        return x.clamp(0, 1) if self.box else x


def to_plane(x: Images, slope: Tensor, value: Tensor, norm: Norm, box: bool) -> Tensor:
    """Return the shortest d with value + ⟨slope, d⟩ = 0, and with ``box`` x + d in [0, 1].

    Coordinate i moves by min(t s_i, room_i) against the value. room_i is the distance to the box,
    and s_i = 1 (linf) or \\|slope_i\\| (l2). t is the value at which the sum
    Σ \\|slope_i\\| min(t s_i, room_i) reaches \\|value\\|. The sum is linear between the values
    of t at which a coordinate meets the box; these are sorted. Where the box has no such point, d
    goes to its nearest corner.

    x, slope: [b, ...]; value: [b].
    """
    w, at = slope.flatten(1), x.flatten(1)
    scale = w.abs().amax(dim=1).clamp_min(torch.finfo(w.dtype).tiny)
    w, wanted = w / scale[:, None], (value / scale).abs()[:, None]
    down = (w > 0) == (value > 0)[:, None]
    gain = w.abs()
    speed = torch.ones_like(gain) if norm == "linf" else gain
    if not box:
        t = wanted / (gain * speed).sum(dim=1, keepdim=True).clamp_min(1e-30)
        return (torch.where(down, -1, 1) * torch.where(w == 0, 0, t * speed)).reshape(x.shape)
    room = torch.where(w == 0, 0, torch.where(down, at, 1 - at).clamp_min(0))
    ends, order = (room / speed.clamp_min(1e-30)).sort(dim=1)
    full = (gain * room).gather(1, order).cumsum(dim=1)
    rate = (gain * speed).gather(1, order)
    left = rate.flip(1).cumsum(dim=1).flip(1)
    # Between two such values of t, `left` coordinates still move and the earlier `full` ones stay.
    before = full - (gain * room).gather(1, order)
    reached = before + ends * left >= wanted
    first = reached.to(torch.uint8).argmax(dim=1, keepdim=True)
    t = (wanted - before.gather(1, first)) / left.gather(1, first).clamp_min(1e-30)
    moved = torch.where(reached.any(dim=1, keepdim=True), torch.minimum(t * speed, room), room)
    return (torch.where(down, -1, 1) * moved).reshape(x.shape)


def _lead(model: nn.Module, x: Images, y: Labels, target: Labels) -> tuple[Tensor, Tensor]:
    """Return z_y − z_t and its gradient by x."""

    def ahead(found: Tensor) -> Tensor:
        return logit_of(found, y) - logit_of(found, target)

    _, lead, slope = ascent(model, x, ahead)
    return lead.to(x.dtype).nan_to_num(nan=0.0), usable(slope)
