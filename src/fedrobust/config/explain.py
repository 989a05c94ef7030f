"""Explain a refused config to the user: where it is wrong, why, and what would be right.

A config may hold anything, so every message is bounded. Quoted values are shortened, and only the
first of many mistakes are listed.
"""

import difflib
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from pydantic import Tag, ValidationError
from pydantic_core import ErrorDetails

from fedrobust.config.arguments import shortened

_LINES, _LINE, _MESSAGE = 20, 700, 3000
"""The limits of a message: its lines, the characters of a line, and its characters in all."""
_WORD = 60
"""The longest word for which a similar word is searched; the search takes time."""
_PLAIN = re.compile(r"[A-Za-z0-9_-]{1,40}")


def suggestion(word: str, known: Iterable[str]) -> str:
    """Return `` (did you mean 'krum'?)`` where a known word is similar, else an empty text."""
    near = difflib.get_close_matches(word, list(known), n=1) if len(word) <= _WORD else []
    return f" (did you mean {near[0]!r}?)" if near else ""


def quoted(value: object, most: int = 80) -> str:
    """Return ``value`` as Python writes it, cut to at most ``most`` characters."""
    try:
        return shortened(repr(value), most)
    except Exception:  # an integer of 5,000 digits, or a user's object
        return f"a value of type {type(value).__name__}"


def reason(error: BaseException) -> str:
    """Return the type and the message of an exception, in a bounded text."""
    try:
        said = str(error)
    except Exception:  # a user's exception
        said = ""
    return shortened(f"{type(error).__name__}: {said}", 400)


def listed(lines: Iterable[str], what: str, more: int = 0) -> str:
    """Join the first of ``lines``, without repetition, and count the rest as "N ``what`` more".

    ``more`` is the number of further items that are not among ``lines``.
    """
    unique = list(dict.fromkeys(shortened(line, _LINE) for line in lines))
    shown: list[str] = []
    for line in unique[:_LINES]:
        if shown and sum(map(len, shown)) + len(line) > _MESSAGE:
            break
        shown.append(line)
    if more := more + len(unique) - len(shown):
        shown.append(f"and {more:,} {what} more")
    return "\n".join(shown)


def explain(error: ValidationError, cls: Any) -> str:
    """Return one line for each mistake: where it is, what is wrong, what would be right."""
    found = error.errors(include_url=False)
    first = found[: 2 * _LINES]  # the texts of the others are not even made
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
            cls, hint = choice, None
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


def printable(text: str, keep: str = "\n\t") -> str:
    """Return ``text`` with control characters written as codes, since a terminal obeys them.

    The characters in ``keep`` stay.
    """
    return "".join(
        ascii(c)[1:-1] if unicodedata.category(c)[0] == "C" and c not in keep else c for c in text
    )
