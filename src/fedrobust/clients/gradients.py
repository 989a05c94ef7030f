"""What is asked of a network at many a θ: losses, gradients, shifts. Compiled where it can be."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

import torch
from torch import Tensor, nn

from fedrobust.clients.compiled_mlp import CompiledMlp, serves
from fedrobust.compute.execution import warn_emulated
from fedrobust.compute.network import cross_entropy, evaluating, logits, parameter_gradient
from fedrobust.compute.parameters import write
from fedrobust.objectives import Objective, WassersteinDRO
from fedrobust.perturb.wasserstein import Ascent
from fedrobust.typing import Images, Labels, Updates, Vector


class GradientEngine(Protocol):
    """The same questions to any network: θ [d] is its flat vector, x [b, ...], y [b]."""

    def moved(self, theta: Vector, x: Images, y: Labels, gamma: float, ascent: Ascent) -> Images:
        """T_γ(θ; x) as ``ascent`` finds it [b, ...]."""
        ...

    def perturbed(
        self, theta: Vector, x: Images, y: Labels, objective: Objective, round: int
    ) -> Images:
        """The points [b, ...] at which a client with this batch takes its gradient."""
        ...

    def gradients(self, theta: Vector, x: Images, y: Labels, clients: int) -> Updates:
        """∇_θ of the mean loss over each client's equal share of the examples [clients, d]."""
        ...

    def losses(self, theta: Vector, x: Images, y: Labels) -> Tensor:
        """The cross-entropy of each example [b]."""
        ...


Precision: TypeAlias = Literal["float32", "bfloat16"]
BATCH = {"cpu": 256, "cuda": 1024}
"""Examples at once: on a CPU, about what its cache holds of a small convolutional network."""


@dataclass(frozen=True)
class Autograd:
    """By PyTorch, for any network; ``model`` is a workspace, ``batch`` the examples at once.

    ``bfloat16`` runs linear layers and convolutions in that precision, the rest in that of the
    parameters: faster where the processor has instructions for it.
    """

    model: nn.Module
    batch: int
    precision: Precision = "float32"

    @contextmanager
    def _working(self) -> Iterator[None]:
        device = next(self.model.parameters()).device.type
        low = self.precision == "bfloat16"
        with evaluating(self.model), torch.autocast(device, torch.bfloat16, enabled=low):
            yield

    def moved(self, theta: Vector, x: Images, y: Labels, gamma: float, ascent: Ascent) -> Images:
        """T_γ(θ; x)."""
        if math.isinf(gamma):
            return x.clone()
        write(self.model, theta)
        with self._working():
            return ascent.move(self.model, x, y, gamma, self.batch)

    def perturbed(
        self, theta: Vector, x: Images, y: Labels, objective: Objective, round: int
    ) -> Images:
        """The objective's own inner maximisation; what it draws is the same each time."""
        k = objective.perturbed(len(x), round)
        if k == 0:
            return x
        write(self.model, theta)
        draw = objective.draw(x[:k], torch.Generator().manual_seed(round))
        with self._working():
            moved = objective.maximize(self.model, x[:k], y[:k], lambda: draw, batch=self.batch)
        return torch.cat([moved, x[k:]])

    def gradients(self, theta: Vector, x: Images, y: Labels, clients: int) -> Updates:
        """One client after the other."""
        write(self.model, theta)
        parts = zip(x.tensor_split(clients), y.tensor_split(clients), strict=True)
        with self._working():
            return torch.stack([parameter_gradient(self.model, *part) for part in parts])

    def losses(self, theta: Vector, x: Images, y: Labels) -> Tensor:
        """By one forward pass."""
        write(self.model, theta)
        with self._working(), torch.no_grad():
            return cross_entropy(logits(self.model, x), y)


@dataclass(frozen=True)
class Compiled:
    """By compiled loops where the network is small enough, and the step rule among theirs."""

    network: CompiledMlp
    general: Autograd

    def moved(self, theta: Vector, x: Images, y: Labels, gamma: float, ascent: Ascent) -> Images:
        """T_γ(θ; x)."""
        who = self.network if serves(ascent) else self.general
        return who.moved(theta, x, y, gamma, ascent).to(x)

    def perturbed(
        self, theta: Vector, x: Images, y: Labels, objective: Objective, round: int
    ) -> Images:
        """The compiled ascent where it is the objective's."""
        if isinstance(objective, WassersteinDRO):
            return self.moved(theta, x, y, objective.price, objective.ascent)
        return self.general.perturbed(theta, x, y, objective, round)

    def gradients(self, theta: Vector, x: Images, y: Labels, clients: int) -> Updates:
        """All clients in one call."""
        return self.network.gradients(theta, x, y, clients).to(theta)

    def losses(self, theta: Vector, x: Images, y: Labels) -> Tensor:
        """All examples in one call."""
        return self.network.losses(theta, x, y).to(theta)


def gradient_engine(model: nn.Module, precision: Precision = "float32") -> GradientEngine:
    """The faster engine for ``model``, of which a copy is kept.

    Compiled loops are float64, whatever ``precision`` says of other networks: these warn
    (``PrecisionWarning``) where it has no instructions.
    """
    device = next(model.parameters()).device.type
    copy = deepcopy(model)
    copy.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # suits convolutions
    general = Autograd(copy, BATCH.get(device, 1024), precision)
    network = CompiledMlp.of(model) if device == "cpu" else None
    if network is not None:
        return Compiled(network, general)
    warn_emulated("attack.precision", precision, device)
    return general
