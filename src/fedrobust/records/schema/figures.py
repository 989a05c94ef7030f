"""The numbers of records."""

import math
from typing import Annotated, Literal

from pydantic import AllowInfNan, BeforeValidator, ConfigDict, Strict

OPEN = ConfigDict(extra="ignore")
"""Records may hold more than is read."""

Verdict = Literal["genuine", "masked", "inconclusive"]
Figure = Annotated[float, Strict(), AllowInfNan(False)]
Maybe = Figure | None
"""A figure, or None where it was not finite: JSON has no infinity."""
Drawn = Annotated[
    float, Strict(), BeforeValidator(lambda value: math.nan if value is None else value)
]
"""The same, NaN where it was not finite, which a drawing leaves out."""
