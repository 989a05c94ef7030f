"""Components are values: frozen, validated dataclasses with a ``name`` tag.

The same value is the Python object, the YAML node, the command-line override and part of a run's
identity. :func:`component` makes such a class, :func:`one_of` the explicit union of one kind,
which a wrapper of that kind gets by :func:`complete`; :func:`to_config` writes a value back as
plain data. What a user reads of a refusal is in :mod:`fedrobust.config.explain`.
"""

import inspect
import sys
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import partial
from typing import (
    Annotated,
    Any,
    TypeVar,
    Union,
    cast,
    dataclass_transform,
)

from annotated_types import Ge, Gt, Le, Lt
from pydantic import (
    AllowInfNan,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    PlainValidator,
    Strict,
    Tag,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
)
from pydantic.dataclasses import dataclass as pydantic_dataclass
from pydantic.dataclasses import is_pydantic_dataclass, rebuild_dataclass
from pydantic_core import PydanticCustomError

from fedrobust.config.explain import explain, quoted, suggestion
from fedrobust.config.fingerprint import describe
from fedrobust.config.own import UNTRUSTED, Required, allowed, made
from fedrobust.config.trust import NOTHING, Trusted, UntrustedError
from fedrobust.errors import ConfigError

T = TypeVar("T")


def _ratio(value: object) -> object:
    """Read "8/255" as the number it means, and leave anything else to the type's own check."""
    if isinstance(value, str) and value.count("/") == 1:
        above, below = value.split("/")
        try:
            return float(above) / float(below)
        except (ValueError, ZeroDivisionError):
            return value
    return value


MOST = 2**31 - 1
"""The largest count. What is larger cannot be meant, and many a count becomes a tensor's size."""
Count = Annotated[int, Strict(), Ge(1), Le(MOST)]
"""A whole number from 1 on; 2.0, "2" and true are refused, here and below."""
Size = Annotated[int, Strict(), Ge(0), Le(MOST)]
"""A whole number from 0 on."""
Seed = Annotated[int, Strict(), Ge(0), Le(2**63 - 1)]
"""A whole number from 0 on that 64 bits hold, as do the seeds that are derived from it."""
Real = Annotated[float, Strict(), AllowInfNan(False)]
Positive = Annotated[float, Strict(), AllowInfNan(False), Gt(0)]
NonNegative = Annotated[float, Strict(), AllowInfNan(False), Ge(0)]
Fraction = Annotated[float, Strict(), Ge(0), Le(1)]
Decay = Annotated[float, Strict(), Ge(0), Lt(1)]
"""A share of the past that is kept, below 1."""
Pixels = Annotated[float, Strict(), AllowInfNan(False), Ge(0), BeforeValidator(_ratio)]
"""A length in units of the [0, 1] pixel range; "8/255" is understood."""
Flag = Annotated[bool, Strict()]
Text = Annotated[str, Strict()]


_CONFIG = ConfigDict(extra="forbid", arbitrary_types_allowed=True)


@dataclass_transform(frozen_default=True)
def component(cls: type[T]) -> type[T]:
    """Make ``cls`` a frozen dataclass that checks its fields and refuses unknown ones.

    For a field whose default is a component, a mapping says only where the value differs from that.
    """
    return cast("type[T]", pydantic_dataclass(frozen=True, config=_CONFIG)(_partly(cls)))


@dataclass_transform(frozen_default=True, kw_only_default=True)
def keyword_component(cls: type[T]) -> type[T]:
    """The same with fields that are given by name only, so that they may stand in any order."""
    made = pydantic_dataclass(frozen=True, kw_only=True, config=_CONFIG)(_partly(cls))
    return cast("type[T]", made)


def _partly(cls: type[T]) -> type[T]:
    """Let mappings for fields with a component as their default leave out what is as it is there.

    Without it they would get the defaults of the component's own class. One with another name, or
    without a name and with keys that the default does not have, is taken as it is.
    """
    for field, hint in inspect.get_annotations(cls).items():
        default = cls.__dict__.get(field)
        if is_pydantic_dataclass(type(default)) and not isinstance(hint, str):
            cls.__annotations__[field] = Annotated[hint, BeforeValidator(partial(_filled, default))]
    return cls


def _filled(default: Any, value: object) -> object:
    known = to_config(default)
    value = {"name": value} if type(value) is str and "name" in known else value
    if not isinstance(value, Mapping):
        return value
    if "name" in value:
        meant = value["name"] == known.get("name")
    else:
        meant = "name" not in known or set(value) <= set(known)
    return {**known, **value} if meant else value


def name_of(cls: type) -> str:
    """The ``name`` tag of a component class."""
    return str(cls.__dict__.get("name", cls.__name__))


