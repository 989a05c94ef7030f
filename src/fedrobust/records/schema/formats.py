"""The number of each record's format, so that a reader recognises a format that it cannot read.

A record without a number is from an earlier version of fedrobust, and has format 1.
"""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, cast

NEWEST: Mapping[str, int] = {
    "summary.json": 1,
    "environment.json": 1,
    "sweep.json": 1,
    "reproduction.json": 1,
    "audit.json": 1,
    "leaderboard.json": 1,
    "result.json": 1,
}
"""The newest format of each file. A change that older versions would misread raises it."""


def with_format(name: str, content: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``content`` as it is written to the file ``name``, with its format as first key."""
    return {"format": NEWEST[name], **content}


def known_format(name: str, content: object) -> bool:
    """Whether ``content`` of the file ``name`` has a format that can be read.

    Raises: ``ValueError`` where its format is not a whole number of at least 1.
    """
    if name not in NEWEST or not isinstance(content, Mapping) or "format" not in content:
        return True
    found = content["format"]
    if type(found) is not int or found < 1:
        raise ValueError("format: it is no whole number from 1 on")
    return found <= NEWEST[name]


def declared(kind: type, content: dict[str, Any]) -> dict[str, Any]:
    """Return ``content``, a record that is about to be written, if ``kind`` declares every key.

    So a record is written, read and shown from one declaration.

    Raises: ``TypeError`` for a key that ``kind`` does not declare, a mistake in fedrobust.
    """
    names = {field.name for field in fields(cast("Any", kind))}
    if more := [key for key in content if key not in names]:
        raise TypeError(f"{kind.__name__} does not declare {', '.join(more)}")
    return content
