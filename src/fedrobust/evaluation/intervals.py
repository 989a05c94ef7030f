"""Confidence intervals of shares."""

from dataclasses import dataclass

from scipy.stats import binomtest, norm

SIDES = float(norm.ppf(0.975))
"""The half-width of a 95 % interval in standard errors."""


@dataclass(frozen=True)
class Share:
    """``count`` of ``total`` examples, with Wilson's 95 % interval."""

    count: int
    total: int

    @property
    def value(self) -> float:
        """The share as a number."""
        return self.count / self.total

    @property
    def low(self) -> float:
        """The lower end of the interval."""
        return self.interval(SIDES)[0]

    @property
    def high(self) -> float:
        """The upper end of the interval."""
        return self.interval(SIDES)[1]

    def interval(self, z: float) -> tuple[float, float]:
        """Return Wilson's interval with ``z`` standard errors to either side."""
        found = binomtest(self.count, self.total).proportion_ci(2 * norm.cdf(z) - 1, "wilson")
        return float(found.low), float(found.high)

    def __str__(self) -> str:
        return f"{100 * self.value:.1f} % ({100 * self.low:.1f} to {100 * self.high:.1f})"
