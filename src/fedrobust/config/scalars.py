"""The numbers, flags and texts of a config, each with what it accepts."""

from typing import Annotated

from annotated_types import Ge, Gt, Le, Lt
from pydantic import AllowInfNan, BeforeValidator, Strict


def _ratio(value: object) -> object:
    """Read "8/255" as the number it means, and leave anything else to the type's own check."""
    if isinstance(value, str) and value.count("/") == 1:
        above, below = value.split("/")
        try:
            return float(above) / float(below)
        except (ValueError, ZeroDivisionError):
            return value
    return value


MOST = 2**31 - 1
"""The largest count. What is larger cannot be meant, and many a count becomes a tensor's size."""


Count = Annotated[int, Strict(), Ge(1), Le(MOST)]
"""A whole number from 1 on; 2.0, "2" and true are refused, here and below."""


Size = Annotated[int, Strict(), Ge(0), Le(MOST)]
"""A whole number from 0 on."""


Seed = Annotated[int, Strict(), Ge(0), Le(2**63 - 1)]
"""A whole number from 0 on that 64 bits hold, as do the seeds that are derived from it."""


Real = Annotated[float, Strict(), AllowInfNan(False)]


Positive = Annotated[float, Strict(), AllowInfNan(False), Gt(0)]


NonNegative = Annotated[float, Strict(), AllowInfNan(False), Ge(0)]


Fraction = Annotated[float, Strict(), Ge(0), Le(1)]


Decay = Annotated[float, Strict(), Ge(0), Lt(1)]
"""A share of the past that is kept, below 1."""


Pixels = Annotated[float, Strict(), AllowInfNan(False), Ge(0), BeforeValidator(_ratio)]
"""A length in units of the [0, 1] pixel range; "8/255" is understood."""


Flag = Annotated[bool, Strict()]


Text = Annotated[str, Strict()]
