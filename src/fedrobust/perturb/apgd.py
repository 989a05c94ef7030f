"""Auto-PGD (Croce and Hein 2020): ascent that chooses its own steps, for three losses."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import torch
from pydantic import model_validator
from torch import Tensor, nn

from fedrobust.compute.network import answers, ascent, cross_entropy, frozen, logit_of, usable
from fedrobust.config.component import component
from fedrobust.config.scalars import Count, Flag, Pixels
from fedrobust.perturb.geometry import Norm, inside, on_sphere, per_example, require_radius, unit
from fedrobust.perturb.inputs import begin, drawn, require_draws
from fedrobust.perturb.perturbation import Draw, adversarial
from fedrobust.perturb.pgd import ranked
from fedrobust.typing import Images, Labels, Mask

Loss: TypeAlias = Callable[[Tensor, Labels, Labels | None], Tensor]
"""A function of logits [b, classes], labels and targets, to be maximised [b]."""

_RISING = 0.75
_MOMENTUM = 0.75


@component
class Apgd:
    """Auto-PGD: momentum ascent whose step is halved, example by example, where it stalls.

    z = Π(x_k + η s(∇f)), x_{k+1} = Π(x_k + ¾ (z − x_k) + ¼ (x_k − x_{k−1})), with s the sign (linf)
    or the gradient over its norm (l2). η starts at 2ε. At the checkpoints ⌈p_j N⌉, p = 0, .22, then
    p_{j+1} = p_j + max(p_j − p_{j−1} − .03, .06), η is halved and the ascent goes back to the best
    point where f rose in fewer than ¾ of the steps, or where neither η nor the best f has changed.

    ``loss``: ``ce``, the cross-entropy; ``dlr``, −(z_y − max_{i≠y} z_i) / (z_π1 − z_π3), which no
    scaling of the logits changes; ``dlr-targeted``, −(z_y − z_t) / (z_π1 − (z_π3 + z_π4)/2) for
    each of the ``targets`` likeliest wrong classes t. Each of ``restarts`` has a random start. An
    example is left unchanged once it is misclassified. For an example that is never misclassified,
    the point with the largest f is returned.

    Raises: ``ValueError`` for inputs outside the box, for ``dlr`` with fewer than 3 classes, and
    for ``dlr-targeted`` with fewer than 4.

    Reference: Croce and Hein, "Reliable evaluation of adversarial robustness with an ensemble of
    diverse parameter-free attacks", ICML 2020. Differences: as in the authors' code, the first
    checkpoint only checks how often f rose.
    """

    eps: Pixels
    steps: Count = 100
    norm: Norm = "linf"
    loss: Literal["ce", "dlr", "dlr-targeted"] = "ce"
    targets: Count = 9
    restarts: Count = 1
    box: Flag = True
    name: Literal["apgd"] = "apgd"
    __call__ = adversarial

    @model_validator(mode="after")
    def _eps_in_pixel_units(self) -> "Apgd":
        require_radius(self.eps, self.norm, self.box)
        return self

    def draw(self, x: Images, generator: torch.Generator) -> Tensor | None:
        """Return a point of the ball's surface for every example of ``x``, before clipping."""
        require_draws(x, generator)
        return on_sphere(x, self.eps, self.norm, generator)

    def maximize(
        self, model: nn.Module, x: Images, y: Labels, draw: Draw, *, batch: int | None = None
    ) -> Images:
        """Return adversarial examples for ``x`` [b, ...]; ``draw`` is called once for each run."""
        given = x
        model, x, y, size = begin(model, x, y, draw, batch, box=self.box)
        best = x.clone()
        score = torch.full((len(x),), -torch.inf, dtype=x.dtype, device=x.device)
        with frozen(model):
            classes, wrong = ranked(model, x, y, size)
            _require_classes(self.loss, classes.shape[1])
            runs = min(self.targets, classes.shape[1] - 1) if self.loss == "dlr-targeted" else 1
            for run in range(runs * self.restarts):
                noise = drawn(draw, x)
                standing = (~wrong).nonzero()[:, 0]
                for part in torch.split(standing, size):
                    targeted = self.loss == "dlr-targeted"
                    target = classes[part, run % runs + 1] if targeted else None
                    start = None if noise is None else noise[part]
                    found, fooled, reached = self._climb(model, x[part], y[part], start, target)
                    better = fooled | (reached > score[part])
                    best[part] = torch.where(per_example(better, x), found, best[part])
                    score[part] = torch.maximum(score[part], reached)
                    wrong[part] = fooled
        return best.to(given.dtype)

    def _climb(
        self, model: nn.Module, x0: Images, y: Labels, noise: Tensor | None, target: Labels | None
    ) -> tuple[Images, Mask, Tensor]:
        """Return each example's best point, whether it is misclassified, and the best f."""
        loss, place = _LOSSES[self.loss], torch.arange(len(x0), device=x0.device)
        found, fooled = x0.clone(), torch.zeros_like(y, dtype=torch.bool)
        reached = torch.full((len(x0),), -torch.inf, dtype=x0.dtype, device=x0.device)
        start = self._inside(x0 if noise is None else x0 + noise, x0)
        run = _Run.begin(x0, y, target, start, 2 * self.eps)
        run.look(model, loss)
        ends = checkpoints(self.steps)
        since = 0
        for step in range(self.steps):
            keep = ~run.wrong
            found[place[run.wrong]], fooled[place[run.wrong]] = run.x[run.wrong], True
            if not keep.all():
                run, place = run.only(keep), place[keep]
            if not len(place):
                break
            z = self._inside(run.x + per_example(run.eta, x0) * self._way(run.slope), run.x0)
            share = _MOMENTUM if step else 1.0
            ahead = run.x + share * (z - run.x) + (1 - share) * (run.x - run.before)
            run.before, run.x = run.x, self._inside(ahead, run.x0)
            run.look(model, loss)
            if step + 1 in ends:
                run.check(step + 1 - since)
                since = step + 1
        if len(place):
            found[place] = torch.where(per_example(run.wrong, x0), run.x, run.best_x)
            fooled[place], reached[place] = run.wrong, run.best
        return found, fooled, reached

    def _inside(self, x: Images, x0: Images) -> Images:
        return inside(x, x0, self.eps, self.norm, self.box)

    def _way(self, slope: Tensor) -> Tensor:
        return slope.sign() if self.norm == "linf" else unit(slope)


