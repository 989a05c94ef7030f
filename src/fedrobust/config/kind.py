"""A kind of component: its members, and how a config names one of them."""

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Annotated, Any, TypeVar, Union, cast

from pydantic import (
    BeforeValidator,
    Discriminator,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainValidator,
    Tag,
    TypeAdapter,
    ValidationInfo,
)
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from fedrobust.config.fingerprint import foreign
from fedrobust.config.own import Adapt, Required, allowed, made
from fedrobust.config.text import OPAQUE, quoted, suggestion

Members = TypeVar("Members", bound=tuple[type, ...])


def name_of(cls: type) -> str:
    """Return the ``name`` tag of a component class."""
    return str(cls.__dict__.get("name", cls.__name__))


class Kind:
    """One kind of component: a value is one of its members, or the user's own object.

    With ``ATTACK = Kind("attack", has=("craft",))`` the type of a config field is
    ``AnyAttack = Annotated[Attack, ATTACK]``. The package that defines the members lists them later
    with :meth:`of`. A member may therefore hold another member of its own kind, as the wrappers do.

    A mapping is read by its ``name``: the tag of a member, or ``module:Class`` for a user's own
    importable class, which is called with the other keys. A name alone stands for the mapping with
    only that name. Any other object is taken as it is, if it has what
    :class:`~fedrobust.config.own.Required` demands.

    Raises, when a value is read: ``ValidationError`` for an unknown name, for fields that the
    member refuses, and for an object that lacks something.
    """

    def __init__(
        self,
        name: str,
        *,
        has: tuple[str, ...],
        holds: Mapping[str, Any] | None = None,
        may_hold: Mapping[str, Any] | None = None,
        or_is: tuple[Any, str] | None = None,
        calls: Mapping[str, str] | None = None,
        made_by: str = "",
        adapt: Adapt | None = None,
    ) -> None:
        """``name`` is the name of the kind in messages; for the rest see ``Required``.

        ``adapt`` makes a member of this kind from another class that a config names, if it can.
        """
        self.name, self.members = name, dict[str, type]()
        self._adapt = adapt
        self._required = Required(
            name, has, holds or {}, may_hold or {}, or_is, calls or {}, made_by
        )
        self._adapter: TypeAdapter[Any] | None = None

    def of(self, *members: type) -> tuple[type, ...]:
        """List the members of this kind, which is allowed once, and return them."""
        if self.members:
            raise ValueError(f"the members of the kind {self.name} are listed already")
        self.members = {name_of(member): member for member in members}
        return members

    @property
    def union(self) -> Any:
        """The members as a union that pydantic reads, each with its tag.

        A user's own object has the tag "own".
        """
        choices = [Annotated[each, Tag(name)] for name, each in self.members.items()]
        choices.append(Annotated[Any, PlainValidator(self._own), Tag("own")])
        union: Any = Union[tuple(choices)]  # noqa: UP007
        return Annotated[union, Discriminator(self._tag), BeforeValidator(self._named)]

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """Return the reader of fields of this kind. It looks up the members at each reading."""
        return core_schema.with_info_plain_validator_function(self._read)

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """Describe a field of this kind: a name, or a mapping with one. A user's may be any."""
        names = [*self.members, "module:Class"]
        block = {"type": "object", "properties": {"name": {"type": "string", "examples": names}}}
        return {"anyOf": [{"type": "string", "examples": names}, block | {"required": ["name"]}]}

    def _read(self, value: object, info: ValidationInfo) -> object:
        if self._adapter is None:
            if not self.members:
                raise RuntimeError(f"the kind {self.name} has no members yet: import its package")
            self._adapter = TypeAdapter(self.union)
        return self._adapter.validate_python(value, context=info.context)

    def _tag(self, value: object) -> str:
        if isinstance(value, Mapping):
            name = value.get("name")
        else:
            ours = type(value) in self.members.values()
            name = getattr(value, "name", None) if ours else None
        return name if isinstance(name, str) and name in self.members else "own"

    def _own(self, value: object, info: ValidationInfo) -> object:
        """Return a user's own object, made first where the config names its class.

        Raises: ``PydanticCustomError``.
        """
        whole = type(value) in (list, tuple) or (type(value) is dict and "name" not in value)
        if self._required.made_by and whole and foreign(value):
            raise PydanticCustomError(
                "wrong_kind",
                "a {what} of objects is no {kind}: {maker}",
                {
                    "what": type(value).__name__,
                    "kind": self.name,
                    "maker": self._required.made_by,
                },
            )
        if value is None or type(value) in (bool, int, float, list, tuple):
            raise PydanticCustomError(
                "not_a_component",
                "must be a mapping with a name, such as {example}, or the name alone; got {value}",
                {"example": f"{{name: {next(iter(self.members))}}}", "value": quoted(value)},
            )
        if not isinstance(value, Mapping):
            return self._required.checked(value)
        name = value.get("name")
        if isinstance(name, str) and ":" in name:
            block = allowed(value, info.context)
            given = {key: item for key, item in block.items() if key != "name"}
            return self._required.checked(made(name, given, self._adapt))
        if "opaque" in value:
            raise PydanticCustomError(
                "opaque",
                f"was the Python object {{what}}, {OPAQUE}: "
                "use the config or the program that it came from, and resume from Python",
                {"what": quoted(value["opaque"])},
            )
        unknown = f"unknown {self.name} {quoted(name)}"
        raise PydanticCustomError(
            "unknown_name",
            "{problem}{hint}; there are: {known}",
            {
                "problem": "has no name" if name is None else unknown,
                "hint": suggestion(name, self.members) if isinstance(name, str) else "",
                "known": ", ".join(self.members) + ", or your own as module:Class",
            },
        )

    def _named(self, value: object) -> object:
        """Read a name alone as the mapping with that name and nothing else."""
        if type(value) is not str:
            return value
        lacking = required_fields(self.members[value]) if value in self.members else []
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


def required_fields(cls: type) -> list[str]:
    """Return the names of the fields of a component that have no default."""
    given = cast("Any", cls)
    return [f.name for f in fields(given) if f.default is MISSING and f.default_factory is MISSING]
