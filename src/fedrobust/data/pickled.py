"""The python batches of CIFAR-10: pickles, read with only the instructions that a batch needs.

A pickle is a program. The few allowed instructions read its numbers and texts. Stand-ins for
NumPy's own functions read its one array; they take no more memory than the file has bytes.
"""

import io
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

_ALLOWED = tuple(
    getattr(pickle, name)
    for name in (
        *("PROTO", "FRAME", "STOP", "MARK", "NONE", "NEWTRUE", "NEWFALSE"),
        *("BININT", "BININT1", "BININT2", "EMPTY_DICT", "EMPTY_LIST", "EMPTY_TUPLE"),
        *("TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "APPEND", "APPENDS"),
        *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES"),
        *("BINUNICODE", "SHORT_BINUNICODE", "MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT"),
        *("GET", "BINGET", "LONG_BINGET", "GLOBAL", "STACK_GLOBAL", "REDUCE"),
    )
)


class _Array:
    """A stand-in for the array of a batch, which holds bytes."""

    values: NDArray[np.uint8]

    def __setstate__(self, state: Any) -> None:
        """Read NumPy's state: version, shape, type, whether in Fortran's order, and the bytes."""
        _, shape, kind, fortran, content = state
        lengths = isinstance(shape, tuple) and all(type(n) is int and n >= 0 for n in shape)
        if not isinstance(kind, _Bytes) or not isinstance(content, bytes) or not lengths:
            raise pickle.UnpicklingError("its array does not hold bytes")
        values = np.frombuffer(content, np.uint8)
        self.values = values.reshape(shape[::-1]).T if fortran else values.reshape(shape)


class _Bytes:
    """A stand-in for the type of that array."""

    def __init__(self, kind: Any, *_: Any) -> None:
        if kind not in (b"u1", "u1"):
            raise pickle.UnpicklingError(f"its array is of type {kind!r}"[:100])

    def __setstate__(self, state: Any) -> None:
        """Ignore the byte order: a single byte has only one."""


def _reconstructed(*_: Any) -> _Array:
    return _Array()


_KNOWN: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstructed,
    ("numpy", "ndarray"): _reconstructed,
    ("numpy", "dtype"): _Bytes,
}


_InPython: Any = pickle._Unpickler
"""The reader in pure Python: the other one allocates whatever memory a pickle announces."""


class _Batch(_InPython):  # type: ignore[misc]
    """Reads the dictionaries of arrays and lists that CIFAR-10 batches are, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        """Return the function that rebuilds a numpy array, in the names of old and new numpy."""
        found = _KNOWN.get((module.replace("_core", "core"), name))
        if found is None:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no batch needs")
        return found

    def _item(self) -> None:
        self._require_texts(self.stack[-2:-1])
        _InPython.dispatch[pickle.SETITEM[0]](self)

    def _items(self) -> None:
        self._require_texts(self.stack[::2])
        _InPython.dispatch[pickle.SETITEMS[0]](self)

    def _require_texts(self, keys: list[Any]) -> None:
        """Refuse keys that are not texts: others, such as nested tuples, may take for ever."""
        if not all(isinstance(key, bytes | str) for key in keys):
            raise pickle.UnpicklingError("its keys are not texts")

    def _build(self) -> None:
        if not isinstance(self.stack[-2], _Array | _Bytes):
            raise pickle.UnpicklingError("it sets what no batch sets")
        _InPython.dispatch[pickle.BUILD[0]](self)

    dispatch = {  # noqa: RUF012, as it is called there
        **{code[0]: _InPython.dispatch[code[0]] for code in _ALLOWED},
        pickle.SETITEM[0]: _item,
        pickle.SETITEMS[0]: _items,
        pickle.BUILD[0]: _build,
    }


def batch(content: bytes) -> tuple[NDArray[np.uint8], list[int]]:
    """Return pixels [N, 3072] and labels of a batch.

    Raises: ``ValueError``, or one of the many errors that a broken pickle may raise.
    """
    found = _Batch(io.BytesIO(content), encoding="bytes").load()
    if not isinstance(found, dict) or not isinstance(found.get(b"data"), _Array):
        raise ValueError("it holds no data")
    labels = found.get(b"labels")
    if not isinstance(labels, list) or any(type(n) is not int or not 0 <= n < 10 for n in labels):
        raise ValueError("its labels are not a list of numbers from 0 to 9")
    return found[b"data"].values, labels
