"""Read the file formats of public data sets. No file is ever unpickled without restrictions."""

import gzip
import io
import json
import math
import pickle
import struct
import tarfile
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedrobust.data import pickled
from fedrobust.data.catalogue import BATCHES
from fedrobust.errors import DataError
from fedrobust.records.bounded import require_room_for_json, room, why
from fedrobust.records.npz import arrays_in

NpArray = NDArray[Any]

FILE = 2**26
"""The most bytes of one file of MNIST, which has 47 MB, or CIFAR-10, which has 31 MB."""
_ARCHIVE = 2**28
"""The most bytes of an archive of CIFAR-10, which has 186 MB."""
_CLASSES = 62
"""The number of classes of FE-MNIST."""

_UNREADABLE = (
    *(pickle.UnpicklingError, AttributeError, EOFError, ImportError, LookupError, MemoryError),
    *(OverflowError, RuntimeError, TypeError, ValueError, AssertionError, struct.error),
)
"""The errors that a broken pickle, or a pickle of something else, may raise."""


def idx(content: bytes, what: str) -> Tensor:
    """Return the uint8 array of an IDX file. Raises: ``DataError`` with ``what`` and the mistake.

    The format: two zero bytes, 8 for unsigned bytes, the number of dimensions, each dimension as a
    big-endian 32-bit number, then the values.
    """
    dimensions = content[3] if len(content) > 3 else 0
    header = 4 + 4 * dimensions
    if content[:3] != b"\0\0\x08" or len(content) < header or not 0 < dimensions <= 4:
        raise DataError(f"{what} is not an IDX file of unsigned bytes")
    shape = struct.unpack(f">{dimensions}I", content[4:header])
    values = np.frombuffer(content, np.uint8, offset=header)
    if len(values) != math.prod(shape):
        raise DataError(f"{what} has {len(values)} values where its header announces {shape}")
    return torch.from_numpy(values.reshape(shape).copy())


def unzipped(content: bytes, most: int) -> bytes:
    """Return the content of a .gz file. Raises: ``ValueError``, ``OSError`` and others."""
    found = bytearray()
    with gzip.open(io.BytesIO(content)) as file:
        while part := file.read(2**20):
            found += part
            if len(found) > most:
                raise ValueError(f"it is larger than {most:,} bytes, the most for such a file")
    return bytes(found)


def npz(content: bytes, what: str) -> dict[str, NpArray]:
    """Return the arrays of an .npz file; pickled objects are refused. Raises: ``DataError``."""
    try:
        return arrays_in(io.BytesIO(content), room())
    except ValueError as error:
        raise DataError(f"{what} cannot be read as an .npz file: {error}") from error


def required(arrays: dict[str, NpArray], names: Sequence[str], what: str) -> list[NpArray]:
    """Return the arrays ``names``. Raises: ``DataError`` that lists the missing ones."""
    missing = [name for name in names if name not in arrays]
    if missing:
        there = ", ".join(arrays) or "nothing"
        raise DataError(f"{what} has no {', '.join(missing)}; it holds {there}")
    return [arrays[name] for name in names]


def cifar_python(batch: bytes, what: str) -> tuple[Tensor, Tensor]:
    """Return pixels uint8 [N, 3, 32, 32] and labels int64 [N] of a batch of the python version."""
    try:
        pixels, labels = pickled.batch(batch)
        x = torch.from_numpy(pixels.reshape(-1, 3, 32, 32).copy())
    except _UNREADABLE as error:
        raise DataError(f"{what} is not a CIFAR-10 batch: {why(error)}") from error
    if len(x) != len(labels):
        raise DataError(f"{what} has {len(x)} images and {len(labels)} labels")
    return x, torch.tensor(labels, dtype=torch.int64)


def cifar_binary(batch: bytes, what: str) -> tuple[Tensor, Tensor]:
    """Return the same for the binary version: for each image one byte of label, 3,072 of pixels."""
    if not batch or len(batch) % 3073:
        raise DataError(f"{what} is not a CIFAR-10 batch: {len(batch)} bytes, no multiple of 3,073")
    rows = torch.frombuffer(bytearray(batch), dtype=torch.uint8).view(-1, 3073)
    return rows[:, 1:].reshape(-1, 3, 32, 32), rows[:, 0].long()


