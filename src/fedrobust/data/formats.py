"""Read the file formats that public data sets come in. No file is ever unpickled freely."""

import io
import json
import pickle
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedrobust.data.catalogue import BATCHES
from fedrobust.errors import DataError

NpArray = NDArray[Any]

_UNREADABLE = (
    *(pickle.UnpicklingError, AttributeError, EOFError, ImportError, LookupError),
    *(OverflowError, RuntimeError, TypeError, ValueError),
)
"""What reading a broken pickle, or a pickle of something else, may end in."""


def idx(content: bytes, what: str) -> Tensor:
    """The uint8 array of an IDX file. Raises: ``DataError`` naming ``what`` and the mistake.

    The format: two zero bytes, 8 for unsigned bytes, the number of dimensions, each dimension as a
    big-endian 32-bit number, then the values.
    """
    dimensions = content[3] if len(content) > 3 else 0
    header = 4 + 4 * dimensions
    if content[:3] != b"\0\0\x08" or len(content) < header:
        raise DataError(f"{what} is not an IDX file of unsigned bytes")
    shape = struct.unpack(f">{dimensions}I", content[4:header])
    values = np.frombuffer(content, np.uint8, offset=header)
    if len(values) != int(np.prod(shape)):
        raise DataError(f"{what} has {len(values)} values where its header announces {shape}")
    return torch.from_numpy(values.reshape(shape).copy())


def npz(content: bytes, what: str) -> dict[str, NpArray]:
    """The arrays of an .npz file; pickled objects in it are refused. Raises: ``DataError``."""
    try:
        arrays = np.load(io.BytesIO(content), allow_pickle=False)
        if not isinstance(arrays, np.lib.npyio.NpzFile):
            raise DataError(f"{what} is a single array, not an .npz file")
        return {key: arrays[key] for key in arrays.files}
    except (zipfile.BadZipFile, zlib.error, ValueError, EOFError, OSError) as error:
        raise DataError(f"{what} cannot be read as an .npz file: {error}") from error


def required(arrays: dict[str, NpArray], names: Sequence[str], what: str) -> list[NpArray]:
    """The arrays ``names``. Raises: ``DataError`` listing those that are missing."""
    missing = [name for name in names if name not in arrays]
    if missing:
        there = ", ".join(arrays) or "nothing"
        raise DataError(f"{what} has no {', '.join(missing)}; it holds {there}")
    return [arrays[name] for name in names]


def cifar_python(batch: bytes, what: str) -> tuple[Tensor, Tensor]:
    """Pixels uint8 [N, 3, 32, 32] and labels int64 [N] of a batch of the python version."""
    try:
        content = _Batch(io.BytesIO(batch), encoding="bytes").load()
        pixels, labels = content[b"data"], content[b"labels"]
        return (
            torch.from_numpy(np.asarray(pixels, np.uint8).reshape(-1, 3, 32, 32).copy()),
            torch.tensor(labels, dtype=torch.int64),
        )
    except _UNREADABLE as error:
        raise DataError(f"{what} is not a CIFAR-10 batch: {error}") from error


def cifar_binary(batch: bytes, what: str) -> tuple[Tensor, Tensor]:
    """The same of the binary version: one byte of label, 3,072 of pixels for each image."""
    if not batch or len(batch) % 3073:
        raise DataError(f"{what} is not a CIFAR-10 batch: {len(batch)} bytes, no multiple of 3,073")
    rows = torch.frombuffer(bytearray(batch), dtype=torch.uint8).view(-1, 3073)
    return rows[:, 1:].reshape(-1, 3, 32, 32), rows[:, 0].long()


def cifar_archive(archive: bytes, what: str) -> list[bytes]:
    """The six batches in a CIFAR-10 archive, the test batch last. Nothing is unpacked to disk."""
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as members:
            for member in members:
                batch = member.name.rpartition("/")[2].removesuffix(".bin")
                content = members.extractfile(member) if batch in BATCHES else None
                if content is not None:
                    found[batch] = content.read()
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise DataError(f"{what} is not a complete archive: {error}") from error
    missing = [batch for batch in BATCHES if batch not in found]
    if missing:
        raise DataError(f"{what} has no {', '.join(missing)}")
    return [found[batch] for batch in BATCHES]


def leaf(content: bytes, what: str) -> list[tuple[str, NpArray, NpArray]]:
    """(user, pixels uint8 [N, 1, 28, 28], labels int64 [N]) of every user in a LEAF json file.

    LEAF writes each image as 784 numbers in [0, 1], which are multiples of 1/255.
    """
    try:
        users = json.loads(content)["user_data"]
        return [(str(user), *_leaf_user(data)) for user, data in users.items()]
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{what} is not a LEAF FE-MNIST file: {error}") from error


def _leaf_user(data: Any) -> tuple[NpArray, NpArray]:
    pixels = np.asarray(data["x"], np.float64).reshape(len(data["x"]), 1, 28, 28)
    labels = np.asarray(data["y"])
    if len(labels) != len(pixels) or (len(labels) and labels.dtype.kind not in "iu"):
        raise ValueError(f"{len(pixels)} images with {len(labels)} labels of type {labels.dtype}")
    if not ((pixels >= 0) & (pixels <= 1)).all():
        raise ValueError("pixels outside [0, 1]")
    return np.rint(255 * pixels).astype(np.uint8), labels.astype(np.int64)


# numpy's own function, wherever its version keeps it.
_RECONSTRUCT = np.zeros(0).__reduce__()[0]


class _Batch(pickle.Unpickler):
    """Reads the dictionaries of arrays and lists that CIFAR-10 batches are, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        """What rebuilds a numpy array, in the names of old and new numpy."""
        if (module.replace("_core", "core"), name) == ("numpy.core.multiarray", "_reconstruct"):
            return _RECONSTRUCT
        if (module, name) in {("numpy", "ndarray"), ("numpy", "dtype")}:
            return getattr(np, name)
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no batch needs")
