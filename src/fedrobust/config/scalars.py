"""The types of numbers, flags and texts in a config, and the values that each one accepts."""

from pathlib import PurePath
from typing import Annotated

from annotated_types import Ge, Gt, Le, Lt
from pydantic import AllowInfNan, BeforeValidator, Strict


def ratio(value: object) -> object:
    """Read "8/255" as a number, and leave any other value to the check of the type."""
    if isinstance(value, str) and value.count("/") == 1:
        above, below = value.split("/")
        try:
            return float(above) / float(below)
        except (ValueError, ZeroDivisionError):
            return value
    return value


MOST = 2**31 - 1
"""The largest count. A larger one must be a mistake, and many counts become tensor sizes."""


Count = Annotated[int, Strict(), Ge(1), Le(MOST)]
"""A whole number of at least 1. Here and below, 2.0, "2" and true are refused."""


Size = Annotated[int, Strict(), Ge(0), Le(MOST)]
"""A whole number of at least 0."""


Seed = Annotated[int, Strict(), Ge(0), Le(2**63 - 1)]
"""A whole number of at least 0 that fits into 64 bits, as do the seeds derived from it."""


Real = Annotated[float, Strict(), AllowInfNan(False)]


Positive = Annotated[float, Strict(), AllowInfNan(False), Gt(0)]


NonNegative = Annotated[float, Strict(), AllowInfNan(False), Ge(0)]


Fraction = Annotated[float, Strict(), Ge(0), Le(1)]


Decay = Annotated[float, Strict(), Ge(0), Lt(1)]
"""The share of the past that is kept, from 0 and below 1."""


Pixels = Annotated[float, Strict(), AllowInfNan(False), Ge(0), BeforeValidator(ratio)]
"""A length in units of the [0, 1] pixel range. The text "8/255" is accepted."""


Flag = Annotated[bool, Strict()]


Text = Annotated[str, Strict()]


def _written(value: object) -> object:
    """Return the path of a ``pathlib.Path`` as a text, which is what a config holds."""
    return str(value) if isinstance(value, PurePath) else value


PathText = Annotated[str, Strict(), BeforeValidator(_written)]
"""The path of a file, as a text or a ``pathlib.Path``."""
