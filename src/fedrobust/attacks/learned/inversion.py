"""Gradient matching: find examples whose gradient is the one that the server reveals."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedrobust.clients.compiled_mlp import CompiledMlp
from fedrobust.compute.network import evaluating, logits
from fedrobust.compute.parameters import read, trainable
from fedrobust.config.component import component
from fedrobust.config.scalars import Count, NonNegative, Positive
from fedrobust.objectives import ERM, Objective
from fedrobust.typing import Images, Labels, Vector

_CONFIDENCE = 3.0
"""The initial logit of a given label, where labels are learned too."""
_LOOK = 10
"""The number of L-BFGS iterations between two checks of the point and, for pixels, of the box."""


@component
class Inversion:
    """Minimise D(∇_θ l(θ; x + δ, y), g) over the examples x, and over their labels y.

    D is ‖∇ − g‖₂² / ‖g‖₂² (``euclidean``, DLG) or 1 − cos(∇, g) (``cosine``, Geiping et al.).
    ``total_variation`` adds its multiple of the mean absolute difference of neighbouring pixels.
    With ``labels: learned`` a label is the softmax of logits that are optimised too, and at the end
    the label with the largest logit, whose gradient is another one. With ``kept`` the labels do not
    change. δ is the shift that the objective's own inner maximisation finds: the server's gradient
    was taken at such shifted points. δ is computed again every ``refresh`` iterations and held
    fixed in between. Data within [0, 1] stay there.

    References: Zhu, Liu, Han, "Deep Leakage from Gradients", NeurIPS 2019 (L-BFGS, 300
    iterations); Geiping et al., "Inverting Gradients", NeurIPS 2020 (Adam, cosine, total
    variation); DRFL §3 (starts from the attacker's own data instead of noise).

    Differences from the papers: ``iterations`` counts iterations of L-BFGS. In DLG's published code
    each of the 300 is a call of up to twenty iterations. Ten iterations take twelve gradients, or
    as many more as the line search in progress needs; then fewer than ten are made. It uses the
    strong Wolfe conditions; without them the method diverges. D is relative to ‖g‖₂²; arithmetic is
    float64.
    """

    method: Literal["lbfgs", "adam"] = "lbfgs"
    distance: Literal["euclidean", "cosine"] = "euclidean"
    iterations: Count = 300
    lr: Positive = 1.0
    labels: Literal["learned", "kept"] = "learned"
    total_variation: NonNegative = 0.0
    refresh: Count = 50


@dataclass(frozen=True, eq=False)
class Inverted:
    """The examples x [b, ...], y [b], and the distance D of those at the start and of these.

    ``reached`` is what the optimisation minimised: D of the softmax where labels are learned, which
    may be far below ``after``.
    """

    x: Images
    y: Labels
    before: float
    after: float
    reached: float


def invert(
    model: nn.Module,
    gradient: Vector,
    x: Images,
    y: Labels,
    settings: Inversion,
    *,
    objective: Objective | None = None,
    round: int = 1,
    generator: torch.Generator | None = None,
    box: bool | None = None,
) -> Inverted:
    """Return the examples, starting at x [b, ...] and y [b], with mean gradient nearest to [d].

    ``model`` holds the parameters at which the gradient was taken. ``objective`` and ``round`` say
    how the inputs were moved before the gradient was taken. ``box`` says whether inputs lie in
    [0, 1]; if left out, they do if those at the start do. The best point found under the last shift
    is returned.

    Raises: ``ValueError`` for a gradient that is zero or not finite.
    """
    size = gradient.double().norm()
    if not torch.isfinite(size) or size == 0:
        raise ValueError("there is nothing to match: the gradient is zero or not finite")
    kind, given = x.dtype, gradient.double()
    inside = bool((x >= 0).all() and (x <= 1).all()) if box is None else box
    matching = _Matching(model, given, x.double(), y, settings, inside)
    draw = generator or torch.Generator().manual_seed(0)
    with evaluating(matching.model):
        for start in range(0, settings.iterations, settings.refresh):
            matching.solve_shift(objective or ERM(), round, draw)
            if not matching.descend(min(settings.refresh, settings.iterations - start)):
                break
        found, labels = matching.best
        after = matching.distance(found, matching.one_hot(labels))
    reached = matching.best_distance
    return Inverted(found.to(kind), labels, matching.first or 0.0, after, reached)


class _Matching:
    """The state of one optimisation."""

    def __init__(
        self,
        model: nn.Module,
        gradient: Vector,
        x: Tensor,
        y: Labels,
        settings: Inversion,
        box: bool,
    ) -> None:
        self.model = deepcopy(model).double()
        self.gradient, self.settings = gradient, settings
        self.parameters = trainable(self.model)
        self.network = CompiledMlp.of(self.model) if x.device.type == "cpu" else None
        self.theta = read(self.model)
        self.box = box
        with torch.no_grad():
            self.classes = logits(self.model, x[:1]).shape[-1]
        self.x = x.clone().requires_grad_(True)
        self.labels = (_CONFIDENCE * self.one_hot(y)).requires_grad_(True)
        self.moving = [self.x, self.labels] if settings.labels == "learned" else [self.x]
        self.shift, self.optimizer = torch.zeros_like(x), self._optimizer()
        self.best: tuple[Tensor, Labels] = (x.clone(), y.clone())
        self.first: float | None = None
        self.best_distance = float("inf")

    def solve_shift(self, objective: Objective, round: int, draw: torch.Generator) -> None:
        """Compute δ at the current examples; if δ changes, the descent begins anew."""
        x, y = self.x.detach(), self._labels()
        shift = torch.zeros_like(x)
        if k := objective.perturbed(len(x), round):
            moved = objective.maximize(
                self.model, x[:k], y[:k], lambda: objective.draw(x[:k], draw), batch=len(x)
            )
            shift[:k] = moved - x[:k]
        if self.first is not None and torch.equal(shift, self.shift):
            return
        self.shift, self.optimizer = shift, self._optimizer()
        if self.first is None:
            self.first = self.distance(x, self.one_hot(y))
        # Measured again: under another shift the same examples have another distance.
        self.best_distance, self.best = self.distance(x, self._targets()), (x.clone(), y)

    def distance(self, x: Tensor, targets: Tensor) -> float:
        """Return D of examples, moved by the current shift, with label distributions."""
        if self.network is None:
            return float(self._apart(self._gradient(x, targets)).detach())
        with torch.no_grad():
            moved = x + self.shift
            return float(self._apart(self.network.soft_gradient(self.theta, moved, targets)))

    def slopes(self) -> tuple[Tensor, Sequence[Tensor]]:
        """Return what is minimised, and its gradient by each tensor that is moved."""
        if self.network is not None:
            return self._compiled_slopes(self.network)
        with torch.enable_grad():
            variation = self.settings.total_variation * _variation(self.x)
            value = self._apart(self._gradient(self.x, self._targets())) + variation
            return value.detach(), torch.autograd.grad(value, self.moving)

    @torch.no_grad()
    def _compiled_slopes(self, network: CompiledMlp) -> tuple[Tensor, Sequence[Tensor]]:
        """Return the same without autograd; the inputs of such a network are no images."""
        x, targets = self.x + self.shift, self._targets()
        gradient = network.soft_gradient(self.theta, x, targets)
        by_x, by_targets = network.pulled(self.theta, self._apart_by(gradient), x, targets)
        by_labels = targets * (by_targets - (targets * by_targets).sum(dim=1, keepdim=True))
        return self._apart(gradient), (by_x, by_labels)[: len(self.moving)]

    def _targets(self) -> Tensor:
        if self.settings.labels == "learned":
            return F.softmax(self.labels, dim=1)
        return self.one_hot(self._labels())

    def one_hot(self, y: Labels) -> Tensor:
        """Return label distributions [b, classes] that are sure."""
        return F.one_hot(y, self.classes).double()

    def _gradient(self, x: Tensor, targets: Tensor) -> Tensor:
        """Return ∇_θ of the mean loss, which autograd can differentiate again [d]."""
        with torch.enable_grad():
            found = logits(self.model, x + self.shift)
            loss = -(targets * F.log_softmax(found, dim=1)).sum(dim=1).mean()
            parts = torch.autograd.grad(loss, self.parameters, create_graph=True)
        return torch.cat([part.reshape(-1) for part in parts])

    def _apart(self, gradient: Tensor) -> Tensor:
        """Return D of a gradient."""
        if self.settings.distance == "cosine":
            return 1 - F.cosine_similarity(gradient, self.gradient, dim=0)
        return (gradient - self.gradient).square().sum() / self.gradient.square().sum()

    def _apart_by(self, gradient: Tensor) -> Tensor:
        """Return the slope of D by the gradient [d]."""
        if self.settings.distance == "cosine":
            unit, wanted = F.normalize(gradient, dim=0), F.normalize(self.gradient, dim=0)
            found: Tensor = ((unit @ wanted) * unit - wanted) / gradient.norm()
            return found
        return 2 * (gradient - self.gradient) / self.gradient.square().sum()

    def descend(self, iterations: int) -> bool:
        """Make ``iterations`` steps with a fixed shift; return whether all stayed finite."""
        settings, optimizer, left = self.settings, self.optimizer, iterations

        def closure() -> Tensor:
            value, slopes = self.slopes()
            for tensor, slope in zip(self.moving, slopes, strict=True):
                tensor.grad = slope
            return value

        while left > 0:
            each = 1
            if settings.method == "lbfgs":
                each = min(_LOOK, left)
                optimizer.param_groups[0].update(max_iter=each, max_eval=each * 5 // 4)
            left -= each
            optimizer.step(closure)  # type: ignore[arg-type] # the library takes tensors too
            if self.box:
                with torch.no_grad():
                    self.x.clamp_(0, 1)
            value = self.distance(self.x.detach(), self._targets())
            if not value < float("inf"):
                return False
            if value < self.best_distance:
                self.best_distance = value
                self.best = (self.x.detach().clone(), self._labels())
        return True

    def _optimizer(self) -> torch.optim.Optimizer:
        if self.settings.method == "adam":
            return torch.optim.Adam(self.moving, lr=self.settings.lr)
        return torch.optim.LBFGS(
            self.moving,
            lr=self.settings.lr,
            tolerance_grad=0,
            tolerance_change=0,
            line_search_fn="strong_wolfe",
        )

    def _labels(self) -> Labels:
        return self.labels.detach().argmax(dim=1)


def _variation(x: Tensor) -> Tensor:
    """Return the mean absolute difference of neighbouring pixels; 0 for other inputs."""
    if x.dim() < 4:
        return x.new_zeros(())
    across = (x[..., 1:] - x[..., :-1]).abs().mean()
    down = (x[..., 1:, :] - x[..., :-1, :]).abs().mean()
    return across + down
