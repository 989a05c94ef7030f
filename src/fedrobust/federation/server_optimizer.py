"""How the server turns the aggregated updates of many rounds into its steps."""

from collections.abc import Callable
from typing import Annotated, Literal, Protocol, TypeAlias

import torch

from fedrobust.config.component import component
from fedrobust.config.kind import Kind
from fedrobust.config.scalars import Decay, Positive
from fedrobust.typing import Vector

Slots: TypeAlias = tuple[Vector, ...]
"""What a server optimiser keeps from round to round; empty before the first step."""


class ServerOptimizer(Protocol):
    """Turns the aggregated update of a round into a step, before the server's learning rate."""

    def step(self, slots: Slots, update: Vector) -> tuple[Vector, Slots]:
        """Return the step [d] and the new slots. Nothing is written to."""
        ...


SERVER_OPTIMIZER = Kind("server optimiser", has=("step",), calls={"step": "slots, update"})
AnyServerOptimizer: TypeAlias = Annotated[ServerOptimizer, SERVER_OPTIMIZER]


@component
class Plain:
    """The aggregated update Δ itself: θ ← θ + lr · Δ."""

    name: Literal["plain"] = "plain"

    def step(self, slots: Slots, update: Vector) -> tuple[Vector, Slots]:
        """Return the update."""
        return update, ()


@component
class FedAvgM:
    """FedAvg with server momentum: v ← βv + Δ, θ ← θ + lr · v.

    Reference: Hsu, Qi, Brown, "Measuring the effects of non-identical data distribution for
    federated visual classification", 2019.
    """

    momentum: Decay = 0.9
    name: Literal["fed-avg-m"] = "fed-avg-m"

    def step(self, slots: Slots, update: Vector) -> tuple[Vector, Slots]:
        """Return v."""
        velocity = update if not slots else self.momentum * slots[0] + update
        return velocity, (velocity,)


@component
class FedAdam:
    """FedAdam: m ← β₁m + (1 − β₁)Δ, v ← β₂v + (1 − β₂)Δ², θ ← θ + lr · m / (√v + τ).

    m begins at 0 and v at τ², without a correction of either.

    Reference: Reddi et al., "Adaptive federated optimization", ICLR 2021, algorithm 2.
    """

    betas: tuple[Decay, Decay] = (0.9, 0.99)
    tau: Positive = 1e-3
    name: Literal["fed-adam"] = "fed-adam"

    def step(self, slots: Slots, update: Vector) -> tuple[Vector, Slots]:
        """Return m / (√v + τ)."""
        keep = self.betas[1]
        return _adapted(
            slots, update, self.betas[0], self.tau, lambda v, sq: keep * v + (1 - keep) * sq
        )


@component
class FedYogi:
    """FedYogi: FedAdam with v ← v − (1 − β₂) Δ² sign(v − Δ²).

    Reference: Reddi et al., "Adaptive federated optimization", ICLR 2021, algorithm 2.
    """

    betas: tuple[Decay, Decay] = (0.9, 0.99)
    tau: Positive = 1e-3
    name: Literal["fed-yogi"] = "fed-yogi"

    def step(self, slots: Slots, update: Vector) -> tuple[Vector, Slots]:
        """Return m / (√v + τ)."""
        share = 1 - self.betas[1]
        return _adapted(
            slots, update, self.betas[0], self.tau, lambda v, sq: v - share * sq * (v - sq).sign()
        )


@component
class FedAdagrad:
    """FedAdagrad: m ← β₁m + (1 − β₁)Δ, v ← v + Δ², θ ← θ + lr · m / (√v + τ).

    Reference: Reddi et al., "Adaptive federated optimization", ICLR 2021, algorithm 2.
    """

    beta: Decay = 0.0
    tau: Positive = 1e-3
    name: Literal["fed-adagrad"] = "fed-adagrad"

    def step(self, slots: Slots, update: Vector) -> tuple[Vector, Slots]:
        """Return m / (√v + τ)."""
        return _adapted(slots, update, self.beta, self.tau, lambda v, sq: v + sq)


def _adapted(
    slots: Slots,
    update: Vector,
    beta: float,
    tau: float,
    grown: Callable[[Vector, Vector], Vector],
) -> tuple[Vector, Slots]:
    """Return m / (√v + τ) and (m, v). ``grown`` gives the new v of the old one and Δ².

    Before the first step m is 0 and v is τ².
    """
    mean, scale = slots or (torch.zeros_like(update), torch.full_like(update, tau * tau))
    mean = beta * mean + (1 - beta) * update
    scale = grown(scale, update.square())
    return mean / (scale.sqrt() + tau), (mean, scale)


SERVER_OPTIMIZERS = SERVER_OPTIMIZER.of(Plain, FedAvgM, FedAdam, FedYogi, FedAdagrad)
"""All server optimisers. Add a new one here."""