def cifar_archive(archive: bytes, what: str) -> list[bytes]:
    """Return the six batches of a CIFAR-10 archive, the test batch last; nothing goes to disk."""
    found: dict[str, bytes] = {}
    try:
        content = io.BytesIO(unzipped(archive, _ARCHIVE))
        with tarfile.open(fileobj=content, mode="r:") as members:
            for member in members:
                batch = member.name.rpartition("/")[2].removesuffix(".bin")
                if batch not in BATCHES or not member.isfile():
                    continue
                if member.size > FILE or batch in found:
                    told = "more than once" if batch in found else f"with {member.size:,} bytes"
                    raise ValueError(f"it holds {batch} {told}")
                part = members.extractfile(member)
                found[batch] = b"" if part is None else part.read()
    except (tarfile.TarError, *_UNREADABLE, OSError, zlib.error) as error:
        raise DataError(f"{what} is not a complete archive: {why(error)}") from error
    missing = [batch for batch in BATCHES if batch not in found]
    if missing:
        raise DataError(f"{what} has no {', '.join(missing)}")
    return [found[batch] for batch in BATCHES]


def leaf(content: bytes, what: str) -> list[tuple[str, NpArray, NpArray]]:
    """Return (user, pixels uint8 [N, 1, 28, 28], labels int64 [N]) of each LEAF user.

    LEAF writes each image as 784 numbers in [0, 1], each a multiple of 1/255.
    """
    try:
        require_room_for_json(content)
        found = json.loads(content, parse_constant=_no_number, object_pairs_hook=_once)
        users = found["user_data"]
        rows = [(user, *_leaf_user(user, data)) for user, data in users.items()]
        _require_told(found, {user: len(labels) for user, _, labels in rows})
    except (*_UNREADABLE, RecursionError) as error:
        raise DataError(f"{what} is not a LEAF FE-MNIST file: {why(error)}") from error
    return rows


def _no_number(name: str) -> None:
    raise ValueError(f"it holds {name}, which is not a number")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("it holds a user or another key twice")
    return found


def _require_told(found: dict[str, Any], counts: dict[str, int]) -> None:
    """Require that the lists of users and of their sizes match the data. Raises: ``ValueError``."""
    users, sizes = found.get("users", list(counts)), found.get("num_samples")
    if not isinstance(users, list) or any(type(user) is not str for user in users):
        raise ValueError("its users are not a list of names")
    if len(set(users)) < len(users):
        raise ValueError("its users hold a name twice")
    if set(users) != counts.keys():
        raise ValueError("its users are not those of its user_data")
    if sizes is not None and sizes != [counts[user] for user in users]:
        raise ValueError("its num_samples are not how many images each of its users has")


def _leaf_user(user: str, data: Any) -> tuple[NpArray, NpArray]:
    pixels, labels = (np.asarray(_listed(data, key)) for key in ("x", "y"))
    user.encode()  # fails for half a character, which cannot be written
    if len(labels) != len(pixels):
        raise ValueError(f"{user} has {len(pixels)} images with {len(labels)} labels")
    if not len(labels):
        return np.zeros((0, 1, 28, 28), np.uint8), np.zeros(0, np.int64)
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        raise ValueError(f"{user} has labels of type {labels.dtype}")
    if not 0 <= labels.min() <= labels.max() < _CLASSES:
        raise ValueError(f"{user} has a label that is outside 0 to {_CLASSES - 1}")
    if pixels.dtype.kind not in "iuf" or pixels.shape != (len(labels), 784):
        raise ValueError(f"{user} has images of {pixels.dtype}, {list(pixels.shape)}")
    if not ((pixels >= 0) & (pixels <= 1)).all():
        raise ValueError(f"{user} has pixels outside [0, 1]")
    images = np.rint(255.0 * pixels).astype(np.uint8).reshape(-1, 1, 28, 28)
    return images, labels.astype(np.int64)


def _listed(data: Any, key: str) -> list[Any]:
    found = data[key]
    if not isinstance(found, list):
        raise TypeError(f"{key} is a {type(found).__name__}, not a list")
    return found
