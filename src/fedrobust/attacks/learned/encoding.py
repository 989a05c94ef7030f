"""How an attack speaks to a policy: what the policy sees, and what its actions mean.

An action a lies in [−1, 1]^k. Two scales give it a length. ``norm`` obeys a budget, ‖Δ‖₂ ≤ budget ·
‖own honest update‖₂, which makes attacks comparable. ``zeta`` is the paper's: a number a becomes
a′ = a (ζmax − ζmin)/2 + (ζmax + ζmin)/2, with ζ the extremes over all coordinates of the gradients
of single learned examples; it knows no budget, and under the mean it can run away.
"""

from dataclasses import dataclass, replace
from typing import Annotated, Literal, Protocol, TypeAlias

import numpy as np
import torch
from pydantic import model_validator
from torch import Tensor

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
class Observation:
    """What an observation is made of: parameters [d] now, before, and at the start of the attack.

    ``waited`` is how many rounds have passed since the attacker last took part, 0 for none; what
    was before is then not known, and counts as what is now.
    """

    layout: Layout
    parameters: Vector
    previous: Vector
    start: Vector
    waited: int = 0


@dataclass(frozen=True)
class ActionContext:
    """What an action may draw on beside the view: the network, learned examples, and the harm.

    With a ``pool``, the examples of a round are drawn from it.
    """

    engine: GradientEngine
    sample: Split
    harm: Harm | None
    previous: Vector
    pool: Split | None = None

    def drawn(self, rng: torch.Generator) -> "ActionContext":
        """These means with the examples of one round."""
        if self.pool is None:
            return self
        order = torch.randperm(len(self.pool), generator=rng)
        sample = self.pool.take(order[: len(self.sample)])
        harm = None if self.harm is None else replace(self.harm, sample=sample)
        return replace(self, sample=sample, harm=harm)

    def expected_gradient(self, view: View) -> Vector:
        """The gradient [d] of a client that holds the sample, at the points that it moves to."""
        y = self.sample.y
        x = self.engine.perturbed(view.parameters, self.sample.x, y, view.objective, view.round)
        return self.engine.gradients(view.parameters, x, y, 1)[0]


class Encoding(Protocol):
    """From what the attacker sees to numbers, and from a policy's numbers to updates."""

    def seen(self, layout: Layout) -> int:
        """The length of an observation."""
        ...

    def actions(self, layout: Layout) -> int:
        """k, the length of an action."""
        ...

    def observe(self, sight: Observation) -> Floats:
        """What the policy sees, of a size near 1."""
        ...

    def rows(self, action: Tensor, view: View, means: ActionContext) -> Updates:
        """The updates [m, d] that an action [k] means."""
        ...


ENCODING = Kind("encoding", has=("seen", "actions", "observe", "rows"))
AnyEncoding: TypeAlias = Annotated[Encoding, ENCODING]


def _relative(now: Vector, start: Vector) -> Tensor:
    """θ − θ_start in units of the root mean square of θ_start."""
    unit = start.square().mean().sqrt().clamp(min=1e-8)
    return (now - start) / unit


def _finished(values: list[Tensor], sight: Observation) -> Floats:
    numbers = torch.cat(
        [*(value.detach().cpu() for value in values), torch.tensor([float(np.log1p(sight.waited))])]
    )
    return numbers.clamp(-100, 100).nan_to_num().float().numpy()


def extremes(view: View, engine: GradientEngine, sample: Split) -> tuple[Tensor, Tensor]:
    """ζmin and ζmax over the coordinates of the gradients of single examples at θ^{t−1}."""
    gradients = engine.gradients(view.parameters, sample.x, sample.y, len(sample))
    return gradients.amin(), gradients.amax()


def _rescaled(action: Tensor, low: Tensor, high: Tensor) -> Tensor:
    return action * (high - low) / 2 + (high + low) / 2


def _sizes(view: View) -> Tensor:
    """The norm of each colluder's honest update [m, 1]; exact at any scale."""
    return _lengths(view.own)


def _lengths(rows: Updates) -> Tensor:
    """‖xᵢ‖₂ [n, 1], with its gradient where the rows have one: these are float64 anyway."""
    if rows.requires_grad:
        found: Tensor = rows.norm(dim=1, keepdim=True)
        return found
    return lengths(rows)


