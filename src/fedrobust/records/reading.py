"""Read records, with one function for each kind of file.

A record may be cut by a full disk, edited by hand, or taken from elsewhere. Each function here
returns the content of a file, or raises ``RecordError``, which says what is wrong with which file
and what to do.
"""

import json
import math
import os
from collections.abc import Hashable, Iterator, Mapping
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar, cast

from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError
from safetensors.torch import load
from torch import Tensor, nn

from fedrobust.config.text import OPAQUE, shortened
from fedrobust.config.yaml import TEXT, read_stored_yaml
from fedrobust.errors import ConfigError, FormatError, RecordError
from fedrobust.records import bounded
from fedrobust.records.bounded import named, why
from fedrobust.records.npz import arrays_in
from fedrobust.records.schema.formats import known_format
from fedrobust.records.schema.run import Evaluation

T = TypeVar("T")

REMADE = (
    "metrics.jsonl",
    "rounds.jsonl",
    "summary.json",
    "model.safetensors",
    "best.safetensors",
    "examples.npz",
    "attack.npz",
)
"""The files of a run that are made from its checkpoint, and made again when it is resumed."""
_DEPTH = 64
"""The deepest nesting that is read. No record of fedrobust is nested deeper."""
_MOST = 2**63
_ARRAYS = 2**30
"""The largest number of bytes of pictures in a record."""


def present(path: Path) -> bool:
    """Whether something has this name, even a link that leads nowhere."""
    return os.path.lexists(path)


_UNBUILT = (
    "Use the config or the program that it came from. To audit its weights, name the class: "
    "fedrobust audit DIR/best.safetensors --model module:Class --data DATA --eps EPS"
)


def cure(path: Path) -> str:
    """Return what to do about a record that cannot be read."""
    if path.name in REMADE:
        if (path.parent / "checkpoint.pt").is_file():
            return "resume the run (--resume), which makes it again from checkpoint.pt"
        if path.suffix == ".npz":
            return "remove it, and the page will leave out its pictures"
        return "it could only be made again from checkpoint.pt, which is not there"
    return {
        "config.yaml": "put back the config that the run was played with",
        "environment.json": "remove it: where the run was computed is lost, its results are not",
        "sweep.json": "remove it and go on with fedrobust sweep --resume, which keeps the cells",
    }.get(path.name, "restore it, or choose another")


def broken(path: Path, reason: object, *, line: int | None = None, then: str = "") -> RecordError:
    """Return the error for a file that can be read but has wrong content."""
    where = f"{named(path)}, line {line}" if line else named(path)
    if path.name == "config.yaml" and OPAQUE in why(reason):  # the file is whole
        objects = [line.partition(f", {OPAQUE}")[0] for line in str(reason).splitlines()]
        told = "; ".join(shortened(each, 120) for each in objects[:4])
        return RecordError(f"{where} cannot be used alone: {told}, {OPAQUE}. {_UNBUILT}")
    return RecordError(f"{where} is broken: {why(reason)}; {then or cure(path)}")


def unreadable(path: Path, error: Exception, then: str = "") -> RecordError:
    """Return the error for a file that cannot be read."""
    return RecordError(f"cannot read {named(path)}: {why(error)}; {then or cure(path)}")


def content_of(path: Path, then: str = "", most: int | None = None) -> bytes:
    """Return the bytes of a file of at most ``most`` bytes. Raises: ``RecordError``."""
    try:
        return bounded.contents(path, most)
    except (OSError, ValueError) as error:
        raise unreadable(path, error, then) from error


def text_of(path: Path, then: str = "", most: int = bounded.TEXT, *, damaged: bool = False) -> str:
    """Return the text of a UTF-8 file. With ``damaged``, replace invalid bytes.

    Raises: ``RecordError``.
    """
    try:
        return content_of(path, then, most).decode("utf-8", "replace" if damaged else "strict")
    except (UnicodeDecodeError, MemoryError) as error:
        raise unreadable(path, error, then) from error


def json_of(path: Path, kind: type[T], then: str = "") -> T:
    """Return the JSON value of a file, checked to be a ``kind``. Raises: ``RecordError``."""
    text = text_of(path, then)
    try:
        bounded.require_room_for_json(text)
        content = parsed(text)
        if known_format(path.name, content):
            return shaped(kind, content)
    except (ValueError, RecursionError, MemoryError) as error:
        raise broken(path, error if text.strip() else "it is empty", then=then) from error
    raise FormatError(
        f"{named(path)} is of format {content['format']}, which this version of fedrobust does not "
        "know; update fedrobust"
    )


def lines_of(path: Path, kind: type[T], then: str = "") -> tuple[T, ...]:
    """Return the JSON values of a file with one value per line. Raises: ``RecordError``."""
    found, text = [], text_of(path, then)
    try:
        bounded.require_room_for_json(text)
    except ValueError as error:
        raise unreadable(path, error, then) from error
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            found.append(shaped(kind, parsed(line)))
        except (ValueError, RecursionError, MemoryError) as error:
            raise broken(path, error, line=number, then=then) from error
    return tuple(found)


