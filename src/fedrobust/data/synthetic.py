"""The synthetic task of DRFL: is a point of the plane inside or outside a ring?"""

import math
from typing import Annotated, Literal

import torch
from annotated_types import Gt, Le
from torch import Tensor

from fedrobust.compute.randomness import Streams
from fedrobust.config.component import component
from fedrobust.config.scalars import Count, Positive, Seed, Size
from fedrobust.data.dataset import Dataset
from fedrobust.data.split import Split
from fedrobust.errors import ConfigError, DataError

_RAREST = 1e-3
"""The least share of draws that a margin may keep; below it, drawing would take for ever."""
_SMALLEST = 1e-6
"""The least share of either class; below it, no number of points contains an example of it."""
Points = Annotated[Count, Le(10_000_000)]
"""The number of points; the largest takes some hundred MB while the points are drawn."""


@component
class SyntheticRing:
    """X ~ N(0, I₂), Y = 1 where ‖X‖₂ > r, else 0.

    With a ``margin`` m > 1, points with r/m < ‖x‖₂ < m·r are drawn again, so that the counts are
    exact. Variant A, as in DRFL §4: radius 2, no margin. Variant B, as in Sinha et al. 2018, whom
    DRFL follows: radius √2, margin 1.3. DRFL gives each of 10 clients 5,000 points: set
    ``validation=0``, or ``n=55_000``.

    Loads x float32 [N, 2] and labels 0 (inside) and 1 (outside).

    Raises: ``ConfigError`` where the margin leaves out nearly every point, or nearly all points
    have the same label; ``load`` raises ``DataError`` where all drawn points have the same label.

    References: DRFL §4; Sinha, Namkoong, Duchi, "Certifying Some Distributional Robustness with
    Principled Adversarial Training", ICLR 2018, §4.1.

    Differences from the paper: Y = sign(‖X‖₂ − r) is −1 and 1 there, 0 and 1 here.
    """

    n: Points = 50_000
    test: Points = 10_000
    radius: Positive = 2.0
    margin: Annotated[Positive, Gt(1)] | None = None
    seed: Seed = 0
    validation: Size = 5000
    name: Literal["synthetic-ring"] = "synthetic-ring"

    def __post_init__(self) -> None:
        inside, outside = self._shares()
        kept = inside + outside
        if kept < _RAREST:
            raise ConfigError(
                f"radius {self.radius:g} with margin {self.margin:g} leaves out all but "
                f"{kept:.1g} of the points: use a smaller margin"
            )
        if min(inside, outside) < _SMALLEST * kept:
            side = "outside" if outside < inside else "inside"
            raise ConfigError(
                f"radius {self.radius:g} leaves almost no point {side} the ring, so that all have "
                "one label: use a radius between 0.01 and 5"
            )

    def load(self) -> Dataset:
        """Draw the data set; the test points do not depend on ``n``."""
        streams = Streams(self.seed)
        train = self._draw(self.n, streams.generator("synthetic-ring-train"))
        test = self._draw(self.test, streams.generator("synthetic-ring-test"))
        outside = float(train.y.double().mean())
        if outside in (0.0, 1.0):
            raise DataError(
                f"all {self.n:,} training points have label {int(outside)}: draw more points, or "
                f"use a radius other than {self.radius:g}"
            )
        note = (
            f"{max(outside, 1 - outside):.1%} of the training points have label "
            f"{int(outside > 0.5)}: "
            "a constant classifier is right that often"
        )
        return Dataset(self.name, train, test, 2, self.validation, (note,))

    def _shares(self) -> tuple[float, float]:
        """Return the shares of N(0, I₂) kept inside and outside: P(‖X‖₂ > t) = exp(−t²/2)."""
        margin = self.margin or 1.0
        near, far = self.radius / margin, self.radius * margin
        return -math.expm1(-near * near / 2), math.exp(-far * far / 2)

    def _draw(self, count: int, generator: torch.Generator) -> Split:
        kept: list[Tensor] = []
        missing = count
        while missing > 0:
            x = torch.randn(count, 2, generator=generator)
            if self.margin is not None:
                norm = x.norm(dim=1)
                x = x[(norm <= self.radius / self.margin) | (norm >= self.radius * self.margin)]
            kept.append(x[:missing])
            missing -= len(kept[-1])
        points = torch.cat(kept)
        return Split(points, (points.norm(dim=1) > self.radius).long())