def checkpoints(steps: int) -> frozenset[int]:
    """Return ⌈p_j N⌉ of Croce and Hein, equation 3."""
    before, p, found = 0, 22, set()  # in hundredths, so that nothing rounds
    while p <= 100:
        found.add(-(-p * steps // 100))
        before, p = p, p + max(p - before - 3, 6)
    return frozenset(found)


@dataclass
class _Run:
    """The examples that are not misclassified yet, and their current points; all are [b, ...]."""

    x0: Images
    y: Labels
    target: Labels | None
    x: Images
    before: Images
    best_x: Images
    slope: Tensor
    best_slope: Tensor
    value: Tensor
    best: Tensor
    checked: Tensor
    eta: Tensor
    rises: Tensor
    halved: Mask
    wrong: Mask

    @classmethod
    def begin(cls, x0: Images, y: Labels, target: Labels | None, x: Images, eta: float) -> "_Run":
        low = torch.full((len(x0),), -torch.inf, dtype=x0.dtype, device=x0.device)
        none, zero = torch.zeros_like(y, dtype=torch.bool), torch.zeros_like(x0)
        return cls(
            x0=x0,
            y=y,
            target=target,
            x=x,
            before=x,
            best_x=x,
            slope=zero,
            best_slope=zero,
            value=low,
            best=low,
            checked=low,
            eta=torch.full_like(low, eta),
            rises=torch.zeros_like(y),
            halved=~none,
            wrong=none,
        )

    def only(self, keep: Mask) -> "_Run":
        """Return the examples in ``keep``."""
        return replace(self, **{k: v[keep] for k, v in vars(self).items() if v is not None})

    def look(self, model: nn.Module, loss: Loss) -> None:
        """Compute f and its gradient at x, and update the best point and the counts."""
        x = self.x
        found, value, slope = ascent(model, x, lambda found: loss(found, self.y, self.target))
        value, self.slope = value.to(x.dtype).nan_to_num(nan=-torch.inf), usable(slope)
        self.wrong = answers(found) != self.y
        first = self.best.isneginf()  # the first value cannot be a rise
        self.rises = self.rises + ((value > self.value) & ~first)
        better = (value > self.best) | first
        self.best_x = torch.where(per_example(better, x), self.x, self.best_x)
        self.best_slope = torch.where(per_example(better, x), self.slope, self.best_slope)
        self.best, self.value = torch.maximum(self.best, value), value

    def check(self, period: int) -> None:
        """Where the ascent stalls, halve the step and go back to the best point."""
        stalled = (self.rises < _RISING * period) | (~self.halved & (self.checked >= self.best))
        self.eta = torch.where(stalled, self.eta / 2, self.eta)
        self.x = torch.where(per_example(stalled, self.x), self.best_x, self.x)
        self.slope = torch.where(per_example(stalled, self.x), self.best_slope, self.slope)
        self.halved, self.checked = stalled, self.best
        self.rises = torch.zeros_like(self.rises)


def _require_classes(loss: str, classes: int) -> None:
    least = {"ce": 2, "dlr": 3, "dlr-targeted": 4}[loss]
    if classes < least:
        raise ValueError(f"the loss {loss} needs {least} classes or more, and there are {classes}")


def _ce(logits: Tensor, y: Labels, target: Labels | None) -> Tensor:
    return cross_entropy(logits, y)


def _dlr(logits: Tensor, y: Labels, target: Labels | None) -> Tensor:
    ordered = logits.sort(dim=1, descending=True).values
    own = logit_of(logits, y)
    other = torch.where(logits.argmax(dim=1) == y, ordered[:, 1], ordered[:, 0])
    return -(own - other) / (ordered[:, 0] - ordered[:, 2] + 1e-12)


def _targeted(logits: Tensor, y: Labels, target: Labels | None) -> Tensor:
    assert target is not None
    ordered = logits.sort(dim=1, descending=True).values
    own, aim = logit_of(logits, y), logit_of(logits, target)
    return -(own - aim) / (ordered[:, 0] - (ordered[:, 2] + ordered[:, 3]) / 2 + 1e-12)


_LOSSES: dict[str, Loss] = {"ce": _ce, "dlr": _dlr, "dlr-targeted": _targeted}
