"""The certificate of Wasserstein robustness: the size of the worst shift, and the loss under it."""

import math
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from fedrobust.compute.global_draws import draws
from fedrobust.compute.network import answers, batched_logits, cross_entropy, evaluating, frozen
from fedrobust.compute.randomness import drawing
from fedrobust.compute.units import computed, seeds, slices
from fedrobust.config import arguments
from fedrobust.evaluation.smoothness import smoothness_bound
from fedrobust.perturb.inputs import require_inputs, require_price
from fedrobust.perturb.transport import Transport
from fedrobust.perturb.wasserstein import (
    THOROUGH,
    Ascent,
    still,
    warn_curvature,
)
from fedrobust.typing import Images, Labels, Mask


@dataclass(frozen=True, eq=False)
class Certificate:
    """A model's figures under the worst shift that the price γ allows, as means over the examples.

    ``rho`` is ρ̂ = E c(T_γ(Z), Z), ``worst_case_loss`` is E l(T_γ(Z)) and ``surrogate`` is
    φ = E[l − γc], so that worst_case_loss = γ ρ̂ + φ. ``residual`` is the mean ‖∇ₓ(l − γc)‖₂ that
    the ascent left. ``curvature`` is the largest curvature that it met, and ``smoothness`` is a
    proved bound L on the curvature where there is one. ``clean_loss`` and ``accuracy`` are without
    a shift, ``worst_case_accuracy`` is with it. ``answers[k]`` is the share of the unshifted
    examples that the model puts in class k. It reveals a constant classifier, which has ρ̂ = 0. The
    shares sum to less than 1 where logits are NaN. ``box`` says that only shifts within [0, 1] were
    considered.
    """

    gamma: float
    rho: float
    worst_case_loss: float
    surrogate: float
    residual: float
    curvature: float
    smoothness: float | None
    gap: float | None
    clean_loss: float
    accuracy: float
    worst_case_accuracy: float
    answers: tuple[float, ...]
    box: bool
    examples: int

    @property
    def certified(self) -> bool:
        """Whether the bound is proved: γ > L/2 for a proved L, with the residual's gap added.

        The proof is about the network in exact arithmetic, with points, losses and residuals in
        float64. Without a proof the figures are an empirical estimate, since the ascent may have
        missed the maximum.
        """
        return self.gap is not None

    def bound(self, rho: float) -> float:
        """Return γ·rho + φ (+ the gap), which bounds the mean loss under shifts of cost ``rho``.

        ``rho`` is the average cost of a shift. With ``box``, the bound holds for shifts within
        [0, 1]. It is proved only where ``certified``.
        """
        price = self.gamma * rho if rho else 0.0
        return price + self.surrogate + (self.gap or 0.0)


def certificate(
    model: nn.Module,
    x: Images,
    y: Labels,
    *,
    gamma: float,
    steps: int = 100,
    rule: Literal["constant", "decaying", "backtracking"] = "backtracking",
    tolerance: float = 0.0,
    box: bool = False,
    batch_size: int = 1024,
) -> Certificate:
    """Compute ρ̂, the worst-case loss and the surrogate of ``model`` on examples x [b, ...], y [b].

    The cost is c = ‖x − x′‖₂², without ½, and infinite between labels. T_γ is found by gradient
    ascent (:class:`~fedrobust.perturb.wasserstein.Ascent`). With a proved smoothness bound L < 2γ
    the inner problem is (2γ − L)-strongly concave. A point with the residual r is then at most
    r²/(2(2γ − L)) below the maximum. The mean of this is ``gap``, and the bound is proved. A
    ``ConcavityWarning`` is given where the ascent met a curvature above 2γ.

    Raises: ``ValueError`` for γ ≤ 0 or NaN, and for examples that do not fit the model;
    ``ModelError``, which is a ``ValueError`` too, for a model that gives no logits, no gradient, or
    answers that depend on how examples are batched.

    Reference: Sinha, Namkoong, Duchi, "Certifying Some Distributional Robustness with Principled
    Adversarial Training", ICLR 2018, theorem 3 and §2.1; DRFL §2.
    """
    ascent = Ascent(steps, 1.0, rule, tolerance, box)
    found = worst_shift(model, x, y, gamma=gamma, ascent=ascent, batch_size=batch_size)
    warn_curvature(found.moved, gamma)
    return found.certificate()


