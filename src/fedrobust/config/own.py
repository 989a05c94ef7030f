"""Make and check a user's own objects, which a config may use in place of components."""

import inspect
import sys
from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from functools import cache
from typing import Any, TypeAlias

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic_core import PydanticCustomError
from torch import nn

from fedrobust.config import beside
from fedrobust.config.explain import explain
from fedrobust.config.signature import misfit
from fedrobust.config.text import quoted, reason, shortened, suggestion
from fedrobust.config.trust import Trusted, same
from fedrobust.errors import UserError

_DATA = (
    frozenset({str, bytes, bytearray, bool, int, float, complex})
    | frozenset({list, tuple, set, frozenset, dict, range, type(None)})
)  # fmt: skip
"""Types of plain data. They are refused even if they have the methods: a text has ``split``."""

_ABSENT = object()

UNTRUSTED = "untrusted"
"""The type of the error that :func:`allowed` raises."""


@dataclass(frozen=True)
class Required:
    """What an object must have to belong to a ``kind``.

    It must have every method of ``has`` and every attribute of ``holds``, which maps names to
    types. An attribute of ``may_hold`` may be absent, but must have the type that is given there.
    An object of the type ``or_is[0]``, in words ``or_is[1]``, belongs to the kind even without the
    methods. ``calls`` says with which arguments the methods are called, required or not, and under
    "__call__" the object itself, where it has none of ``has``. ``made_by`` says what makes such an
    object of what a user has.
    """

    kind: str
    has: tuple[str, ...]
    holds: Mapping[str, Any] = field(default_factory=dict)
    may_hold: Mapping[str, Any] = field(default_factory=dict)
    or_is: tuple[Any, str] | None = None
    calls: Mapping[str, str] = field(default_factory=dict)
    made_by: str = ""

    def checked(self, value: object) -> object:
        """Return ``value`` if it fits. Raises: ``PydanticCustomError`` that says what is wrong."""
        if isinstance(value, type):
            raise self._refusal(f"the class {value.__name__}", self._wanted())
        if type(value) in _DATA:
            raise self._refusal(quoted(value), self._wanted())
        what = type(value).__name__
        other = self.or_is is not None and isinstance(value, self.or_is[0])
        names = (*self.has, *self.holds, *self.may_hold, *self.calls)
        found = {name: self._read(value, name) for name in names}
        absent = [n for n in self.has if found[n] is _ABSENT and not other]
        absent += [n for n in self.holds if found[n] is _ABSENT]
        if absent:
            alone = len(absent) == len(self.has) + len(self.holds) and self.or_is is None
            wanted = "" if alone else f"; {self._wanted()}"
            maker = f"; {self.made_by}" if self.made_by else ""
            raise self._refusal(what, f"it lacks {_and(absent)}{wanted}{maker}")
        for name in self.has:
            if found[name] is not _ABSENT and not callable(found[name]):
                raise self._refusal(what, f"its {name} is no method; {self._wanted()}")
        for name, kind in {**self.holds, **self.may_hold}.items():
            if found[name] is not _ABSENT and (wrong := _wrong(kind, found[name])):
                raise self._refusal(what, f"its {name} {wrong}")
        self._require_calls(value, found)
        return value

    def _require_calls(self, value: Any, found: Mapping[str, Any]) -> None:
        """Refuse a function that cannot be called as it will be."""
        what, calls = type(value).__name__, dict(self.calls)
        itself = calls.pop("__call__", None)
        if itself is None and self.or_is is not None and isinstance(value, self.or_is[0]):
            return  # a network is used as it is, whatever methods it has
        for name, arguments in calls.items():
            if callable(found[name]) and (wrong := misfit(found[name], name, arguments)):
                raise self._refusal(what, f"its {name} {wrong}")
        if itself is not None and all(found[name] is _ABSENT for name in self.has):
            what = value.__name__ if inspect.isfunction(value) else what
            if wrong := misfit(value, self.kind, itself):
                raise self._refusal(what, f"it {wrong}")

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
    """Return why ``value`` is not of the type ``kind``; empty where it is."""
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
    """Return the block to make for ``block``, which names code.

    In a user's own config that is ``block`` itself. In a stored record, where ``context`` is a
    ``Trusted``, the user must have named the same block, and the user's block is returned. The
    record may lack fields that the class has gained since; they must have their defaults.

    Raises: ``PydanticCustomError`` where the block is not trusted. Nothing was imported then.
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
    """Whether ``block`` has the defaults of its class for ``keys``. Nothing is imported."""
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


Adapt: TypeAlias = Callable[[Any, str, Mapping[str, Any]], object]
"""Makes an object of what a name leads to, the name, and the fields; None to call it instead."""


def made(name: str, arguments: Mapping[str, Any], adapt: Adapt | None = None) -> object:
    """Call ``module:Class`` with ``arguments`` and return the result. This runs the code it names.

    ``adapt`` may make the object in another way.

    Raises: ``PydanticCustomError`` where it does not exist or fails in any way, for example by
    trying to end the program. A ``KeyboardInterrupt`` passes through.
    """
    shown = quoted(name) if not name.isprintable() else shortened(name)
    target = _imported(name, shown)
    if not callable(target) or isinstance(target, nn.Module):
        raise _failure(f"{shown} is no class or function: it is {_object(target, name)}")
    odd = [key for key in arguments if not isinstance(key, str)]
    if odd:
        raise _failure(f"{shown}: its fields must be texts; got {quoted(odd[0])}")
    try:
        found = None if adapt is None else adapt(target, name, arguments)
        return target(**arguments) if found is None else found
    except ValidationError as error:
        lines = explain(error, target if isinstance(target, type) else object).replace("\n", "; ")
        raise _failure(f"{shown} refused its arguments: {lines}") from error
    except (TypeError, ValueError) as error:
        unknown = isinstance(error, TypeError) and "unexpected keyword" in str(error)
        why = (_unknown(target, arguments) if unknown else "") or _said(error)
        if inspect.isfunction(target) and "required positional" in why:
            why += (
                ". A config calls a function to make an object: name one that returns the object, "
                "or a class. From Python a function may itself be a rule"
            )
        raise _failure(f"{shown} refused its arguments: {why}") from error
    except (Exception, SystemExit) as error:  # a user's class may fail in any way
        raise _failure(f"{shown} could not be made: {reason(error)}") from error


def _object(target: object, name: str) -> str:
    """Describe an object that a config names in place of what makes one, and say what to name."""
    if type(target) in _DATA or not name.isprintable():
        return quoted(target)
    module, kind = name.partition(":")[0], type(target)
    its = f"its class, {module}:{kind.__qualname__}," if kind.__module__ == module else "a class"
    told = f"an object of the class {kind.__name__}; name {shortened(its, 200)} or a function"
    if isinstance(target, nn.Module):
        return f"{told} that returns it, so that the seed of a run decides its first parameters"
    return f"{told} that returns it"


def _unknown(target: Callable[..., object], arguments: Mapping[str, Any]) -> str:
    """Return what is wrong with the names of ``arguments``; empty where ``target`` takes them."""
    try:
        taken = inspect.signature(target).parameters.values()
    except (TypeError, ValueError):  # some of C's have none
        return ""
    if any(each.kind is each.VAR_KEYWORD for each in taken):
        return ""
    known = [
        each.name for each in taken if each.kind not in (each.POSITIONAL_ONLY, each.VAR_POSITIONAL)
    ]
    odd = next((key for key in arguments if key not in known), None)
    if odd is None:
        return ""
    allowed = ", ".join(known) or "nothing"
    return f"unknown argument {quoted(odd)}{suggestion(odd, known)}; allowed here: {allowed}"


def _imported(name: str, shown: str) -> Any:
    module, _, attribute = name.partition(":")
    file = _of_file(module, attribute)
    if not all([*module.split("."), *attribute.split(".")]):
        such = "write module:Class, such as my_rules:ClippedMean"
        raise _failure(f"{shown} names nothing: {file or such}")
    try:
        target: Any = beside.module(module)
        for part in attribute.split("."):
            target = getattr(target, part)
    except (Exception, SystemExit) as error:  # a user's module may fail in any way
        hint = f"; {file}" if file else _hint(module, error)
        raise _failure(f"cannot import {shown}: {reason(error)}{hint}") from error
    return target


def _of_file(module: str, attribute: str) -> str:
    """Return what to write where a config has the path of a file; empty where it has a module."""
    path = module.replace("\\", "/")
    parts = [part for part in path.removesuffix(".py").split("/") if part not in ("", ".")]
    if not (path.endswith(".py") or "/" in path) or not all(each.isidentifier() for each in parts):
        return ""
    if path.startswith("/"):
        parts = parts[-1:]
    written = shortened(f"{'.'.join(parts)}:{attribute}", 200)
    return (
        f"write {written}, the module without .py; the file lies beside the config or in the "
        "working directory"
    )


def _hint(module: str, error: BaseException) -> str:
    return shortened(beside.hint(module, error), 500) if module.isprintable() else ""


def _said(error: BaseException) -> str:
    return reason(error).partition(": ")[2]


def _failure(message: str) -> PydanticCustomError:
    return PydanticCustomError("own", "{message}", {"message": message})


@contextmanager
def asking(what: str) -> Iterator[None]:
    """Within the context, turn any error of a user's object into a ``ValueError`` about ``what``.

    A ``ValueError`` or ``UserError`` passes through as it is.
    """
    try:
        yield
    except (ValueError, UserError):
        raise
    except (Exception, SystemExit) as error:
        raise ValueError(f"{what} failed: {reason(error)}") from error
