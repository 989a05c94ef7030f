"""The synthetic task of DRFL: is a point of the plane inside or outside a ring?"""

import math
from typing import Annotated, Literal

import torch
from annotated_types import Gt
from torch import Tensor

from fedrobust.component import Count, Positive, Size, component
from fedrobust.data.dataset import Dataset, Split
from fedrobust.errors import ConfigError
from fedrobust.streams import Streams

_RAREST = 1e-3
"""The least share of draws that may lie outside the margin; below it, drawing takes for ever."""


@component
class SyntheticRing:
    """X ~ N(0, I₂), Y = 1 where ‖X‖₂ > r, else 0.

    With a ``margin`` m > 1, points with r/m < ‖x‖₂ < m·r are drawn again, so that the counts hold.
    Variant A, as DRFL §4 is written: radius 2, no margin. Variant B, as in Sinha et al. 2018, whom
    it follows: radius √2, margin 1.3. DRFL gives each of 10 clients 5,000 points: that is
    ``validation=0``, or ``n=55_000``.

    Loads x float32 [N, 2] and labels 0 (inside) and 1 (outside).

    Raises: ``ConfigError`` where the margin leaves out nearly every point.

    References: DRFL §4; Sinha, Namkoong, Duchi, "Certifying Some Distributional Robustness with
    Principled Adversarial Training", ICLR 2018, §4.1.

    Differences from the paper: Y = sign(‖X‖₂ − r) is −1 and 1 there, 0 and 1 here.
    """

    n: Count = 50_000
    test: Count = 10_000
    radius: Positive = 2.0
    margin: Annotated[Positive, Gt(1)] | None = None
    seed: Size = 0
    validation: Size = 5000
    name: Literal["synthetic-ring"] = "synthetic-ring"

    def __post_init__(self) -> None:
        if self._kept() < _RAREST:
            raise ConfigError(
                f"radius {self.radius:g} with margin {self.margin:g} leaves out all but "
                f"{self._kept():.1g} of the points: use a smaller margin"
            )

    def load(self) -> Dataset:
        """Draw the data set; the test points do not depend on ``n``."""
        streams = Streams(self.seed)
        train = self._draw(self.n, streams.generator("synthetic-ring-train"))
        test = self._draw(self.test, streams.generator("synthetic-ring-test"))
        outside = float(train.y.double().mean())
        note = (
            f"{max(outside, 1 - outside):.1%} of the training points have label "
            f"{int(outside > 0.5)}: "
            "a constant classifier is right that often"
        )
        return Dataset(self.name, train, test, 2, self.validation, (note,))

    def _kept(self) -> float:
        """The share of N(0, I₂) that the margin leaves: P(‖X‖₂ > t) = exp(−t²/2)."""
        if self.margin is None:
            return 1.0
        near, far = self.radius / self.margin, self.radius * self.margin
        return 1 - (math.exp(-(near**2) / 2) - math.exp(-(far**2) / 2))

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
