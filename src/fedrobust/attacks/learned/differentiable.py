"""Simulated rounds with a gradient of an attack's return by each number of its actions.

A round is the federation's own, :func:`~fedrobust.federation.round.run_round`, in float64. What a
client computes, and the harm, are PyTorch operations whose graph is kept, including inner ascents.
A rule keeps no graph; it is replaced by a linear function that agrees with it near the given rows.
"""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from fedrobust.aggregators import Aggregator
from fedrobust.aggregators.aggregator import Aggregation, Context, apply
from fedrobust.attacks.learned.environment import Task
from fedrobust.attacks.learned.simulation import Harm
from fedrobust.clients.gradients import Compiled
from fedrobust.compute.network import answers, cross_entropy
from fedrobust.compute.parameters import Layout
from fedrobust.data import Split
from fedrobust.federation.one_step import OneStep
from fedrobust.federation.state import FederationState
from fedrobust.objectives import ERM, Objective, WassersteinDRO, own_loss
from fedrobust.perturb.wasserstein import Ascent
from fedrobust.typing import Images, Labels, Updates, Vector

_NUDGES = (1e-7, 1e-9, 1e-10)
"""How far a row is moved to measure its share, relative to the greatest entry of the rows.

Where two values are so close that a move swaps them, a smaller move is tried.
"""
_AGREES = 1e-3
"""The largest relative error allowed between a rule's derivative and the one that shares give."""


@dataclass(frozen=True)
class Differentiable:
    """A :class:`~fedrobust.clients.gradients.GradientEngine` that keeps the graph; any network."""

    model: nn.Module

    def moved(self, theta: Vector, x: Images, y: Labels, gamma: float, ascent: Ascent) -> Images:
        """Return T_γ(θ; x) as ``ascent`` finds it, with its derivative by θ.

        Raises: ``ValueError`` for an ascent that searches its step length.
        """
        if ascent.rule == "backtracking" or ascent.tolerance:
            raise ValueError("gradients need an ascent with the rule constant or decaying")
        at = start = x.to(theta)
        if gamma == float("inf"):
            return at
        # Not torch.autograd.grad: each step would walk the whole graph back to the first round.
        uphill = grad(lambda at: self.losses(theta, at, y).sum())
        for step in range(1, ascent.steps + 1):
            length = ascent.size / (2 * gamma) / (step**0.5 if ascent.rule == "decaying" else 1)
            at = at + length * (uphill(at) - 2 * gamma * (at - start))
            if ascent.box:
                at = at.clamp(0, 1)
        return at

    def perturbed(
        self, theta: Vector, x: Images, y: Labels, objective: Objective, round: int
    ) -> Images:
        """Return the points of ERM and DRO. Raises: ``ValueError`` for another objective."""
        if own_loss(objective):
            raise ValueError("gradients through the rounds need the mean cross-entropy as the loss")
        if type(objective) is WassersteinDRO:
            return self.moved(theta, x, y, objective.price, objective.ascent)
        if type(objective) is not ERM:
            raise ValueError("gradients through the rounds need the objective ERM or DRO")
        return x

    def gradients(self, theta: Vector, x: Images, y: Labels, clients: int) -> Updates:
        """Return each client's mean gradient [clients, d], with its derivative by θ."""

        def loss(theta: Vector, x: Images, y: Labels) -> Tensor:
            return self.losses(theta, x, y).mean()

        shares = (part.reshape(clients, -1, *part.shape[1:]) for part in (x.to(theta), y))
        rows: Updates = vmap(partial(grad(loss), theta))(*shares)
        return rows

    def losses(self, theta: Vector, x: Images, y: Labels) -> Tensor:
        """Return the cross-entropy of each example [b]."""
        return cross_entropy(self._logits(theta, x), y)

    def mistakes(self, theta: Vector, x: Images, y: Labels) -> Tensor:
        """Return which examples are classified wrongly [b]; this has no gradient."""
        return answers(self._logits(theta, x).detach()) != y

    def _logits(self, theta: Vector, x: Images) -> Tensor:
        layout, shapes = Layout.of(self.model), dict(self.model.named_parameters())
        pieces = {name: theta[at].view_as(shapes[name]) for name, at in layout.slices.items()}
        found: Tensor = functional_call(self.model, pieces, (x.to(theta),))
        return found


