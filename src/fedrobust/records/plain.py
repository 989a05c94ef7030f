"""Turn what a user's object reports into data that a file can hold, and name what is left out.

A run may last for days, and an attack's own report comes at its end. An error in the report must
not cost the results of the run.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from itertools import islice
from pathlib import PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fedrobust.config.arguments import told, unfit
from fedrobust.config.text import shortened
from fedrobust.typing import Json

_DEPTH = 32
_NUMBERS = 100_000
"""The largest number of entries of an array that is written as JSON."""
_TOLD = 10
_NOTHING = object()


def plain_json(value: object, where: str) -> tuple[Any, list[str]]:
    """Return ``value`` as JSON, and a text for each part that was left out or changed.

    Tensors and arrays become lists, sets become sorted lists, NumPy numbers become Python numbers,
    and dataclasses become mappings. A number that is not finite becomes None. Anything else is left
    out. ``where`` is the name of the value in the texts.
    """
    lost: list[str] = []
    found = _plain(value, where, lost, 0)
    return (None if found is _NOTHING else found), _few(lost)


def _few(lost: list[str]) -> list[str]:
    more = [f"and {len(lost) - _TOLD} more of this kind"] if len(lost) > _TOLD else []
    return [*lost[:_TOLD], *more]


def _plain(value: Any, where: str, lost: list[str], depth: int) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, np.ndarray | Tensor):
        value = _listed(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str | PurePath):
        return _text(str(value))
    if isinstance(value, int):
        if -(2**63) <= value < 2**63:
            return int(value)
        lost.append(f"{where} is too large a number, and was left out")
        return _NOTHING
    if isinstance(value, float):
        if math.isfinite(value):
            return float(value)
        lost.append(f"{where} is {value}, which no record holds: it stands there as null")
        return None
    if depth == _DEPTH:
        lost.append(f"{where} is nested more than {_DEPTH} deep, and was cut off there")
        return _NOTHING
    if is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in fields(value)}
    if isinstance(value, Mapping):
        return dict(_pairs(value, where, lost, depth))
    if isinstance(value, set | frozenset):
        value = sorted(value, key=lambda item: (type(item).__name__, repr(item)))
        value = sorted(value) if all(isinstance(item, int | float) for item in value) else value
    if isinstance(value, list | tuple):
        items = [_plain(v, f"{where}[{i}]", lost, depth + 1) for i, v in enumerate(value)]
        return [None if item is _NOTHING else item for item in items]
    lost.append(f"{where} is {told(value)}, which no record holds: it was left out")
    return _NOTHING


def _pairs(
    value: Mapping[Any, Any], where: str, lost: list[str], depth: int
) -> Iterator[tuple[str, Any]]:
    for key, item in value.items():
        name = _text(str(key))
        found = _plain(item, f"{where}.{shortened(name, 40)}", lost, depth + 1)
        if found is not _NOTHING:
            yield name, found


def _text(text: str) -> str:
    """Return ``text`` with lone surrogates, which no file holds, replaced by question marks."""
    return text.encode("utf-8", "replace").decode()


def _listed(value: Any) -> Any:
    """Return an array or tensor as lists; as it is where it is not numeric or too large."""
    array = _array(value)
    return value if array is None or array.size > _NUMBERS else array.tolist()


def _array(value: object) -> NDArray[Any] | None:
    """Return ``value`` as an array of numbers; None where it is not one."""
    if isinstance(value, Tensor):
        if unfit(value):
            return None
        tensor = value.detach().cpu()
        # NumPy has no bfloat16.
        value = (
            tensor.float() if tensor.is_floating_point() and tensor.itemsize < 4 else tensor
        ).numpy()
    try:
        array = np.asarray(value)
    except ValueError:  # lists of unequal lengths
        return None
    return array if array.dtype.kind in "biuf" else None


def plain_arrays(value: object, where: str) -> tuple[dict[str, NDArray[Any]] | None, list[str]]:
    """Return a mapping of names to arrays as an .npz file holds it, and what was left out.

    The mapping is None where it would be empty.
    """
    if value is None:
        return None, []
    if not isinstance(value, Mapping):
        return None, [f"{where} are {told(value)}, not a mapping of arrays: they were left out"]
    found, lost = dict[str, NDArray[Any]](), list[str]()
    for key, item in value.items():
        array = _array(item)
        name = _text(str(key))
        if array is None or not name or set("/\\\0") & set(name):
            what = f"{where}.{shortened(name, 40)}"
            lost.append(
                f"{what} is {told(item)}, which an .npz file does not hold: it was left out"
            )
        else:
            found[name] = array
    return found or None, _few(lost)


def attack_report(say: Callable[[], object]) -> Json | None:
    """Return an attack's own report, which ``say`` gives, as JSON; None where it gives none.

    Where ``say`` fails, or returns something that no record can hold, the report's ``troubles`` say
    what was left out.
    """
    try:
        value = say()
        if value is None:
            return None
        if not isinstance(value, Mapping):
            return {"troubles": [f"its report is {told(value)}, not a mapping: it was left out"]}
        found, lost = plain_json(value, "its report")
    except (Exception, SystemExit) as error:  # an attack of a user's own may fail in any way
        return {"troubles": [_failed("report", error)]}
    own = found.pop("troubles", None) or []
    texts = own if isinstance(own, list) else [own]
    troubles = [*(text if isinstance(text, str) else repr(text) for text in texts), *lost]
    return {**found, "troubles": troubles} if troubles or "troubles" in value else found


def attack_pictures(
    show: Callable[[], object],
) -> tuple[dict[str, NDArray[Any]] | None, list[str]]:
    """Return the arrays that an attack's ``show`` gives (None without any), and what was lost."""
    try:
        return plain_arrays(show(), "its pictures")
    except (Exception, SystemExit) as error:  # an attack of a user's own may fail in any way
        return None, [_failed("pictures", error)]


def _failed(what: str, error: BaseException) -> str:
    reason = " ".join(islice(str(error).split(), 60))
    return f"its {what} failed and left nothing: {type(error).__name__}: {shortened(reason, 300)}"
