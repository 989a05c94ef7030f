"""Where two configs differ."""

from collections.abc import Iterator, Mapping
from typing import Any

from fedrobust.config.text import shortened

_TOLD = 10


def differing(there: Mapping[str, Any], here: Mapping[str, Any], at: str = "") -> Iterator[str]:
    """Yield each key in which two configs differ, with both values."""
    for key in {**there, **here}:
        a, b = there.get(key), here.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping) and a.get("name") == b.get("name"):
            yield from differing(a, b, f"{at}{key}.")
        elif a != b:
            stood, asked = shortened(str(a), 60), shortened(str(b), 60)
            yield f"{shortened(f'{at}{key}', 60)}: {stood} there, {asked} here"


def told(differences: list[str]) -> str:
    """Return the first ten of ``differences`` as one text, and how many more there are."""
    more = len(differences) - _TOLD
    return "; ".join(differences[:_TOLD]) + (f"; and {more} more" if more > 0 else "")
