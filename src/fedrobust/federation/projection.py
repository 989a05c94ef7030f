"""Projections: Θ, the set in which the server keeps the parameters."""

from typing import Annotated, Literal, Protocol, TypeAlias

import torch
from pydantic import model_validator

from fedrobust.config.component import component
from fedrobust.config.kind import Kind
from fedrobust.config.scalars import Positive, Real
from fedrobust.typing import Vector

_ROUNDING = 1e-6
"""A point that was projected in float32 may lie outside by this relative amount."""


class Projection(Protocol):
    """Projects to the nearest point of a closed convex set Θ."""

    def project(self, parameters: Vector) -> Vector:
        """Return Π_Θ(θ) [d]; θ itself where it lies in Θ."""
        ...


PROJECTION = Kind("projection", has=("project",), calls={"project": "parameters"})
AnyProjection: TypeAlias = Annotated[Projection, PROJECTION]


@component
class NoProjection:
    """Θ = ℝᵈ: no projection."""

    name: Literal["none"] = "none"

    def project(self, parameters: Vector) -> Vector:
        """Return θ itself."""
        return parameters


@component
class Ball:
    """Θ = {θ : ‖θ‖₂ ≤ radius}: θ · min(1, radius / ‖θ‖₂)."""

    radius: Positive
    name: Literal["ball"] = "ball"

    def project(self, parameters: Vector) -> Vector:
        """Return the nearest point of the ball; θ itself where only rounding puts it outside."""
        length = torch.linalg.vector_norm(parameters.double())
        inside = float(length.detach()) <= self.radius * (1 + _ROUNDING)
        return parameters if inside else parameters * (self.radius / length).to(parameters)


@component
class Box:
    """Θ = [low, high]ᵈ."""

    low: Real
    high: Real
    name: Literal["box"] = "box"

    @model_validator(mode="after")
    def _rising(self) -> "Box":
        if not self.low < self.high:
            raise ValueError(f"low must be below high; got low {self.low:g}, high {self.high:g}")
        return self

    def project(self, parameters: Vector) -> Vector:
        """Move every parameter to the nearest value of the interval."""
        return parameters.clamp(self.low, self.high)


PROJECTIONS = PROJECTION.of(NoProjection, Ball, Box)