@component
class Full:
    """State θ, action a gradient: for small networks (DRFL §3).

    ``norm``: Δ = budget · ‖own‖ · a / √d; ``zeta``: the gradient a′, Δ = −η a′. The policy sees
    θ − θ_start, in units of the root mean square of θ_start.
    """

    scale: Scale = "norm"
    budget: Positive = 10.0
    name: Literal["full"] = "full"

    def seen(self, layout: Layout) -> int:
        """Every parameter, and the rounds waited."""
        return layout.size + 1

    def actions(self, layout: Layout) -> int:
        """d."""
        return layout.size

    def observe(self, sight: Observation) -> Floats:
        """All parameters."""
        return _finished([_relative(sight.parameters, sight.start)], sight)

    def rows(self, action: Tensor, view: View, means: ActionContext) -> Updates:
        """The same vector for all, each at its own length."""
        if self.scale == "zeta":
            gradient = _rescaled(action, *extremes(view, means.engine, means.sample))
            return (-view.client.optimizer.lr * gradient).expand(view.rows, -1).clone()
        rows: Tensor = self.budget * _sizes(view) * action / len(action) ** 0.5
        return rows.to(view.own)


@component
class Compact:
    """State the last layer's parameters, action one factor of the own gradient (DRFL §3).

    ``norm``: Δ = budget · a · own; ``zeta``: Δ = a′ · own.

    Differences from the paper: it takes "the last hidden layer", 409,728 numbers on its MNIST
    network, as the state; here it is the output layer.
    """

    scale: Scale = "norm"
    budget: Positive = 10.0
    name: Literal["compact"] = "compact"

    def seen(self, layout: Layout) -> int:
        """The output layer's parameters, and the rounds waited."""
        part = _output_layer(layout)
        return int(part.stop - part.start) + 1

    def actions(self, layout: Layout) -> int:
        """One."""
        return 1

    def observe(self, sight: Observation) -> Floats:
        """The output layer."""
        part = _output_layer(sight.layout)
        return _finished([_relative(sight.parameters[part], sight.start[part])], sight)

    def rows(self, action: Tensor, view: View, means: ActionContext) -> Updates:
        """Each its own honest update, by one factor."""
        if self.scale == "zeta":
            return _rescaled(action, *extremes(view, means.engine, means.sample)) * view.own
        return self.budget * action * view.own


@component
class Basis:
    """A few numbers in, a few directions out: what a policy can learn within an attacker's budget.

    Δ = budget · ‖own‖ · v / max(1, ‖v‖₂) with v = Σ aⱼ bⱼ, bⱼ the unit vectors of ``directions``:
    the own honest update, the parameters, the way in which the ``harm`` grows fastest, the last
    step of the model, and the update that a benign client is expected to send. The policy sees, of
    each tensor of the network, how its norm has changed since the start of the attack and how far
    it has turned, and the last step against θ.

    The harm and a benign client's update are those on ``samples`` of the learned examples, drawn
    anew each round, or with ``draws: fixed`` on those of the reward. A rule that selects most of
    the attacker's rows then fits the network to these examples: the reward is had on them alone.

    Reference: none; DRFL's own encodings are ``full`` and ``compact``.
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
            raise ValueError(f"a direction stands twice in {', '.join(self.directions)}")
        return self

    def seen(self, layout: Layout) -> int:
        """Two numbers for each tensor, two for the last step, and the rounds waited."""
        return 2 * len(layout.slices) + 3

    def actions(self, layout: Layout) -> int:
        """One for each direction."""
        return len(self.directions)

    def observe(self, sight: Observation) -> Floats:
        """Norms, angles and the last step."""
        numbers = []
        for part in sight.layout.slices.values():
            now, start = sight.parameters[part], sight.start[part]
            unit = start.norm().clamp(min=1e-8)
            numbers += [now.norm() / unit - 1, (now - start).norm() / unit]
        step = sight.parameters - sight.previous
        size = sight.parameters.norm().clamp(min=1e-8)
        numbers += [100 * step.norm() / size, _unit(step) @ _unit(sight.parameters)]
        return _finished([torch.stack(numbers)], sight)

    def rows(self, action: Tensor, view: View, means: ActionContext) -> Updates:
        """Each at its own length, along the same mix of directions."""
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


def _output_layer(layout: Layout) -> slice:
    """The last layer's weight and bias, which lie side by side at the end."""
    names = list(layout.slices)
    layer = names[-1].rpartition(".")[0]
    first = next(name for name in names if name.rpartition(".")[0] == layer)
    return slice(layout.slices[first].start, layout.size)


ENCODINGS = ENCODING.of(Full, Compact, Basis)
