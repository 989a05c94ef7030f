"""Explain a refused config to the user: where it is wrong, why, and what would be right.

A config may hold anything, so every message is bounded. Quoted values are shortened, and only the
first of many mistakes are listed.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from pydantic import Tag, ValidationError
from pydantic_core import ErrorDetails

from fedrobust.config.text import LINES, listed, quoted, suggestion

_PLAIN = re.compile(r"[A-Za-z0-9_-]{1,40}")


def explain(error: ValidationError, cls: Any) -> str:
    """Return one line for each mistake: where it is, what is wrong, what would be right."""
    found = error.errors(include_url=False)
    first = found[: 2 * LINES]  # the texts of the others are not even made
    return listed((_line(d, cls) for d in first), "mistakes", len(found) - len(first))


def _line(details: ErrorDetails, cls: Any) -> str:
    """Return the message of one mistake. Its path omits the union tags that pydantic adds."""
    kind, message = details["type"], details["msg"]
    of_key = kind in ("unexpected_keyword_argument", "invalid_key", "missing")
    owner, path = _follow(cls, details["loc"], of_key)
    where = shown(path)
    if kind in ("unexpected_keyword_argument", "invalid_key"):
        known = [f.name for f in fields(owner)] if is_dataclass(owner) else []
        message = f"unknown key{suggestion(str(path[-1]), known)}; allowed here: {', '.join(known)}"
    elif kind == "missing":
        message = "is required"
    elif kind == "dataclass_type":
        message = f"must be a mapping of keys to values; got {quoted(details['input'])}"
    else:
        message = message.removeprefix("Value error, ").replace("Input should", "should")
        value = details["input"]
        of_type = kind.endswith("_type") or kind == "literal_error"
        if of_type or isinstance(value, bool | int | float | str):
            message += "" if quoted(value) in message else f"; got {quoted(value)}"
    return f"{where}: {message}" if where else message


def shown(path: Iterable[object]) -> str:
    """Return a dotted path. A key with unusual characters stands there as Python writes it."""
    return ".".join(str(s) if _PLAIN.fullmatch(str(s)) else quoted(s, 40) for s in path)


def _follow(cls: Any, loc: tuple[int | str, ...], of_key: bool) -> tuple[Any, list[int | str]]:
    """Follow ``loc`` from ``cls``; return the innermost component class and the user's own path.

    Between the keys, pydantic's path holds the tags of unions ("own", "krum", "constrained-float",
    "tuple[Phase, ...]"), which no user has written. Where ``of_key`` is true, the mistake is about
    a key, so the last step is a key even if it looks like a tag.
    """
    path: list[int | str] = []
    hint: Any = None
    for i, step in enumerate(loc):
        if hint is not None and (choice := member(hint, step)) is not None:
            # A tag names a component, or one form of a value, such as a list of components.
            cls, hint = (choice, None) if isinstance(choice, type) else (cls, choice)
            continue
        owner = cls if hint is None else component_in(hint)
        known = field_types(owner)
        if not (isinstance(step, int) or step in known or (of_key and i == len(loc) - 1)):
            continue
        path.append(step)
        if isinstance(step, str) or (of_key and i == len(loc) - 1):
            cls, hint = owner or cls, known.get(str(step))
    return cls, path


@cache
def field_types(cls: Any) -> dict[str, Any]:
    """Return the types of the fields of a component class; empty for anything else."""
    if not (isinstance(cls, type) and is_dataclass(cls)):
        return {}
    hints = get_type_hints(cls, include_extras=True)
    return {field.name: hints[field.name] for field in fields(cls)}


def component_in(hint: Any) -> Any:
    """Return the first component class in a type, as Phase in ``float | tuple[Phase, ...]``."""
    if isinstance(hint, type) and is_dataclass(hint):
        return hint
    return next((c for arg in get_args(hint) if (c := component_in(arg)) is not None), None)


def member(hint: Any, tag: int | str) -> Any:
    """Return the member of the union ``hint`` with pydantic's ``tag``; None where there is none."""
    return members(hint).get(tag)


def members(hint: Any) -> Mapping[int | str, Any]:
    """Return the members of the union in a type by their tags; empty where there is no union.

    The tag "own" stands for a user's own object.
    """
    found: dict[int | str, Any] = {}
    kinds = [e.union for e in getattr(hint, "__metadata__", ()) if hasattr(e, "union")]
    for choice in (*kinds, *get_args(hint)):
        tags = [e.tag for e in getattr(choice, "__metadata__", ()) if isinstance(e, Tag)]
        inner = dict.fromkeys(tags, _plain(choice)) if tags else members(choice)
        found = {**inner, **found}
    return found


def _plain(hint: Any) -> Any:
    while get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    return hint
