"""The inner problem of Wasserstein robustness: move an input to raise the loss, at a price."""

import math
import warnings
from dataclasses import replace
from typing import Annotated, Literal

import torch
from annotated_types import Gt
from pydantic import AllowInfNan, Strict
from torch import Tensor, nn

from fedrobust.compute.frozen import Ascended, fastest
from fedrobust.compute.network import cross_entropy, frozen, logits
from fedrobust.config import arguments
from fedrobust.config.component import component
from fedrobust.config.scalars import Count, Flag, NonNegative
from fedrobust.errors import ConcavityWarning
from fedrobust.perturb.geometry import per_example
from fedrobust.perturb.inputs import begin, require_inputs, require_price
from fedrobust.perturb.transport import (
    Loss,
    Transport,
    losses,
    near,
    slope_along,
    sound,
    squares,
    usable,
)
from fedrobust.typing import Images, Labels

Price = Annotated[float, Strict(), AllowInfNan(True), Gt(0)]
"""γ, the price of a unit of squared distance; infinity forbids every move."""
_HALVINGS = 30
"""The most halvings of a backtracking step; after these, the point stays where it is."""


@component
class Ascent:
    """Gradient ascent on l(θ; x) − γ‖x − x₀‖₂², per example, from x₀.

    x ← x + (s_t / 2γ) (∇ₓ l(θ; x) − 2γ (x − x₀)), so a step is in units of 1/(2γ). With s = 1 the
    step goes to x₀ + ∇ₓ l / 2γ. This is exact for a linear loss. Wherever the loss has a smoothness
    constant L < 2γ, it converges by the factor L/2γ in each step. ``rule``:

    - ``constant``: s_t = s;
    - ``decaying``: s_t = s / √t, t = 1, 2, …, as in the WRM code;
    - ``backtracking``: s_t = s is halved, for each example separately, until the objective rises
      by a quarter of what the gradient promises; it never falls, whatever the curvature.

    An example stops once its residual is at most ``tolerance`` (0: after all steps). ``box`` keeps
    the points in [0, 1]. The cost has no ½. A coordinate whose slope is infinite or NaN is not
    moved. An example is not moved where the model has no finite loss at its next point.

    References: Sinha, Namkoong, Duchi, "Certifying Some Distributional Robustness with Principled
    Adversarial Training", ICLR 2018, algorithm 1; DRFL, algorithm 1.

    Differences from the code of Sinha et al.: the code steps by an absolute 1/√t, which diverges
    for large γ, and its γ stands for ½γ here.
    """

    steps: Count = 15
    size: Annotated[float, Strict(), AllowInfNan(False), Gt(0)] = 1.0
    rule: Literal["constant", "decaying", "backtracking"] = "constant"
    tolerance: NonNegative = 0.0
    box: Flag = False

    @property
    def searches(self) -> bool:
        """Whether steps depend on the measured loss, which then needs its full precision."""
        return self.rule == "backtracking" or self.tolerance > 0

    def solve(
        self,
        model: nn.Module,
        x: Images,
        y: Labels,
        gamma: float,
        batch: int | None = None,
        loss: Loss = cross_entropy,
    ) -> Transport:
        """Return the points where the ascent ends, computed ``batch`` at a time.

        Raises: ``ValueError`` where ``box`` is set but x does not lie in [0, 1].
        """
        require_price(gamma)
        given = x
        model, x, y, size = begin(model, x, y, None, batch, box=self.box)
        with frozen(model):
            network = fastest(model, x)
            parts = [
                self._solve(network, x[i : i + size], y[i : i + size], gamma, loss)
                for i in range(0, max(len(x), 1), size)
            ]
        found = Transport.joined(parts)
        return replace(found, x=found.x.to(given.dtype))

    def move(
        self,
        model: nn.Module,
        x: Images,
        y: Labels,
        gamma: float,
        batch: int | None = None,
        loss: Loss = cross_entropy,
    ) -> Images:
        """Return the points alone, without the last gradient, which only a residual needs."""
        if self.searches:
            return self.solve(model, x, y, gamma, batch, loss).x
        require_price(gamma)
        given = x
        model, x, y, size = begin(model, x, y, None, batch, box=self.box)
        found = x.clone()
        with frozen(model):
            network = fastest(model, x)
            for part in (slice(i, i + size) for i in range(0, len(x), size)):
                found[part] = self._move(model, network, x[part], y[part], gamma, loss)
        return found.to(given.dtype)

    def _move(
        self,
        model: nn.Module,
        network: Ascended,
        x: Images,
        y: Labels,
        gamma: float,
        function: Loss,
    ) -> Images:
        start = at = network.enter(x)
        value, steep = torch.zeros(0), False
        for t in range(1, self.steps + 1):
            loss, slope = losses(network, at, y, function)
            if t == 1:  # later ones are visible in the point itself
                value, steep = loss, not slope.sum().isfinite()
            if steep and sound(model):
                break
            rise = slope - 2 * gamma * (at - start)
            at = self._boxed(at + self._length(t) / (2 * gamma) * rise)
        # The sum is finite where all entries are; an overflow of the sum only costs time.
        if (not steep and at.sum().isfinite()) or not sound(model):
            return network.leave(at)
        found = self._solve(network, x, y, gamma, function).x
        # A model that has blown up must give NaN points: ρ̂ must not be 0 there.
        return torch.where(per_example(value.isfinite(), found), found, torch.nan)

    def _length(self, t: int) -> float:
        return self.size / math.sqrt(t) if self.rule == "decaying" else self.size

    def _boxed(self, x: Images) -> Images:
        return x.clamp(0, 1) if self.box else x

    def _solve(
        self, network: Ascended, start: Images, y: Labels, gamma: float, function: Loss
    ) -> Transport:
        x = x0 = network.enter(start)
        loss, slope = losses(network, x, y, function)
        slope, curvature = usable(slope, x, x0), torch.zeros_like(loss)
        for t in range(1, self.steps + 1):
            rise = slope - 2 * gamma * (x - x0)
            moving = self._residual(x, rise) > self.tolerance
            if not moving.any():
                break
            step = per_example(moving.to(x) * (self._length(t) / (2 * gamma)), x)
            if self.rule == "backtracking":
                step = self._shorter(network, x, x0, y, gamma, function, loss, rise, step)
            after = self._boxed(x + step * rise)
            loss_after, slope_after = losses(network, after, y, function)
            lost = loss.isfinite() & ~loss_after.isfinite() & near(after, x0)
            if lost.any():  # the model has no finite loss there: the example stays where it was
                stay = per_example(lost, x)
                after, loss_after = torch.where(stay, x, after), torch.where(lost, loss, loss_after)
                slope_after = torch.where(stay, slope, slope_after)
            loss, slope_after = loss_after, usable(slope_after, after, x0)
            curvature = torch.maximum(curvature, slope_along(slope_after - slope, after - x, x))
            x, slope = after, slope_after
        residual = self._residual(x, slope - 2 * gamma * (x - x0))
        return Transport(network.leave(x), loss, squares(x - x0), residual, curvature)

    def judge(
        self, model: nn.Module, x: Images, x0: Images, y: Labels, gamma: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return loss, cost and residual [b] of points x that came from x0."""
        network = fastest(model, x)
        x, x0 = network.enter(x), network.enter(x0)
        loss, slope = losses(network, x, y)
        residual = self._residual(x, usable(slope, x, x0) - 2 * gamma * (x - x0))
        return loss, squares(x - x0), residual

    def _residual(self, x: Images, rise: Tensor) -> Tensor:
        if self.box:  # a push against the edge of the box is no reason to move
            rise = rise.where(~((x <= 0) & (rise < 0) | (x >= 1) & (rise > 0)), 0)
        return squares(rise).sqrt()

    def _shorter(
        self,
        network: Ascended,
        x: Tensor,
        x0: Tensor,
        y: Labels,
        gamma: float,
        function: Loss,
        loss: Tensor,
        rise: Tensor,
        step: Tensor,
    ) -> Tensor:
        """Halve each example's step until the objective rises by a quarter of the promise."""
        before = loss - gamma * squares(x - x0)
        with torch.no_grad():
            for _ in range(_HALVINGS):
                after = self._boxed(x + step * rise)
                value = function(network.logits(after), y)
                promise = (rise * (after - x)).flatten(1).sum(dim=1)
                price = gamma * squares(after - x0)
                slack = 4 * torch.finfo(x.dtype).eps * (value.abs() + price)
                short = ~(value - price >= before + promise / 4 - slack)  # NaN is short too
                if not short.any():
                    return step
                step = torch.where(per_example(short, x), step / 2, step)
        return torch.where(per_example(short, x), 0, step)


THOROUGH = Ascent(steps=30, rule="backtracking")
"""The ascent that evaluations use unless told otherwise."""


def wasserstein_ascent(
    model: nn.Module,
    x: Images,
    y: Labels,
    *,
    gamma: float,
    steps: int = 100,
    rule: Literal["constant", "decaying", "backtracking"] = "backtracking",
    size: float = 1.0,
    tolerance: float = 0.0,
    box: bool = False,
    batch_size: int | None = None,
    loss: Loss = cross_entropy,
) -> Transport:
    """Return T_γ(θ; x₀) = argmax_x l(θ; x) − γ‖x − x₀‖₂² by gradient ascent: see :class:`Ascent`.

    x: [b, ...], any range unless ``box``; y: [b]. l is ``loss`` of the model's outputs, by default
    the cross-entropy of raw logits. The model keeps its mode. The answer is the maximiser only
    where the problem is concave, that is where the loss curves by less than 2γ. Where more
    curvature was seen, a ``ConcavityWarning`` says how much.

    Raises: ``ValueError`` for γ ≤ 0 or NaN, for inputs that are not finite, leave the box, or are
    not as many as the labels, and for labels that the model has no class for; ``ModelError``, a
    subclass of it, for a model that gives no logits, or no gradient.
    """
    require_price(gamma)
    x, y = require_inputs(model, x, y, alone=False)
    if batch_size is not None:
        arguments.whole("batch_size", batch_size)
    if not callable(loss):
        raise ValueError(
            f"loss must be a function of logits and labels; got {arguments.told(loss)}"
        )
    how = Ascent(steps=steps, size=size, rule=rule, tolerance=tolerance, box=box)
    if math.isinf(gamma):
        return still(model, arguments.pixels(x) if box else x, y, loss)
    found = how.solve(model, x, y, gamma, batch_size, loss)
    warn_curvature(found, gamma)
    return found


def still(model: nn.Module, x: Images, y: Labels, loss: Loss = cross_entropy) -> Transport:
    """Return the answer for γ = ∞: nothing moves."""
    with torch.no_grad():
        value = loss(logits(model, x), y)
    zero = torch.zeros_like(value)
    return Transport(x.clone(), value, zero, zero, zero)


def warn_curvature(found: Transport, gamma: float) -> None:
    """Warn where the ascent found more curvature than γ can outweigh."""
    steepest = found.curvature.max().item() if len(found.curvature) else 0.0
    if steepest > 2 * gamma:
        share = (found.curvature > 2 * gamma).double().mean().item()
        warnings.warn(
            f"gamma = {gamma:g} is too small for a concave inner problem: the loss curves by up to "
            f"{steepest:.3g} > 2·gamma on {share:.1%} of the examples, so the points found may be "
            "local maxima; a gamma above half that curvature is needed",
            ConcavityWarning,
            stacklevel=3,
        )