@dataclass(frozen=True, eq=False)
class WorstShift:
    """Every example moved to T_γ, and the model's logits before and after the move.

    ``logits`` and ``moved_logits`` are [b, classes], ``y`` is [b]; ``smoothness`` is as in
    :class:`Certificate`.
    """

    gamma: float
    y: Labels
    logits: Tensor
    moved: Transport
    moved_logits: Tensor
    smoothness: float | None
    box: bool

    def certificate(self, which: Mask | None = None) -> Certificate:
        """Return the certificate of all examples, or of those where ``which`` [b] is true."""
        keep = torch.ones_like(self.y, dtype=torch.bool) if which is None else which
        gamma, y, clean = self.gamma, self.y[keep], self.logits[keep]
        residual = self.moved.residual[keep].double()
        rho, worst = _mean(self.moved.cost[keep]), _mean(self.moved.loss[keep])
        gap = None
        if _concave(self.smoothness, gamma):
            assert self.smoothness is not None
            gap = 0.0
            if not math.isinf(gamma):
                gap = _mean(residual**2) / (2 * (2 * gamma - self.smoothness))
            if not math.isfinite(gap) or not math.isfinite(worst):
                gap = None
        chosen = answers(clean)
        told = chosen[chosen >= 0]
        shares = torch.bincount(told, minlength=clean.shape[-1]).double() / len(y)
        return Certificate(
            gamma=gamma,
            rho=rho,
            worst_case_loss=worst,
            surrogate=worst if math.isinf(gamma) else worst - gamma * rho,
            residual=_mean(residual),
            curvature=self.moved.curvature[keep].max().item(),
            smoothness=self.smoothness,
            gap=gap,
            clean_loss=_mean(cross_entropy(clean, y)),
            accuracy=_mean(chosen == y),
            worst_case_accuracy=_mean(answers(self.moved_logits[keep]) == y),
            answers=tuple(shares.tolist()),
            box=self.box,
            examples=len(y),
        )

    def by_class(self) -> dict[int, Certificate]:
        """Return a certificate for each class of examples."""
        return {int(k): self.certificate(self.y == k) for k in torch.unique(self.y)}


def worst_shift(
    model: nn.Module,
    x: Images,
    y: Labels,
    *,
    gamma: float,
    ascent: Ascent = THOROUGH,
    batch_size: int = 1024,
) -> WorstShift:
    """Move every example x [b, ...] to T_γ. The result gives ``certificate`` and ``by_class``.

    Raises: ``ValueError`` for γ ≤ 0 or NaN, and for examples that do not fit the model.
    """
    require_price(gamma)
    arguments.whole("batch_size", batch_size)
    x, y = require_inputs(model, x, y)
    x = arguments.pixels(x) if ascent.box else x

    def work(model: nn.Module, part: slice) -> tuple[Transport, Tensor, Tensor]:
        at, labels = x[part], y[part]
        moved = (
            still(model, at, labels)
            if math.isinf(gamma)
            else ascent.solve(model, at, labels, gamma)
        )
        seen, there = (batched_logits(model, images, len(at)) for images in (at, moved.x))
        if exactly:
            moved = _exactly(model, at, labels, moved, gamma, ascent)
        return moved, seen, there

    with evaluating(model), drawing(0):
        smooth = smoothness_bound(model, tuple(x.shape[1:]))
        exactly = _concave(smooth, gamma) and not math.isinf(gamma)
        units = slices(len(x), batch_size)
        found = computed(model, units, work, seed=seeds(0), draws=draws(model, x), anywhere=True)
    moved, seen, there = zip(*found, strict=True)
    return WorstShift(
        gamma, y, torch.cat(seen), Transport.joined(moved), torch.cat(there), smooth, ascent.box
    )


def _concave(smoothness: float | None, gamma: float) -> bool:
    """Whether the inner problem is proved strongly concave."""
    return smoothness is not None and math.isfinite(smoothness) and 2 * gamma > smoothness


def _exactly(
    model: nn.Module,
    x: Images,
    y: Labels,
    moved: Transport,
    gamma: float,
    ascent: Ascent,
) -> Transport:
    """Recompute the points' losses in float64, since a proof must not rest on float32 losses."""
    exact = deepcopy(model).double()
    with frozen(exact):
        loss, cost, residual = ascent.judge(exact, moved.x.double(), x.double(), y, gamma)
    return replace(moved, loss=loss, cost=cost, residual=residual)


def _mean(values: Tensor) -> float:
    return values.double().mean().item()