def one_of(
    kind: str,
    *members: type,
    has: tuple[str, ...],
    holds: Mapping[str, Any] | None = None,
    may_hold: Mapping[str, Any] | None = None,
    or_is: tuple[Any, str] | None = None,
) -> Any:
    """The type "one of ``members``, or the user's own object" of a config field.

    A mapping is read by its ``name``: the tag of a member, or ``module:Class`` for an importable
    class of the user's, called with the other keys. A name alone is the mapping of it. Any other
    object is taken as it is, if it has what :class:`~fedrobust.config.own.Required` says.

    Raises: ``ValidationError`` for a name that is neither, fields that the member refuses, and an
    object that lacks something.
    """
    by_name = {name_of(each): each for each in members}
    required = Required(kind, has, holds or {}, may_hold or {}, or_is)

    def tag(value: object) -> str:
        name = value.get("name") if isinstance(value, Mapping) else name_of_value(value)
        return name if isinstance(name, str) and name in by_name else "own"

    def name_of_value(value: object) -> object:
        return getattr(value, "name", None) if type(value) in members else None

    def own(value: object, info: ValidationInfo) -> object:
        if value is None or type(value) in (bool, int, float, list, tuple):
            raise PydanticCustomError(
                "not_a_component",
                "must be a mapping with a name, such as {example}, or the name alone; got {value}",
                {"example": f"{{name: {next(iter(by_name))}}}", "value": quoted(value)},
            )
        if not isinstance(value, Mapping):
            return required.checked(value)
        name = value.get("name")
        if isinstance(name, str) and ":" in name:
            block = allowed(value, info.context)
            given = {key: item for key, item in block.items() if key != "name"}
            return required.checked(made(name, given))
        if "opaque" in value:
            raise PydanticCustomError(
                "opaque",
                "was the Python object {what}, which no file can rebuild: "
                "use the config or the program that it came from, and resume from Python",
                {"what": quoted(value["opaque"])},
            )
        raise PydanticCustomError(
            "unknown_name",
            "{problem}{hint}; there are: {known}",
            {
                "problem": "has no name" if name is None else f"unknown {kind} {quoted(name)}",
                "hint": suggestion(name, by_name) if isinstance(name, str) else "",
                "known": ", ".join(by_name) + ", or your own as module:Class",
            },
        )

    def named(value: object) -> object:
        """A name alone is the mapping that has no more than it."""
        if type(value) is not str:
            return value
        lacking = _required(by_name[value]) if value in by_name else []
        if lacking:
            example = ", ".join(f"{key}: ..." for key in lacking)
            raise PydanticCustomError(
                "incomplete",
                "{name} alone leaves out {lacking}: must be a mapping with a name and the rest, "
                "such as {example}",
                {
                    "name": value,
                    "lacking": " and ".join(lacking),
                    "example": f"{{name: {value}, {example}}}",
                },
            )
        return {"name": value}

    choices = [Annotated[each, Tag(name)] for name, each in by_name.items()]
    choices.append(Annotated[Any, PlainValidator(own), Tag("own")])
    return Annotated[Union[tuple(choices)], Discriminator(tag), BeforeValidator(named)]  # noqa: UP007


def _required(cls: type) -> list[str]:
    """The fields of a component that have no default."""
    given = cast("Any", cls)
    return [f.name for f in fields(given) if f.default is MISSING and f.default_factory is MISSING]


def complete(*classes: type, **types: Any) -> None:
    """Tell ``classes`` what the names in their field types mean, which their modules cannot import.

    A wrapper holds "any rule" or "any attack", and is one itself.
    """
    for cls in classes:
        vars(sys.modules[cls.__module__]).update(types)
    for cls in classes:
        rebuild_dataclass(cast("Any", cls), force=True)


def to_config(value: Any) -> Any:
    """``value`` as plain data that a YAML file holds.

    A dataclass becomes its fields, with ``name: module:Class`` where it is a user's own importable
    one; anything else that no file can rebuild becomes ``{opaque: its type, fingerprint: ...}``.
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
    """Build a component from plain data. Raises: ``ConfigError`` naming every key that is wrong."""
    try:
        return TypeAdapter(cls).validate_python(content)
    except ValidationError as error:
        raise ConfigError(explain(error, cls)) from error


def from_record(cls: Any, content: object, trusted: Trusted = NOTHING) -> Any:
    """The same for a stored record, which may be anybody's: ``cls`` is any type of a config.

    Raises: ``UntrustedError`` where it names code that is not ``trusted``, which was not imported;
    ``ConfigError`` for anything else that is wrong.
    """
    try:
        return TypeAdapter(cls).validate_python(content, context=trusted)
    except ValidationError as error:
        refused = any(d["type"] == UNTRUSTED for d in error.errors(include_url=False))
        raise (UntrustedError if refused else ConfigError)(explain(error, cls)) from error
