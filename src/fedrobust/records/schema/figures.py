"""The types of numbers in records."""

import math
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import AllowInfNan, BeforeValidator, ConfigDict, Strict

OPEN = ConfigDict(extra="ignore")
"""Records may hold more keys than are read."""
WHOLE = ConfigDict(extra="allow")
"""A record whose other keys are kept as attributes, so that a reader finds all that it holds."""

Verdict = Literal["genuine", "masked", "inconclusive"]
Figure = Annotated[float, Strict(), AllowInfNan(False)]
Maybe = Figure | None
"""A figure, or None where it was not finite, since JSON has no infinity."""
Drawn = Annotated[
    float, Strict(), BeforeValidator(lambda value: math.nan if value is None else value)
]
"""A figure, or NaN where it was not finite; a drawing leaves NaN out."""


Unread = Any
"""A field that a record holds, and that no reader of ours looks at."""


class Keyed:
    """A record whose fields can also be read by their keys: ``summary["test"]["best"]``."""

    def __getitem__(self, key: str) -> Any:
        return vars(self)[key]

    def __contains__(self, key: object) -> bool:
        return vars(self).get(str(key)) is not None

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def keys(self) -> list[str]:
        """Return the keys that the record holds, so that ``dict(record)`` works."""
        return [key for key, value in vars(self).items() if value is not None]

    def __repr__(self) -> str:
        """What it holds, with figures of six digits, and the long parts as their lengths."""
        held = ((key, self[key]) for key in self.keys() if self[key] not in ((), {}))
        return f"{type(self).__name__}({', '.join(f'{key}={_brief(v)}' for key, v in held)})"


_LONG = 6
"""Parts with more entries are told by their number in a representation."""


def _brief(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, dict) and len(value) <= _LONG:
        return f"{{{', '.join(f'{key!r}: {_brief(each)}' for key, each in value.items())}}}"
    if isinstance(value, tuple | list) and len(value) <= _LONG:
        return f"[{', '.join(map(_brief, value))}]"
    if isinstance(value, dict | tuple | list):
        return f"<{len(value):,} entries>"
    return repr(value)
