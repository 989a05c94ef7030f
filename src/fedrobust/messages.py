"""What a user reads where a config is refused: where it is wrong, why, and what would be right."""

import difflib
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from pydantic import Tag, ValidationError
from pydantic_core import ErrorDetails


def suggestion(word: str, known: Mapping[str, object] | list[str]) -> str:
    """`` (did you mean 'krum'?)`` where a known word is near, else nothing."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def explain(error: ValidationError, cls: type) -> str:
    """One line for each mistake: where it is, what is wrong, what would be right."""
    lines = dict.fromkeys(_line(details, cls) for details in error.errors())
    return "\n".join(lines)


def _line(details: ErrorDetails, cls: type) -> str:
    """The message of one mistake, its path without the union tags that pydantic puts in."""
    owner, path = _follow(cls, details["loc"])
    where = ".".join(path)
    kind, message = details["type"], details["msg"]
    if kind == "unexpected_keyword_argument":
        known = [f.name for f in fields(owner)] if is_dataclass(owner) else []
        message = f"unknown key{suggestion(path[-1], known)}; allowed here: {', '.join(known)}"
    elif kind == "missing":
        message = "is required"
    else:
        message = message.removeprefix("Value error, ").replace("Input should", "should")
        value = details["input"]
        if isinstance(value, bool | int | float | str) and repr(value) not in message:
            message += f"; got {value!r}"
    return f"{where}: {message}" if where else message


def _follow(cls: Any, loc: tuple[int | str, ...]) -> tuple[Any, list[str]]:
    """Walk ``loc`` down from ``cls``: the innermost component class, and the path a user knows.

    Between the keys, pydantic's path holds the tags of unions ("own", "krum", "constrained-float",
    "tuple[Phase, ...]"), which no user has written.
    """
    path: list[str] = []
    field: Any = None
    for step in loc:
        if field is not None and (member := _member(field, step)) is not None:
            cls, field = member, None
            continue
        if isinstance(step, str) and (step == "own" or not step.replace("_", "").isalnum()):
            continue
        if field is not None:
            cls, field = _component_in(field) or cls, None
        path.append(str(step))
        if isinstance(step, str) and is_dataclass(cls):
            field = get_type_hints(cls, include_extras=True).get(step)
    return cls, path


def _component_in(hint: Any) -> Any:
    """The first component class inside a type, such as Phase in ``float | tuple[Phase, ...]``."""
    if isinstance(hint, type) and is_dataclass(hint):
        return hint
    return next((c for arg in get_args(hint) if (c := _component_in(arg)) is not None), None)


def _plain(hint: Any) -> Any:
    while get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    return hint


def _member(hint: Any, step: int | str) -> Any:
    """The union member that pydantic's tag ``step`` stands for, where ``hint`` is a union."""
    for choice in get_args(hint):
        tags = [e.tag for e in getattr(choice, "__metadata__", ()) if isinstance(e, Tag)]
        if step in tags:
            return _plain(choice)
        if not tags and (member := _member(choice, step)) is not None:
            return member
    return None
