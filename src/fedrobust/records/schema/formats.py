"""The format of each record by number, so that a reader knows what it does not know.

A record that names none is of an earlier version of fedrobust, and of format 1.
"""

from collections.abc import Mapping
from typing import Any

NEWEST: Mapping[str, int] = {
    "summary.json": 1,
    "environment.json": 1,
    "sweep.json": 1,
    "audit.json": 1,
}
"""The newest format of each file. One that older versions would misread raises it."""


def with_format(name: str, content: Mapping[str, Any]) -> dict[str, Any]:
    """``content`` as it is written to the file ``name``: with its format, which comes first."""
    return {"format": NEWEST[name], **content}


def known_format(name: str, content: object) -> bool:
    """Whether ``content`` of the file ``name`` is of a format that can be read.

    Raises: ``ValueError`` where what it calls its format is none.
    """
    if name not in NEWEST or not isinstance(content, Mapping) or "format" not in content:
        return True
    found = content["format"]
    if type(found) is not int or found < 1:
        raise ValueError("format: it is no whole number from 1 on")
    return found <= NEWEST[name]
