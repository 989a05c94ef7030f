"""Losses, gradients and shifts of a network at many parameters θ; compiled where possible."""

import math
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import count
from threading import Lock
from typing import Protocol

import torch
from torch import Tensor, nn

from fedrobust.clients.compiled_mlp import CompiledMlp, serves
from fedrobust.compute.execution import warn_emulated
from fedrobust.compute.global_draws import draws
from fedrobust.compute.network import (
    cross_entropy,
    evaluating,
    logits,
    parameter_gradient,
    right,
)
from fedrobust.compute.parameters import write
from fedrobust.compute.precision import Precision, reduced
from fedrobust.compute.units import Result, Unit, computed, slices
from fedrobust.objectives import Objective, WassersteinDRO
from fedrobust.perturb.wasserstein import Ascent
from fedrobust.typing import Images, Labels, Updates, Vector


class GradientEngine(Protocol):
    """The same calls for any network: θ [d] is its flat vector, x [b, ...], y [b]."""

    def moved(self, theta: Vector, x: Images, y: Labels, gamma: float, ascent: Ascent) -> Images:
        """Return T_γ(θ; x) as ``ascent`` finds it [b, ...]."""
        ...

    def perturbed(
        self, theta: Vector, x: Images, y: Labels, objective: Objective, round: int
    ) -> Images:
        """Return the points [b, ...] at which a client with this batch computes its gradient."""
        ...

    def gradients(self, theta: Vector, x: Images, y: Labels, clients: int) -> Updates:
        """Return ∇_θ of each client's mean loss [clients, d], over equal shares of the examples."""
        ...

    def losses(self, theta: Vector, x: Images, y: Labels) -> Tensor:
        """Return the cross-entropy of each example [b]."""
        ...

    def mistakes(self, theta: Vector, x: Images, y: Labels) -> Tensor:
        """Return which examples the network classifies wrongly [b]; where it gives NaN, all."""
        ...


BATCH = {"cpu": 64, "cuda": 1024}
"""The number of examples in a unit of work; on a CPU as many as its cache holds."""


@dataclass(frozen=True)
class Autograd:
    """PyTorch's autograd, for any network; ``model`` is a workspace that is overwritten.

    ``batch`` is the number of examples in a unit of work. ``bfloat16`` runs linear layers and
    convolutions in this precision, and the rest in the precision of the parameters: this is faster
    where the processor has instructions for it.
    """

    model: nn.Module
    batch: int
    precision: Precision = "float32"

    def moved(self, theta: Vector, x: Images, y: Labels, gamma: float, ascent: Ascent) -> Images:
        """Return T_γ(θ; x)."""
        if math.isinf(gamma):
            return x.clone()
        units = slices(len(x), self.batch)
        return self._joined(theta, x, units, lambda model, i: ascent.move(model, x[i], y[i], gamma))

    def perturbed(
        self, theta: Vector, x: Images, y: Labels, objective: Objective, round: int
    ) -> Images:
        """Return the points of the objective's inner maximisation; it always draws the same."""
        k = objective.perturbed(len(x), round)
        if k == 0:
            return x
        draws, generator, lock = list[Tensor | None](), torch.Generator().manual_seed(round), Lock()

        def start(restart: int) -> Tensor | None:
            with lock:  # all units share the draws for all examples, in the order of the restarts
                while len(draws) <= restart:
                    draws.append(objective.draw(x[:k], generator))
                return draws[restart]

        def work(model: nn.Module, i: slice) -> Images:
            restarts = count()

            def draw() -> Tensor | None:
                drawn = start(next(restarts))
                return None if drawn is None else drawn[i]

            return objective.maximize(model, x[i], y[i], draw)

        return torch.cat([self._joined(theta, x, slices(k, self.batch), work), x[k:]])

    def gradients(self, theta: Vector, x: Images, y: Labels, clients: int) -> Updates:
        """Return each client's mean gradient."""
        parts = list(zip(x.tensor_split(clients), y.tensor_split(clients), strict=True))
        return torch.stack(
            self._computed(theta, x, parts, lambda model, part: parameter_gradient(model, *part))
        )

    def losses(self, theta: Vector, x: Images, y: Labels) -> Tensor:
        """Return the losses without a gradient."""

        def work(model: nn.Module, i: slice) -> Tensor:
            with torch.no_grad():
                return cross_entropy(logits(model, x[i]), y[i])

        return self._joined(theta, x, slices(len(x), self.batch), work)

    def mistakes(self, theta: Vector, x: Images, y: Labels) -> Tensor:
        """Return which examples are classified wrongly."""

        def work(model: nn.Module, i: slice) -> Tensor:
            return ~right(model, x[i], y[i], self.batch)

        return self._joined(theta, x, slices(len(x), self.batch), work)

    def _joined(
        self,
        theta: Vector,
        x: Images,
        units: Sequence[slice],
        work: Callable[[nn.Module, slice], Tensor],
    ) -> Tensor:
        return torch.cat(self._computed(theta, x, units, work))

    def _computed(
        self,
        theta: Vector,
        x: Images,
        units: Sequence[Unit],
        work: Callable[[nn.Module, Unit], Result],
    ) -> list[Result]:
        device = next(self.model.parameters()).device.type

        def working(model: nn.Module, unit: Unit) -> Result:
            with reduced(device, self.precision):
                return work(model, unit)

        write(self.model, theta)
        with evaluating(self.model):
            found = draws(self.model, x)
            return computed(self.model, units, working, draws=found, writes=True)


@dataclass(frozen=True)
class Compiled:
    """Compiled loops where the network is small enough and they support the step rule."""

    network: CompiledMlp
    general: Autograd

    def moved(self, theta: Vector, x: Images, y: Labels, gamma: float, ascent: Ascent) -> Images:
        """Return T_γ(θ; x)."""
        who = self.network if serves(ascent) else self.general
        return who.moved(theta, x, y, gamma, ascent).to(x)

    def perturbed(
        self, theta: Vector, x: Images, y: Labels, objective: Objective, round: int
    ) -> Images:
        """Return the objective's points, by the compiled ascent where it is the objective's."""
        if type(objective) is WassersteinDRO:  # a subclass may move them in another way
            return self.moved(theta, x, y, objective.price, objective.ascent)
        return self.general.perturbed(theta, x, y, objective, round)

    def gradients(self, theta: Vector, x: Images, y: Labels, clients: int) -> Updates:
        """Return the gradients of all clients, in one call."""
        return self.network.gradients(theta, x, y, clients).to(theta)

    def losses(self, theta: Vector, x: Images, y: Labels) -> Tensor:
        """Return the losses of all examples, in one call."""
        return self.network.losses(theta, x, y).to(theta)

    def mistakes(self, theta: Vector, x: Images, y: Labels) -> Tensor:
        """Return which examples are classified wrongly, by the network itself."""
        return self.general.mistakes(theta, x, y)


def gradient_engine(model: nn.Module, precision: Precision = "float32") -> GradientEngine:
    """Return the faster engine for ``model``; the engine keeps a copy of the model.

    Compiled loops are float64, whatever ``precision`` says. Other networks use ``precision``, with
    a ``PrecisionWarning`` where the processor has no instructions for it.
    """
    device = next(model.parameters()).device.type
    general = Autograd(deepcopy(model), BATCH.get(device, 1024), precision)
    network = CompiledMlp.of(model) if device == "cpu" else None
    if network is not None:
        return Compiled(network, general)
    warn_emulated("attack.precision", precision, device)
    return general
