"""Components are values: frozen, validated dataclasses with a ``name`` tag.

One value serves as the Python object, the YAML node, the command-line override and a part of a
run's identity. :func:`component` makes such a class, :func:`to_config` writes a value back as plain
data, and :func:`from_config` reads it. A field that takes any attack, or any rule, has a
:class:`~fedrobust.config.kind.Kind` as its type. The messages about refused values are made in
:mod:`fedrobust.config.explain`.
"""

import inspect
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import partial, wraps
from typing import (
    Annotated,
    Any,
    TypeVar,
    cast,
    dataclass_transform,
)

from pydantic import (
    BeforeValidator,
    ConfigDict,
    TypeAdapter,
    ValidationError,
)
from pydantic.dataclasses import dataclass as pydantic_dataclass
from pydantic.dataclasses import is_pydantic_dataclass

from fedrobust.config.explain import explain
from fedrobust.config.fingerprint import describe
from fedrobust.config.own import UNTRUSTED
from fedrobust.config.trust import NOTHING, Trusted, UntrustedError
from fedrobust.errors import ConfigError

T = TypeVar("T")


_CONFIG = ConfigDict(extra="forbid", arbitrary_types_allowed=True)


@dataclass_transform(frozen_default=True)
def component(cls: type[T]) -> type[T]:
    """Make ``cls`` a frozen dataclass that checks its fields and refuses unknown ones.

    For a field whose default is a component, a mapping gives only the keys that differ from it.
    """
    made = pydantic_dataclass(frozen=True, config=_CONFIG)(_partly(cls))
    return cast("type[T]", _explaining(made))


@dataclass_transform(frozen_default=True, kw_only_default=True)
def keyword_component(cls: type[T]) -> type[T]:
    """Make a :func:`component` whose fields are given by name only, so in any order."""
    made = pydantic_dataclass(frozen=True, kw_only=True, config=_CONFIG)(_partly(cls))
    return cast("type[T]", _explaining(made))


def _explaining(cls: Any) -> Any:
    """Let the constructor raise a ``ConfigError`` that reads as it does for a config in a file."""
    validated = cls.__init__
    names = [field.name for field in fields(cls) if field.init and not field.kw_only]

    @wraps(validated)
    def checked(self: Any, *given: Any, **named: Any) -> None:
        if len(given) > len(names):
            known = f"takes {', '.join(names)}" if names else "takes its fields by name"
            raise ConfigError(f"{cls.__name__} {known}; it got {len(given)} values in a row")
        if twice := sorted(named.keys() & set(names[: len(given)])):
            raise ConfigError(f"{cls.__name__}: {twice[0]} is given twice")
        try:
            validated(self, **dict(zip(names, given, strict=False)), **named)
        except ValidationError as error:
            text = explain(error, cls)
            apart = "\n" if "\n" in text else " "
            raise ConfigError(f"{cls.__name__}:{apart}{text}") from None  # it says all of error

    cls.__init__ = checked
    return cls


def _partly(cls: type[T]) -> type[T]:
    """Let a mapping omit the keys that equal the field's default, where that is a component.

    Otherwise the omitted keys would get the defaults of the component's class. A mapping with
    another name, or without a name and with keys that the default lacks, is taken as it is.
    """
    for field, hint in inspect.get_annotations(cls).items():
        default = cls.__dict__.get(field)
        if is_pydantic_dataclass(type(default)) and not isinstance(hint, str):
            cls.__annotations__[field] = Annotated[hint, BeforeValidator(partial(_filled, default))]
    return cls


def _filled(default: Any, value: object) -> object:
    known = to_config(default)
    if type(value) is str and value == known.get("name"):
        return known
    if not isinstance(value, Mapping):
        return value
    if "name" in value:
        meant = value["name"] == known.get("name")
    else:
        meant = "name" not in known or set(value) <= set(known)
    return {**known, **value} if meant else value


def to_config(value: Any) -> Any:
    """Return ``value`` as plain data that a YAML file can hold.

    A dataclass becomes its fields. A user's own importable dataclass also gets
    ``name: module:Class``. Any object that no file can rebuild becomes
    ``{opaque: its type, fingerprint: ...}``.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, tuple | list):
        return [to_config(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): to_config(item) for key, item in value.items()}
    cls = type(value)
    path = f"{cls.__module__}:{cls.__qualname__}"
    ours = cls.__module__.partition(".")[0] == "fedrobust"
    importable = cls.__module__ != "__main__" and "<locals>" not in cls.__qualname__
    if not (is_pydantic_dataclass(cls) if ours else is_dataclass(value) and importable):
        return describe(value)
    content = {f.name: to_config(getattr(value, f.name)) for f in fields(value) if f.init}
    if not ours:
        content["name"] = path
    name = {"name": content.pop("name")} if "name" in content else {}
    return name | content


def from_config(cls: type[T], content: Mapping[str, Any]) -> T:
    """Build a component from plain data. Raises: ``ConfigError`` that names every wrong key."""
    try:
        return TypeAdapter(cls).validate_python(content)
    except ValidationError as error:
        raise ConfigError(explain(error, cls)) from error


def read_as(kind: Any, value: object, what: str) -> Any:
    """Return ``value``, a component or what a config would hold in its place, as one of ``kind``.

    Raises: ``ConfigError`` that begins with ``what``.
    """
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        raise ConfigError(f"{what}: {explain(error, kind)}") from error


def from_record(cls: Any, content: object, trusted: Trusted = NOTHING) -> Any:
    """Build a value from a stored record, which anybody may have written.

    ``cls`` is any type of a config.

    Raises: ``UntrustedError`` where it names code that is not ``trusted``; that code was not
    imported. ``ConfigError`` for anything else that is wrong.
    """
    try:
        return TypeAdapter(cls).validate_python(content, context=trusted)
    except ValidationError as error:
        refused = any(d["type"] == UNTRUSTED for d in error.errors(include_url=False))
        raise (UntrustedError if refused else ConfigError)(explain(error, cls)) from error
