"""Files that announce what they do not hold, or hold what nobody could take in."""

import gzip
import io
import struct
import tarfile
import zipfile
from typing import Any

import numpy as np


def npy(shape: Any, descr: Any = "|u1", data: bytes = b"", fortran: bool = False) -> bytes:
    """An .npy file with this header, whatever it says."""
    text = repr({"descr": descr, "fortran_order": fortran, "shape": shape})
    header = text.ljust(118 - 1).encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data


def zipped(*members: tuple[str, bytes], deflated: bool = True) -> bytes:
    buffer = io.BytesIO()
    kind = zipfile.ZIP_DEFLATED if deflated else zipfile.ZIP_STORED
    with zipfile.ZipFile(buffer, "w", kind) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return buffer.getvalue()


def with_directory(content: bytes, **change: int) -> bytes:
    """The archive with other numbers in the directory's first entry."""
    places = {
        "flags": (8, "<H"),
        "method": (10, "<H"),
        "compressed": (20, "<I"),
        "size": (24, "<I"),
    }
    at = content.index(b"PK\x01\x02")
    changed = bytearray(content)
    for name, value in change.items():
        place, form = places[name]
        struct.pack_into(form, changed, at + place, value)
    return bytes(changed)


def with_end(content: bytes, **change: int) -> bytes:
    """The archive with other numbers in its last record."""
    places = {
        "entries": (10, "<H"),
        "size": (12, "<I"),
        "offset": (16, "<I"),
        "comment": (20, "<H"),
    }
    at = content.rindex(b"PK\x05\x06")
    changed = bytearray(content)
    for name, value in change.items():
        place, form = places[name]
        struct.pack_into(form, changed, at + place, value)
    return bytes(changed)


def archive(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for info, content in members:
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return gzip.compress(buffer.getvalue(), 1)


def named(name: str, kind: bytes = tarfile.REGTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.linkname = "/dev/zero"
    return info


def images(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.uint8)
