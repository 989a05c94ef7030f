"""Read arrays from .npz files, and check each header against the file before taking memory.

An .npz is a zip archive of .npy files, and each of them announces a shape. A few hundred bytes can
announce 10¹⁵ values, or unpack into them.
"""

import io
import math
import struct
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, Any, cast

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from fedrobust.config.text import shortened
from fedrobust.records.bounded import why

Arrays = dict[str, NDArray[Any]]

_HEADER = 10_000
"""The largest header of an array in bytes, which is NumPy's own limit."""
_GULP = 2**20
"""The most bytes that are read at once. A zip directory of this size names 10,000 arrays."""
_DEFLATED = 1032
"""The most bytes that one compressed byte can unpack into (zlib's own documentation)."""
_LENGTHS = {(1, 0): "<H", (2, 0): "<I"}
"""The encoding of the header's length by version of the format. Version 3 is for named fields."""


def arrays_in(file: IO[bytes], most: int, names: Sequence[str] = ()) -> Arrays:
    """Return the arrays of these ``names`` in an .npz file, or all, of at most ``most`` bytes.

    Raises: ``ValueError`` for a file that is damaged, is no .npz, or holds Python objects.
    """
    try:
        if file.read(6) == npy.MAGIC_PREFIX:
            raise ValueError("it is a single array, not an .npz file")
        size = file.seek(0, io.SEEK_END)
        with zipfile.ZipFile(cast("IO[bytes]", _Sparing(file))) as archive:
            return _arrays(archive, size, most, names)
    except Exception as error:  # a damaged archive fails in many ways
        raise ValueError(why(error)) from error


class _Sparing:
    """A file that reads little at once, whatever size a zip's directory gives for itself."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable

    def read(self, count: int = -1) -> bytes:
        if count > _GULP:
            raise ValueError(f"its directory has {count:,} bytes, too many for an .npz")
        return self._file.read(count)


@dataclass(frozen=True)
class _Member:
    """One array of an archive, as its header announces it.

    The values come after the first ``start`` bytes of ``info``, and have this shape.
    """

    info: zipfile.ZipInfo
    start: int
    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[Any]

    @property
    def size(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def _arrays(archive: zipfile.ZipFile, size: int, most: int, names: Sequence[str]) -> Arrays:
    there: dict[str, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        name = info.filename.removesuffix(".npy")
        if name in there:
            raise ValueError(f"it holds {shortened(name)} twice")
        if name != info.filename:
            there[name] = info
    members, total = {}, 0
    for name in names or there:
        if name not in there:
            raise ValueError(f"it holds no {shortened(name)}")
        try:
            members[name] = _member(archive, there[name], size)
        except Exception as error:
            raise ValueError(f"{shortened(name)}: {why(error)}") from error
        total += members[name].size
        if total > most:
            raise ValueError(
                f"{shortened(name)} is {shortened(str(list(members[name].shape)))}, and with it "
                f"the arrays take {total:,} bytes, where there is room for {most:,}"
            )
    return {name: _values(archive, member) for name, member in members.items()}


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, size: int) -> _Member:
    """Read the header of an array and check it against the size. Raises: ``ValueError``."""
    if info.flag_bits & 1:
        raise ValueError("it is encrypted")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError("it is compressed in another way than an .npz is")
    fold = _DEFLATED if info.compress_type == zipfile.ZIP_DEFLATED else 1
    if info.compress_size > size or info.file_size > fold * info.compress_size:
        raise ValueError(f"it claims to have {info.file_size:,} bytes, which is impossible")
    with archive.open(info) as part:
        if part.read(6) != npy.MAGIC_PREFIX:
            raise ValueError("it is not an array")
        version = cast("tuple[int, int]", tuple(part.read(2)))
        if version not in _LENGTHS:
            raise ValueError("it is an array of fields, or of another version of NumPy's format")
        told = part.read(struct.calcsize(_LENGTHS[version]))
        (length,) = struct.unpack(_LENGTHS[version], told)
        if length > _HEADER:
            raise ValueError(f"its header is of {length:,} bytes, and none has over {_HEADER:,}")
        header = io.BytesIO(told + part.read(length))
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, fortran, dtype = read(header, max_header_size=_HEADER)
    found = _Member(info, 8 + len(told) + length, shape, fortran, dtype)
    _require_plain(found)
    return found


def _require_plain(found: _Member) -> None:
    """Refuse anything but numbers and texts, and a wrong size. Raises: ``ValueError``."""
    dtype, shape = found.dtype, found.shape
    if dtype.hasobject:
        raise ValueError("it holds Python objects, which are not read")
    if dtype.names is not None or dtype.subdtype is not None or not dtype.itemsize:
        raise ValueError(f"it is an array of {shortened(str(dtype))}, which is not read")
    if any(type(length) is not int or length < 0 for length in shape):
        raise ValueError(f"its shape is {shortened(str(shape))}")
    there = found.info.file_size - found.start
    if found.size != there:
        raise ValueError(
            f"it claims to be {shortened(str(list(shape)))} of {shortened(str(dtype))}, which "
            f"takes {shortened(str(found.size))} bytes, but it has {there:,}"
        )


def _values(archive: zipfile.ZipFile, member: _Member) -> NDArray[Any]:
    raw = np.empty(member.size, np.uint8)
    with archive.open(member.info) as part:
        part.read(member.start)
        at = 0
        while at < len(raw) and (found := part.read(_GULP)):
            raw[at : at + len(found)] = np.frombuffer(found, np.uint8)
            at += len(found)
        if at < len(raw) or part.read(1):  # this read also compares the checksum
            raise ValueError(f"{shortened(member.info.filename)} has another size than it claims")
    values = raw != 0 if member.dtype.kind == "b" else raw.view(member.dtype)
    if member.fortran:
        return values.reshape(member.shape[::-1]).T
    return values.reshape(member.shape)
