"""Describe a user's objects that no config file can rebuild, and detect whether they changed."""

import pickle
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from io import BytesIO
from types import CodeType, FunctionType
from typing import Any

from torch import Tensor

from fedrobust.digest import digest


def describe(value: object) -> dict[str, str | None]:
    """Return what a saved config stores in place of an object: its type and a fingerprint."""
    named = value if isinstance(value, FunctionType) else type(value)
    return {
        "opaque": f"{named.__module__}:{named.__qualname__}",
        "fingerprint": fingerprint(value),
    }


def fingerprint(value: object, by_value: bool = False) -> str | None:
    """Return 16 hexadecimal digits that differ between values of one type; None if impossible.

    A function is identified by its code, constants, defaults and closure, and any other object by
    its pickled state; ``by_value`` without saying where one object stands at two places.
    """
    content = _of_function(value) if isinstance(value, FunctionType) else _pickled(value, by_value)
    return None if content is None else digest(content, length=16)


def _of_function(function: FunctionType) -> bytes | None:
    around = [cell.cell_contents for cell in function.__closure__ or ()]
    parts = [_of_code(function.__code__)]
    for value in (*around, function.__defaults__, function.__kwdefaults__):
        inner = _of_function(value) if isinstance(value, FunctionType) else _pickled(value)
        if inner is None:
            return None
        parts.append(inner)
    return b"\0".join(parts)


def _of_code(code: CodeType) -> bytes:
    constants = map(_of_constant, code.co_consts)
    return b"\0".join([code.co_code, repr(code.co_names).encode(), *constants])


def _of_constant(value: object) -> bytes:
    if isinstance(value, CodeType):
        return _of_code(value)
    if isinstance(value, frozenset):  # its order differs between processes
        return repr(sorted(map(repr, value))).encode()
    return repr(value).encode()


class _Content(pickle.Pickler):
    """Pickles tensors and sets by their content: their own pickles differ between processes."""

    def persistent_id(self, value: Any) -> Any:
        """Return what stands for a set; None for anything else. It is asked before any pickling."""
        if type(value) not in (set, frozenset):
            return None
        items = [_pickled(item) for item in value]
        if None in items:
            raise pickle.PicklingError("an item of a set")
        return type(value).__name__, sorted(item for item in items if item is not None)

    def reducer_override(self, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return NotImplemented
        return str, (f"{value.dtype} {list(value.shape)} {digest(value)}",)


def _pickled(value: object, by_value: bool = False) -> bytes | None:
    stream = BytesIO()
    try:
        pickler = _Content(stream, protocol=4)
        pickler.fast = by_value
        pickler.dump(value)
    except (pickle.PicklingError, TypeError, AttributeError, ValueError, RuntimeError):
        return None  # no fingerprint is possible, and a run that resumes refuses that
    return stream.getvalue()


def foreign(value: object) -> bool:
    """Whether ``value``, or a component within it, is not fedrobust's own and may do anything."""
    if value is None or isinstance(value, bool | int | float | str | bytes):
        return False
    if isinstance(value, Mapping):
        return any(map(foreign, value.values()))
    if isinstance(value, tuple | list | set | frozenset):
        return any(map(foreign, value))
    kind = value if isinstance(value, FunctionType) else type(value)
    if (kind.__module__ or "").partition(".")[0] != "fedrobust":
        return True
    return is_dataclass(value) and any(foreign(getattr(value, f.name)) for f in fields(value))


def stateful(values: dict[str, object]) -> Callable[[], list[str]]:
    """Remember a user's objects. Return a function that names those that have changed since.

    An object of the user's may also lie inside a component of fedrobust's own. What its
    ``__getstate__`` leaves out may change.
    """
    own = {k: v for k, v in values.items() if foreign(v)}
    before = {name: fingerprint(value, True) for name, value in own.items()}
    return lambda: [name for name, value in own.items() if fingerprint(value, True) != before[name]]


def untold(config: Any, path: str = "") -> list[str]:
    """Return the places in a saved config that hold objects without a fingerprint."""
    if not isinstance(config, dict):
        return []
    if "opaque" in config:
        return [f"{path} ({config['opaque']})"] if config["fingerprint"] is None else []
    return [u for k, v in config.items() for u in untold(v, f"{path}.{k}" if path else str(k))]