@dataclass(frozen=True)
class Linearised:
    """``rule`` with a derivative: of each coordinate of its vector by this coordinate of the rows.

    In coordinate j the rule's vector is written as Σᵢ wᵢⱼ xᵢⱼ with constant wᵢⱼ. This is correct
    almost everywhere for rules that select or average values: mean, median, trimmed means, Krum,
    Bulyan. w is measured by moving each row a little. At rows where the rule's derivative along a
    random direction does not agree with w, :class:`NotLinearError` is raised.
    """

    rule: Aggregator

    def __call__(self, updates: Updates, context: Context = Context()) -> Vector:
        """Return the vector alone."""
        return self.aggregate(updates, context).vector

    def aggregate(self, updates: Updates, context: Context) -> Aggregation:
        """Return the rule's answer, with a derivative."""

        def answer(rows: Updates) -> Vector:
            return apply(self.rule, rows, context).vector

        return Aggregation(_Rule.apply(updates, answer))  # type: ignore[no-untyped-call]

    def check(self, n: int) -> None:
        """Check the number of rows as the rule does."""
        self.rule.check(n)

    def tolerating(self, dropped: int) -> "Linearised":
        """Return this wrapper around the rule for fewer rows."""
        return replace(self, rule=self.rule.tolerating(dropped))


class NotLinearError(ValueError):
    """The rule mixes coordinates, or the given rows are equal: it has no gradient there."""


class _Rule(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Updates, answer: Callable[[Updates], Vector]) -> Vector:
        ctx.rows, ctx.answer = rows.detach(), answer
        return answer(ctx.rows)

    @staticmethod
    def backward(ctx: Any, *slopes: Vector) -> tuple[Updates, None]:
        return shares(ctx.answer, ctx.rows) * slopes[0], None


def shares(answer: Callable[[Updates], Vector], rows: Updates) -> Updates:
    """Return wᵢⱼ [n, d], the derivative of ``answer`` in coordinate j by row i; float64 ``rows``.

    Raises: ``NotLinearError`` where ``answer`` depends on anything else.
    """
    at, scale = answer(rows), float(rows.abs().max().clamp(min=1e-30))
    draw = torch.Generator().manual_seed(0)
    way = torch.randn(rows.shape, generator=draw, dtype=rows.dtype).to(rows)
    for nudge in (scale * part for part in _NUDGES):
        found = []
        for i in range(len(rows)):
            moved = rows.clone()
            moved[i] += nudge
            found.append((answer(moved) - at) / nudge)
        w = torch.stack(found)
        seen, told = (answer(rows + nudge * way) - at) / nudge, (w * way).sum(dim=0)
        if (seen - told).norm() <= _AGREES * (1 + told.norm()):
            return w
    raise NotLinearError(
        "the rule mixes the coordinates of a row, or rows are equal: it has no gradient here"
    )


def differentiable(task: Task) -> Task:
    """Return ``task`` in float64, with a gradient by its actions.

    Raises: ``ValueError`` where its clients or its harm are not differentiable operations.
    """
    one_step = isinstance(task.backend, OneStep) and isinstance(task.backend.engine, Compiled)
    if not one_step or not isinstance(task.harm, Harm):
        raise ValueError(
            "gradients through the rounds need clients that take one plain SGD step on a small "
            "network with ELU: use training.algorithm: cross-entropy"
        )
    if task.harm.kind == "error":
        raise ValueError("the error has no gradient: use training.algorithm: cross-entropy")
    tools = Differentiable(deepcopy(task.federation.local.model).double())
    start, means = task.start, task.means
    harm = replace(task.harm, engine=tools, sample=_double(task.harm.sample))
    return replace(
        task,
        federation=replace(
            task.federation, aggregator=Linearised(task.federation.aggregator), graph=True
        ),
        start=FederationState(
            start.parameters.double(),
            round=start.round,
            history=tuple(vector.double() for vector in start.history),
            server=tuple(slot.double() for slot in start.server),
        ),
        means=replace(
            means,
            engine=tools,
            sample=_double(means.sample),
            harm=harm,
            previous=means.previous.double(),
            pool=None if means.pool is None else _double(means.pool),
        ),
        harm=harm,
        backend=OneStep(tools, replacement=True),
        journal=None,  # recalled answers have no gradients
    )


def _double(sample: Split) -> Split:
    return Split(sample.x.double(), sample.y)
