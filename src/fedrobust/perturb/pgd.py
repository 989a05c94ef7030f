"""Projected gradient descent on the input (Madry et al. 2018), as in published comparisons."""

from collections.abc import Callable
from typing import Annotated, Literal

import torch
from annotated_types import Gt
from pydantic import model_validator
from torch import Tensor, nn

from fedrobust.compute.frozen import Ascended, fastest
from fedrobust.compute.network import (
    answers,
    batched_logits,
    cross_entropy,
    frozen,
    usable,
)
from fedrobust.config import arguments
from fedrobust.config.component import component
from fedrobust.config.scalars import Count, Flag, Pixels
from fedrobust.perturb.geometry import Ball, Norm, per_example, require_radius, unit
from fedrobust.perturb.inputs import begin, drawn, require_draws
from fedrobust.perturb.perturbation import Draw, adversarial
from fedrobust.typing import Images, Labels, Mask


@component
class Pgd:
    """PGD: x ← Π_{B(x₀, ε) ∩ [0, 1]}(x + α · step(∇ₓ l(x, y))), ``steps`` times.

    l is the cross-entropy of the raw logits, summed over the batch. step is the sign (linf, with
    sign(0) = 0) or the gradient over its ℓ2 norm (l2, 0 where the gradient is 0). A random start is
    uniform in the ball B and clipped to [0, 1]. ε and α are in pixel units. With several restarts,
    a misclassified result is kept for each example where there is one, and among equals the result
    with the largest loss.

    Reference: Madry et al., "Towards deep learning models resistant to adversarial attacks", 2018.
    """

    eps: Pixels
    step_size: Annotated[Pixels, Gt(0)]
    steps: Count
    norm: Norm = "linf"
    random_start: Flag = True
    restarts: Count = 1
    box: Flag = True
    name: Literal["pgd"] = "pgd"
    __call__ = adversarial

    @model_validator(mode="after")
    def _eps_in_pixel_units(self) -> "Pgd":
        require_radius(self.eps, self.norm, self.box)
        return self

    def draw(self, x: Images, generator: torch.Generator) -> Tensor | None:
        """Return a uniform point of the ball for every example of ``x``, before clipping."""
        require_draws(x, generator)
        if not self.random_start:
            return None
        where = generator.device
        if self.norm == "linf":
            cube = torch.rand(x.shape, generator=generator, dtype=x.dtype, device=where) * 2 - 1
            return (self.eps * cube).to(x.device)
        direction = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=where)
        radius = torch.rand(len(x), generator=generator, dtype=x.dtype, device=where)
        radius = radius ** (1 / x[0].numel()) if len(x) else radius
        return (self.eps * per_example(radius, x) * unit(direction)).to(x.device)

    def maximize(
        self, model: nn.Module, x: Images, y: Labels, draw: Draw, *, batch: int | None = None
    ) -> Images:
        """Return adversarial examples for ``x`` [b, ...]; ``draw`` is called once for each restart.

        Raises: ``ValueError`` for invalid arguments, such as an x outside [0, 1] with box.
        """
        given = x
        model, x, y, size = begin(model, x, y, draw, batch, box=self.box)
        parts = [slice(start, start + size) for start in range(0, len(x), size)]
        best = x.clone()
        wrong = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        loss = torch.full((len(x),), -torch.inf, dtype=x.dtype, device=x.device)
        with frozen(model):
            network = fastest(model, x)
            for _ in range(self.restarts):
                noise = drawn(draw, x)
                for part in parts:
                    start = None if noise is None else noise[part]
                    found = self._ascend(network, x[part], y[part], start)
                    if self.restarts == 1:
                        best[part] = found
                        continue
                    now_wrong, now_loss = _score(model, found, y[part])
                    better = (now_wrong & ~wrong[part]) | (
                        (now_wrong == wrong[part]) & (now_loss > loss[part])
                    )
                    best[part] = torch.where(per_example(better, x), found, best[part])
                    wrong[part] |= now_wrong
                    loss[part] = torch.where(better, now_loss, loss[part])
        return best.to(given.dtype)

    def _ascend(self, network: Ascended, x: Images, y: Labels, noise: Tensor | None) -> Images:
        x0 = network.enter(x)
        ball = Ball(x0, self.eps, self.norm, self.box)
        start = x0 if noise is None else ball.project_(x0 + network.enter(noise).to(x0))
        found = self._climb(network, start, y, ball, lambda slope: slope)
        if not found.sum().isfinite():
            # A slope of NaN has spoilt the point for good: start again with usable slopes.
            found = self._climb(network, start, y, ball, usable)
        return network.leave(found)

    def _climb(
        self,
        network: Ascended,
        start: Tensor,
        y: Labels,
        ball: Ball,
        mend: Callable[[Tensor], Tensor],
    ) -> Tensor:
        x = start.clone()
        for _ in range(self.steps):
            slope = mend(network.input_gradient(x, y))
            x = ball.project_(x.add_(self._step(slope), alpha=self.step_size))
        return x

    def _step(self, gradient: Tensor) -> Tensor:
        return gradient.sign() if self.norm == "linf" else unit(gradient)


def pgd(
    model: nn.Module,
    x: Images,
    y: Labels,
    *,
    eps: float,
    step_size: float,
    steps: int,
    norm: Norm = "linf",
    random_start: bool = True,
    restarts: int = 1,
    box: bool = True,
    generator: torch.Generator | None = None,
    batch_size: int | None = None,
) -> Images:
    """Return adversarial examples for ``x`` by projected gradient descent, as :class:`Pgd` does.

    x: [b, ...] in [0, 1] (any range with ``box=False``); y: [b]. The model keeps its mode, its
    parameters do not change, and the result has the type of ``x``.

    A slope that is NaN counts as 0, and an infinite slope as the steepest finite one of the
    example, so the result is finite. Values that rounding has put outside [0, 1] are clipped.

    Raises: ``ValueError``, which names the argument, for inputs outside the box, of another length
    than the labels, or not finite, for labels without a class, and for settings out of range;
    ``ModelError``, a subclass of it, for a model that gives no logits, or no gradient.

    >>> from torch import nn
    >>> x, y = torch.full((1, 1, 2, 2), 0.5), torch.tensor([0])
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> adversarial = pgd(model, x, y, eps=0.1, step_size=0.05, steps=4)
    >>> bool(((adversarial - x).abs() <= 0.1 + 1e-6).all())
    True
    """
    attack = Pgd(
        eps=eps,
        step_size=step_size,
        steps=steps,
        norm=norm,
        random_start=random_start,
        restarts=restarts,
        box=box,
    )
    return attack(model, x, y, generator=generator, batch_size=batch_size)


def ranked(model: nn.Module, x: Images, y: Labels, batch: int) -> tuple[Labels, Mask]:
    """Return each example's classes, y first, then likeliest first, and which are wrong now."""
    found = batched_logits(model, x, batch)
    wrong = answers(found) != arguments.labels(y, len(found), found.shape[1])
    lifted = found.nan_to_num(nan=-torch.inf).scatter(1, y[:, None], torch.inf)
    return lifted.argsort(dim=1, descending=True), wrong


def _score(model: nn.Module, x: Images, y: Labels) -> tuple[Mask, Tensor]:
    """Return which examples are misclassified, and the loss of each."""
    found = batched_logits(model, x, len(x))
    return answers(found) != y, cross_entropy(found, y).to(x.dtype)
