"""Encodings: what a policy sees, and what its actions mean.

An action a lies in [−1, 1]^k. Two scales give it a length. ``norm`` obeys a budget,
‖Δ‖₂ ≤ budget · ‖own honest update‖₂, which makes attacks comparable. ``zeta`` is the paper's scale:
a number a becomes a′ = a (ζmax − ζmin)/2 + (ζmax + ζmin)/2, with ζ the extremes over all
coordinates of the gradients of single learned examples. It has no budget, and under the mean it can
grow without limit.
"""

from dataclasses import dataclass, replace
from typing import Annotated, Literal, Protocol, TypeAlias

import torch
from pydantic import model_validator
from torch import Tensor

from fedrobust.attacks.learned.observation import (
    Layer,
    Observation,
    Sees,
    finished,
    layer_of,
    seen,
    size,
)
from fedrobust.attacks.learned.simulation import Harm
from fedrobust.attacks.moments import lengths
from fedrobust.clients.gradients import GradientEngine
from fedrobust.compute.parameters import Layout
from fedrobust.config.component import component
from fedrobust.config.kind import Kind
from fedrobust.config.scalars import Positive
from fedrobust.data import Split
from fedrobust.federation.threat import View
from fedrobust.typing import Floats, Updates, Vector

Scale: TypeAlias = Literal["norm", "zeta"]
Direction: TypeAlias = Literal["own", "parameters", "harm", "last-step", "benign"]


@dataclass(frozen=True)
class ActionContext:
    """The inputs of an action besides the view: the network, learned examples, and the harm.

    With a ``pool``, the examples of each round are drawn from it.
    """

    engine: GradientEngine
    sample: Split
    harm: Harm | None
    previous: Vector
    pool: Split | None = None

    def drawn(self, rng: torch.Generator) -> "ActionContext":
        """Return this context with the examples of one round."""
        if self.pool is None:
            return self
        order = torch.randperm(len(self.pool), generator=rng)
        sample = self.pool.take(order[: len(self.sample)])
        harm = None if self.harm is None else replace(self.harm, sample=sample)
        return replace(self, sample=sample, harm=harm)

    def expected_gradient(self, view: View) -> Vector:
        """Return the gradient [d] of a client with this sample, at its perturbed points."""
        y = self.sample.y
        x = self.engine.perturbed(view.parameters, self.sample.x, y, view.objective, view.round)
        return self.engine.gradients(view.parameters, x, y, 1)[0]


class Encoding(Protocol):
    """Turns what the attacker sees into numbers, and a policy's numbers into updates."""

    def seen(self, layout: Layout) -> int:
        """Return the length of an observation."""
        ...

    def actions(self, layout: Layout) -> int:
        """Return k, the length of an action."""
        ...

    def observe(self, sight: Observation) -> Floats:
        """Return what the policy sees, in numbers of a size near 1."""
        ...

    def rows(self, action: Tensor, view: View, means: ActionContext) -> Updates:
        """Return the updates [m, d] that an action [k] means."""
        ...


ENCODING = Kind(
    "encoding",
    has=("seen", "actions", "observe", "rows"),
    calls={
        "seen": "layout",
        "actions": "layout",
        "observe": "sight",
        "rows": "action, view, means",
    },
)
AnyEncoding: TypeAlias = Annotated[Encoding, ENCODING]


def extremes(view: View, engine: GradientEngine, sample: Split) -> tuple[Tensor, Tensor]:
    """Return ζmin and ζmax over all coordinates of the gradients of single examples at θ^{t−1}."""
    gradients = engine.gradients(view.parameters, sample.x, sample.y, len(sample))
    return gradients.amin(), gradients.amax()


def _rescaled(action: Tensor, low: Tensor, high: Tensor) -> Tensor:
    return action * (high - low) / 2 + (high + low) / 2


def _sizes(view: View) -> Tensor:
    """Return the norm of each colluder's honest update [m, 1]; it is exact at any scale."""
    return _lengths(view.own)


def _lengths(rows: Updates) -> Tensor:
    """Return ‖xᵢ‖₂ [n, 1], with its gradient where the rows have one: these rows are float64."""
    if rows.requires_grad:
        found: Tensor = rows.norm(dim=1, keepdim=True)
        return found
    return lengths(rows)


@component
class Full:
    """State: θ. Action: a gradient. For small networks (DRFL §3).

    ``norm``: Δ = budget · ‖own‖ · a / √d; ``zeta``: the gradient a′, Δ = −η a′. The policy sees
    θ − θ_start, in units of the root mean square of θ_start, and the rounds waited. With ``sees:
    parameters`` it sees θ itself and nothing else, as in the paper.
    """

    scale: Scale = "norm"
    budget: Positive = 10.0
    sees: Sees = "change"
    name: Literal["full"] = "full"

    def seen(self, layout: Layout) -> int:
        """Return the number of parameters, plus one for the rounds waited where it sees them."""
        return size(self.sees, slice(0, layout.size))

    def actions(self, layout: Layout) -> int:
        """Return d, the number of parameters."""
        return layout.size

    def observe(self, sight: Observation) -> Floats:
        """Return all parameters, or their change since the start and the rounds waited."""
        return seen(self.sees, slice(0, sight.layout.size), sight)

    def rows(self, action: Tensor, view: View, means: ActionContext) -> Updates:
        """Return the same direction for all, scaled to each client's own length."""
        if self.scale == "zeta":
            gradient = _rescaled(action, *extremes(view, means.engine, means.sample))
            return (-view.client.rate(view.round) * gradient).expand(view.rows, -1).clone()
        rows: Tensor = self.budget * _sizes(view) * action / len(action) ** 0.5
        return rows.to(view.own)


