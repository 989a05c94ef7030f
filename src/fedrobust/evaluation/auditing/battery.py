"""The attacks of an audit, and running them on the examples that still stand."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from torch import nn

from fedrobust.evaluation.auditing.subject import Scaled
from fedrobust.perturb import Apgd, Pgd, Square
from fedrobust.perturb.geometry import Norm, inside, on_sphere, per_example
from fedrobust.perturb.pgd import Draw, Perturbation, answers
from fedrobust.typing import Images, Indices, Labels, Mask

Budget: TypeAlias = Literal["quick", "standard"]
Watch: TypeAlias = Callable[[str, int], object]
"""Told which attack begins, and on how many examples."""

_FACTORS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0)
"""Factors tried on logits, in units that make their typical lead 1."""
_SLACK = 1e-6
_LOOKED_AT = 100
"""Examples on which the factor is chosen."""


@dataclass(frozen=True)
class Taken:
    """What one attack did: of ``tried`` examples it made the model err on ``fell``."""

    name: str
    tried: int
    fell: int
    seconds: float


@dataclass(frozen=True)
class Attack:
    """One attack of a battery. ``factor`` scales the logits that it sees.

    ``radius`` is that of its ball where it is not the audit's own.
    """

    name: str
    how: Perturbation
    factor: float = 1.0
    radius: float | None = None


@dataclass(frozen=True)
class Noise:
    """Random points of the ball's surface: what any attack has to beat."""

    eps: float
    norm: Norm
    points: int = 10

    def draw(self, x: Images, generator: torch.Generator) -> torch.Tensor | None:
        """One point for each example, before clipping."""
        return on_sphere(x, self.eps, self.norm, generator)

    def maximise(
        self, model: nn.Module, x: Images, y: Labels, draw: Draw, *, batch: int | None = None
    ) -> Images:
        """A point on which the model errs, where one was drawn; the last one elsewhere."""
        best, open_ = x.clone(), torch.ones_like(y, dtype=torch.bool)
        for _ in range(self.points):
            noise = draw()
            assert noise is not None
            at = inside(x + noise, x, self.eps, self.norm, box=True)
            best = torch.where(per_example(open_, x), at, best)
            open_ = open_ & _right(model, best, y, batch or max(len(x), 1))
        return best


def claimed(eps: float, norm: Norm, steps: int = 40) -> Pgd:
    """Plain PGD as papers evaluate with: FAT's 40 steps of ε/30."""
    return Pgd(eps=eps, step_size=eps / 30, steps=steps, norm=norm)


def battery(budget: Budget, eps: float, norm: Norm, classes: int) -> tuple[Attack, ...]:
    """What works on those that still stand after plain PGD, rescaled logits and queries."""
    steps, targets = (50, 3) if budget == "quick" else (100, 9)
    found = [Attack("APGD-CE", Apgd(eps=eps, norm=norm, steps=steps))]
    if classes >= 4:
        how = Apgd(eps=eps, norm=norm, steps=steps, loss="dlr-targeted", targets=targets)
        found.append(Attack("targeted APGD-DLR", how))
    elif classes == 3:
        found.append(Attack("APGD-DLR", Apgd(eps=eps, norm=norm, steps=steps, loss="dlr")))
    return tuple(found)


def queries(budget: Budget, eps: float, norm: Norm) -> Attack:
    """The black box."""
    return Attack("Square", Square(eps=eps, norm=norm, queries=500 if budget == "quick" else 5000))


class Battle:
    """The examples of an audit, and which of them stand after every attack so far."""

    def __init__(
        self,
        model: nn.Module,
        x: Images,
        y: Labels,
        ball: tuple[float, Norm],
        batch: int,
        seed: int,
        watch: Watch,
    ) -> None:
        self.eps, self.norm = ball
        self.model, self.x, self.y, self.batch, self.watch = model, x, y, batch, watch
        self._seed = seed
        self.taken: list[Taken] = []
        self.stands = self.right(x)

    def right(self, x: Images) -> Mask:
        """Which of ``x`` [b, ...], in place of the examples, the model classifies correctly."""
        return _right(self.model, x, self.y, self.batch)

    def run(self, attack: Attack, among: Mask | None = None) -> Mask:
        """Which of those that stand, or of ``among``, an attack fells; they stand no more."""
        fell = self.fells(attack, self.stands if among is None else among)
        self.stands = self.stands & ~fell
        return fell

    def fells(self, attack: Attack, among: Mask) -> Mask:
        """Which of ``among`` an attack fells, by points that lie in its ball and in [0, 1]."""
        began, index = time.monotonic(), among.nonzero()[:, 0]
        self.watch(attack.name, len(index))
        fell = torch.zeros_like(among)
        if len(index):
            found = attacked(self.model, attack, self.x, self.y, index, self.batch, self._seed)
            wrong = ~_right(self.model, found, self.y[index], self.batch)
            fell[index] = wrong & self._allowed(found, self.x[index], attack.radius or self.eps)
        seconds = time.monotonic() - began
        self.taken.append(Taken(attack.name, len(index), int(fell.sum()), seconds))
        return fell

    def _allowed(self, found: Images, x: Images, eps: float) -> Mask:
        """Which points are finite, within the ball around x, and in [0, 1], up to rounding."""
        offset = (found - x).flatten(1)
        size = offset.abs().amax(dim=1) if self.norm == "linf" else offset.norm(dim=1)
        flat = found.flatten(1)
        boxed = (flat.amin(dim=1) >= -_SLACK) & (flat.amax(dim=1) <= 1 + _SLACK)
        return (size <= eps * (1 + 1e-4) + _SLACK) & boxed & flat.isfinite().all(dim=1)


def attacked(
    model: nn.Module,
    attack: Attack,
    x: Images,
    y: Labels,
    index: Indices,
    batch: int,
    seed: int,
) -> Images:
    """The adversarial examples of ``x[index]``; noise is drawn for all before any is skipped."""
    source = torch.Generator().manual_seed(seed)
    seen = model if attack.factor == 1.0 else Scaled(model, attack.factor)

    def draw() -> Any:
        noise = attack.how.draw(x, source)
        return None if noise is None else noise[index.to(noise.device)]

    return attack.how.maximise(seen, x[index], y[index], draw, batch=batch)


def rescaled(model: nn.Module, x: Images, y: Labels, plain: Pgd, batch: int, seed: int) -> Attack:
    """Plain PGD on logits times the factor under which it fells the most of a few examples.

    The temperature that a masked model was trained at is unknown to whoever audits it, so factors
    are tried, in units of the median lead of the first logit over the second.
    """
    some = torch.arange(min(_LOOKED_AT, len(x)))
    with torch.no_grad():
        top = model(x[some]).double().topk(2, dim=1).values
    lead = float((top[:, 0] - top[:, 1]).abs().median().nan_to_num(nan=1.0)) or 1.0
    tries = [Attack("rescaled logits", plain, share / lead) for share in _FACTORS]
    fell = [
        int((~_right(model, attacked(model, a, x, y, some, batch, seed), y[some], batch)).sum())
        for a in tries
    ]
    return tries[max(range(len(tries)), key=lambda i: fell[i])]


def _right(model: nn.Module, x: Images, y: Labels, batch: int) -> Mask:
    with torch.no_grad():
        parts: Sequence[torch.Tensor] = [model(part) for part in torch.split(x, batch)]
        return answers(torch.cat(list(parts))) == y