def rounds_of(path: Path, kind: type[T]) -> tuple[T, ...]:
    """Return the lines of a file with at most one per round, in order. Raises: ``RecordError``."""
    found = lines_of(path, kind)
    numbers = [cast("Any", line).round for line in found]
    if any(b <= a for a, b in pairwise(numbers)):
        raise broken(path, "its rounds are not in order")
    return found


def evaluations_of(path: Path, config: Mapping[str, Any]) -> tuple[Evaluation, ...]:
    """Return the evaluations in a metrics.jsonl; empty where there is no such file yet.

    Raises: ``RecordError`` where it is broken, or lacks an evaluation that was due.
    """
    found = rounds_of(path, Evaluation) if present(path) else ()
    evaluation, have = config.get("evaluation"), {e.round for e in found}
    every = evaluation.get("every") if isinstance(evaluation, Mapping) else None
    if found and type(every) is int and every > 0:
        due = range(every, found[-1].round + 1, every)
        if len(have) < len(due) and (lost := next((r for r in due if r not in have), 0)):
            raise broken(path, f"it lacks the evaluation of round {lost}")
    return found


def parsed(text: str) -> Any:
    """Parse strict JSON: no NaN, no infinity, no number that is too large, no nesting too deep.

    Raises: ``ValueError`` or ``RecursionError``.
    """
    value = json.loads(text, parse_constant=_refused, parse_float=_float, parse_int=_int)
    _require_workable(value)
    return value


def _refused(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _float(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"{shortened(digits, 30)} is too large a number")
    return value


def _int(digits: str) -> int:
    if len(digits) > 20 or not -_MOST <= (value := int(digits)) < _MOST:
        raise ValueError(f"{shortened(digits, 30)} is too large a number")
    return value


def _require_workable(value: Any, depth: int = 0) -> None:
    """Refuse nesting that is too deep, and text that cannot be written. Raises: ``ValueError``."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise ValueError("it holds half a character (a lone surrogate)") from error
    if not isinstance(value, dict | list):
        return
    if depth == _DEPTH:
        raise ValueError(f"it is nested more than {_DEPTH} deep")
    for item in _items(value):
        if isinstance(item, str | dict | list):
            _require_workable(item, depth + 1)


def _items(value: dict[Any, Any] | list[Any]) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from value
        yield from value.values()
    else:
        yield from value


@lru_cache
def _adapter(kind: Hashable) -> TypeAdapter[Any]:
    return TypeAdapter(cast("Any", kind))


def shaped(kind: type[T], value: Any) -> T:
    """Return ``value`` as a ``kind`` of the schema. Raises: ``ValueError`` that names the key."""
    try:
        found: T = _adapter(cast("Hashable", kind)).validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]
        key = shortened(".".join(str(step) for step in first["loc"]), 100)
        raise ValueError(f"{key}: {first['msg']}" if key else first["msg"]) from error
    return found


def mapping_of(path: Path) -> dict[str, Any]:
    """Return the mapping of a YAML file. Raises: ``RecordError``."""
    text_of(path, most=4 * TEXT)  # its error says what to do about an unreadable file
    try:
        content = read_stored_yaml(path)
    except ConfigError as error:
        raise broken(path, str(error).replace(f"{path} ", "it ", 1)) from error
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise broken(path, "it is not a mapping of keys to values")
    return content


def arrays_of(path: Path, *names: str) -> dict[str, NDArray[Any]]:
    """Return the numeric arrays of these ``names`` in an .npz file. Raises: ``RecordError``."""
    try:
        file = bounded.opened(path, _ARRAYS)
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from error
    try:
        with file:
            found = arrays_in(file, min(_ARRAYS, bounded.room()), names)
    except ValueError as error:
        raise broken(path, error) from error
    for name, array in found.items():
        if array.dtype.kind not in "biuf":
            raise broken(path, f"{name} is no array of numbers")
    return found


def tensors_of(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a .safetensors file. Raises: ``RecordError``."""
    content = content_of(path)
    try:
        found: dict[str, Tensor] = load(content)
    except Exception as error:  # a damaged file fails in many ways
        raise broken(path, f"it cannot be read: {why(error)}") from error
    return found


def fill(model: nn.Module, path: Path) -> None:
    """Load the tensors of a run's file into ``model``, the network of the run.

    Raises: ``RecordError`` for a file that is broken, or that belongs to another network.
    """
    found = tensors_of(path)
    if lacks := unlike(found, model.state_dict()):
        raise RecordError(f"{path} holds the weights of another network: {lacks}; {cure(path)}")
    model.load_state_dict(found)


def unlike(found: Mapping[str, Tensor], wanted: Mapping[str, Any]) -> str:
    """Return the first difference between tensors and a network's; empty where there is none."""
    for name in wanted:
        if name not in found:
            return f"there is no {shortened(name)}"
        there, here = list(found[name].shape), list(wanted[name].shape)
        if there != here:
            return f"{shortened(name)} is {shortened(str(there))} there, {here} in the network"
        kind, other = found[name].dtype, wanted[name].dtype
        if (kind.is_floating_point, kind.is_complex) != (other.is_floating_point, other.is_complex):
            return f"{shortened(name)} is of {kind} there, of {other} in the network"
    more = next((name for name in found if name not in wanted), None)
    return "" if more is None else f"the network has no {shortened(more)}"