@component
class Compact:
    """State: one layer's parameters. Action: one factor of the own gradient (DRFL §3).

    ``norm``: Δ = budget · a · own; ``zeta``: Δ = a′ · own. The policy sees how the ``layer`` has
    changed since the start, and the rounds waited. With ``sees: parameters`` it sees the layer's
    parameters themselves and nothing else, as in the paper.

    Differences from the paper: the paper's state is the ``last-hidden`` layer, 409,728 numbers on
    its MNIST network; the default is the output layer.
    """

    scale: Scale = "norm"
    budget: Positive = 10.0
    sees: Sees = "change"
    layer: Layer = "output"
    name: Literal["compact"] = "compact"

    def seen(self, layout: Layout) -> int:
        """Return the number of the layer's parameters, plus one for the rounds waited."""
        return size(self.sees, layer_of(layout, self.layer))

    def actions(self, layout: Layout) -> int:
        """Return 1, the number of factors."""
        return 1

    def observe(self, sight: Observation) -> Floats:
        """Return the layer's parameters, or their change since the start and the rounds waited."""
        return seen(self.sees, layer_of(sight.layout, self.layer), sight)

    def rows(self, action: Tensor, view: View, means: ActionContext) -> Updates:
        """Return each client's own honest update, multiplied by one factor."""
        if self.scale == "zeta":
            return _rescaled(action, *extremes(view, means.engine, means.sample)) * view.own
        return self.budget * action * view.own


@component
class Basis:
    """Few numbers in, few directions out: small enough to learn within an attacker's budget.

    Δ = budget · ‖own‖ · v / max(1, ‖v‖₂) with v = Σ aⱼ bⱼ. The bⱼ are the unit vectors of
    ``directions``: the own honest update, the parameters, the direction in which the ``harm`` grows
    fastest, the last step of the model, and the update that a benign client is expected to send.
    For each tensor of the network, the policy sees how its norm has changed and how far it has
    turned since the start of the attack. It also sees the last step relative to θ.

    The harm and a benign client's update are computed on ``samples`` of the learned examples, which
    are drawn anew each round. With ``draws: fixed`` they are computed on the examples of the
    reward. Then a rule that selects most of the attacker's rows fits the network to these examples,
    and the reward holds on them alone.

    Reference: none. DRFL's own encodings are ``full`` and ``compact``.
    """

    directions: tuple[Direction, ...] = ("own", "parameters", "harm")
    budget: Positive = 10.0
    draws: Literal["fresh", "fixed"] = "fresh"
    name: Literal["basis"] = "basis"

    @model_validator(mode="after")
    def _some(self) -> "Basis":
        if not self.directions:
            raise ValueError("at least one direction is needed")
        if len(set(self.directions)) < len(self.directions):
            raise ValueError(f"a direction is given twice in {', '.join(self.directions)}")
        return self

    def seen(self, layout: Layout) -> int:
        """Return two for each tensor, two for the last step, and one for the rounds waited."""
        return 2 * len(layout.slices) + 3

    def actions(self, layout: Layout) -> int:
        """Return the number of directions."""
        return len(self.directions)

    def observe(self, sight: Observation) -> Floats:
        """Return norms, angles, the last step and the rounds waited."""
        numbers = []
        for part in sight.layout.slices.values():
            now, start = sight.parameters[part], sight.start[part]
            unit = start.norm().clamp(min=1e-8)
            numbers += [now.norm() / unit - 1, (now - start).norm() / unit]
        step = sight.parameters - sight.previous
        size = sight.parameters.norm().clamp(min=1e-8)
        numbers += [100 * step.norm() / size, _unit(step) @ _unit(sight.parameters)]
        return finished([torch.stack(numbers)], sight)

    def rows(self, action: Tensor, view: View, means: ActionContext) -> Updates:
        """Return the same mix of directions for all, scaled to each client's own length."""
        total = torch.zeros_like(view.own)
        for share, direction in zip(action, self.directions, strict=True):
            total += share * self._direction(direction, view, means)
        length: Tensor = total.norm(dim=1, keepdim=True).clamp(min=1)
        rows: Updates = self.budget * _sizes(view) * total / length
        return rows.to(view.own)

    def _direction(self, name: Direction, view: View, means: ActionContext) -> Tensor:
        if name == "own":
            return (view.own / _sizes(view).clamp(min=1e-12)).to(view.own)
        if name == "parameters":
            return _unit(view.parameters)
        if name == "harm":
            assert means.harm is not None
            return _unit(means.harm.gradient(view.parameters))
        if name == "last-step":
            return _unit(view.parameters - means.previous)
        return -_unit(means.expected_gradient(view))


def _unit(vector: Vector) -> Vector:
    size = _lengths(vector[None])[0, 0]
    return (vector / size).to(vector) if size > 0 else torch.zeros_like(vector)


ENCODINGS = ENCODING.of(Full, Compact, Basis)
