"""A user's own objects, which may stand where a component does: how they are made and checked."""

import sys
from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from functools import cache
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic_core import PydanticCustomError

from fedrobust.config import beside
from fedrobust.config.arguments import shortened
from fedrobust.config.explain import explain, quoted, reason
from fedrobust.config.trust import Trusted, same
from fedrobust.errors import UserError

_DATA = (
    frozenset({str, bytes, bytearray, bool, int, float, complex})
    | frozenset({list, tuple, set, frozenset, dict, range, type(None)})
)  # fmt: skip
"""Plain data is no object of a user's, even where it has the methods: a text has ``split``."""

_ABSENT = object()

UNTRUSTED = "untrusted"
"""The type of the mistake that :func:`allowed` tells of."""


@dataclass(frozen=True)
class Required:
    """What an object has to have to be one of a ``kind``.

    It has every method of ``has`` and every value of ``holds``, which maps names to types; a value
    of ``may_hold`` is of its type where there is one. An object of the type ``or_is[0]``, in words
    ``or_is[1]``, is one without the methods.
    """

    kind: str
    has: tuple[str, ...]
    holds: Mapping[str, Any] = field(default_factory=dict)
    may_hold: Mapping[str, Any] = field(default_factory=dict)
    or_is: tuple[Any, str] | None = None

    def checked(self, value: object) -> object:
        """``value``. Raises: ``PydanticCustomError`` that says what it lacks, or what is wrong."""
        if isinstance(value, type):
            raise self._refusal(f"the class {value.__name__}", self._wanted())
        if type(value) in _DATA:
            raise self._refusal(quoted(value), self._wanted())
        what = type(value).__name__
        other = self.or_is is not None and isinstance(value, self.or_is[0])
        found = {name: self._read(value, name) for name in (*self.has, *self.holds, *self.may_hold)}
        absent = [n for n in self.has if found[n] is _ABSENT and not other]
        absent += [n for n in self.holds if found[n] is _ABSENT]
        if absent:
            raise self._refusal(what, f"it lacks {_and(absent)}; {self._wanted()}")
        for name in self.has:
            if found[name] is not _ABSENT and not callable(found[name]):
                raise self._refusal(what, f"its {name} is no method; {self._wanted()}")
        for name, kind in {**self.holds, **self.may_hold}.items():
            if found[name] is not _ABSENT and (wrong := _wrong(kind, found[name])):
                raise self._refusal(what, f"its {name} {wrong}")
        return value

    def _wanted(self) -> str:
        alternative = "" if self.or_is is None else f", or {self.or_is[1]}"
        return f"an object with {_and([*self.has, *self.holds])} is{alternative}"

    def _read(self, value: object, name: str) -> object:
        try:
            return getattr(value, name, _ABSENT)
        except (Exception, SystemExit) as error:  # a property of the user's may fail in any way
            what = type(value).__name__
            raise self._refusal(what, f"its {name} cannot be read: {reason(error)}") from error

    def _refusal(self, what: str, why: str) -> PydanticCustomError:
        return PydanticCustomError(
            "wrong_kind",
            "{what} is no {kind}: {why}",
            {"what": what, "kind": self.kind, "why": why},
        )


def _and(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _wrong(kind: Any, value: object) -> str:
    """What keeps ``value`` from being of the type ``kind``; empty where nothing does."""
    try:
        _adapter(kind).validate_python(value)
    except ValidationError as error:
        message = error.errors(include_url=False)[0]["msg"].replace("Input should", "should")
        return f"{message}; got {quoted(value)}"
    return ""


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind, config=ConfigDict(arbitrary_types_allowed=True))


def allowed(block: Mapping[str, Any], context: object) -> Mapping[str, Any]:
    """What is to be made of ``block``, which names code: itself, in a user's own config.

    A context that is a ``Trusted`` is that of a stored record. Of what the user names too, the
    user's own block is made. Fields that the record lacks must have the defaults of their class,
    which has gained them since.

    Raises: ``PydanticCustomError`` where it is not trusted. Nothing was imported then.
    """
    if not isinstance(context, Trusted) or context.everything:
        return block
    known = context.meant(block)
    if known is None or not _defaults(known, known.keys() - block.keys()):
        raise PydanticCustomError(
            UNTRUSTED,
            "{name} is code, and code that a record names is not run unless you name it yourself",
            {"name": quoted(block.get("name"))},
        )
    return known


def _defaults(block: Mapping[str, Any], keys: Set[str]) -> bool:
    """Whether ``block`` has the defaults of its class for these keys; nothing is imported."""
    if not keys:
        return True
    module, _, path = str(block["name"]).partition(":")
    target: Any = sys.modules.get(module)
    for part in path.split("."):
        target = getattr(target, part, None)
    if not isinstance(target, type) or not is_dataclass(target):
        return False
    known = {field.name: field.default for field in fields(target)}
    return all(same(known.get(key, MISSING), block[key]) for key in keys)


def made(name: str, arguments: Mapping[str, Any]) -> object:
    """What ``module:Class`` gives for ``arguments``, which is to run the code that it names.

    Raises: ``PydanticCustomError`` where there is no such thing, or it fails in any way, an attempt
    to end the program included. A ``KeyboardInterrupt`` passes through.
    """
    shown = quoted(name) if not name.isprintable() else shortened(name)
    target = _imported(name, shown)
    if not callable(target):
        raise _failure(f"{shown} is no class or function: it is {quoted(target)}")
    odd = [key for key in arguments if not isinstance(key, str)]
    if odd:
        raise _failure(f"{shown}: its fields must be texts; got {quoted(odd[0])}")
    try:
        return target(**arguments)
    except ValidationError as error:
        lines = explain(error, target if isinstance(target, type) else object).replace("\n", "; ")
        raise _failure(f"{shown} refused its arguments: {lines}") from error
    except (TypeError, ValueError) as error:
        raise _failure(f"{shown} refused its arguments: {_said(error)}") from error
    except (Exception, SystemExit) as error:  # a user's class may fail in any way
        raise _failure(f"{shown} could not be made: {reason(error)}") from error


def _imported(name: str, shown: str) -> Any:
    module, _, attribute = name.partition(":")
    if not all([*module.split("."), *attribute.split(".")]):
        raise _failure(f"{shown} names nothing: write module:Class, such as my_rules:ClippedMean")
    try:
        target: Any = beside.module(module)
        for part in attribute.split("."):
            target = getattr(target, part)
    except (Exception, SystemExit) as error:  # a user's module may fail in any way
        raise _failure(f"cannot import {shown}: {reason(error)}{_hint(module, error)}") from error
    return target


def _hint(module: str, error: BaseException) -> str:
    return shortened(beside.hint(module, error), 500) if module.isprintable() else ""


def _said(error: BaseException) -> str:
    return reason(error).partition(": ")[2]


def _failure(message: str) -> PydanticCustomError:
    return PydanticCustomError("own", "{message}", {"message": message})


@contextmanager
def asking(what: str) -> Iterator[None]:
    """Within, whatever a user's object raises is a ``ValueError`` that says ``what`` was asked."""
    try:
        yield
    except (ValueError, UserError):
        raise
    except (Exception, SystemExit) as error:
        raise ValueError(f"{what} failed: {reason(error)}") from error
