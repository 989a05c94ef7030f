"""Confidence intervals of shares."""

import math
from dataclasses import dataclass

# SciPy is imported where it is used: it takes a tenth of the start of every command.

SIDES = 1.959963984540054
"""The half-width of a 95 % interval in standard errors: the normal distribution's 97.5 % point."""


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
        """Return Wilson's interval with ``z`` standard errors to either side.

        (k + z²/2 ± z √(k (n − k)/n + z²/4)) / (n + z²), for k of n examples.

        Reference: Wilson, "Probable inference, the law of succession, and statistical inference",
        Journal of the American Statistical Association 1927.
        """
        k, n = self.count, self.total
        middle, width = k + z * z / 2, z * math.sqrt(k * (n - k) / n + z * z / 4)
        low = 0.0 if k == 0 else (middle - width) / (n + z * z)
        return low, 1.0 if k == n else (middle + width) / (n + z * z)

    def __str__(self) -> str:
        return f"{100 * self.value:.1f} % ({100 * self.low:.1f} to {100 * self.high:.1f})"


def bounds(share: float, examples: int) -> tuple[float, float]:
    """The ends of Wilson's 95 % interval of a share of ``examples`` independent examples."""
    return Share(round(share * examples), examples).interval(SIDES)


def difference(b: int, c: int, n: int, z: float) -> tuple[float, float]:
    """The interval of (b − c)/n for ``z`` standard errors to either side.

    Of n pairs, b have only the first property and c only the second one. Half a pair is added to
    each of the four cells.

    Reference: Agresti, Min, "Simple improved confidence intervals for comparing matched
    proportions", Statistics in Medicine 2005.
    """
    m, up, down = n + 2, b + 0.5, c + 0.5
    middle = (up - down) / m
    error = math.sqrt((up + down) - (up - down) ** 2 / m) / m
    return middle - z * error, middle + z * error


def of_mean(values: list[float]) -> tuple[float, float]:
    """The mean of ``values`` and half the width of its 95 % t-interval."""
    from scipy.special import stdtrit

    n = len(values)
    mean = sum(values) / n
    deviation = math.sqrt(sum((v - mean) ** 2 for v in values) / (n - 1))
    return mean, float(stdtrit(n - 1, 0.975)) * deviation / math.sqrt(n)
