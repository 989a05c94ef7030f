"""Read files that somebody else may have made, in bounded time and memory.

Only regular files are read, since a pipe may keep its reader waiting and a device may never end. A
file is refused if it is too large for its kind, or too large for the memory of this machine.
"""

import os
import stat
from pathlib import Path
from typing import IO

from fedrobust import files
from fedrobust.compute.memory import available_memory
from fedrobust.config.text import printable, shortened

TEXT = 2**30
"""The most bytes of a text record: 3,000 times as many as fedrobust's largest record has."""
_SMALL = 2**24
"""The size in bytes up to which the free memory is not checked."""


def room() -> int:
    """Return how many bytes may be read: half of the free memory. The rest is for the work."""
    return available_memory("cpu") // 2


def opened(path: Path, most: int | None = None) -> IO[bytes]:
    """Open a regular file of at most ``most`` bytes, and at most :func:`room`, for reading.

    Raises: ``OSError`` or ``ValueError``, which say what is wrong (:func:`why`).
    """
    if not stat.S_ISREG(os.stat(path).st_mode):  # a device is not even opened
        raise OSError("it is no regular file")
    file = files.opened(path)
    try:
        _require_room(os.fstat(file.fileno()).st_size, most)
    except ValueError:
        file.close()
        raise
    return file


def contents(path: Path, most: int | None = None) -> bytes:
    """Return the bytes of a file, opened by :func:`opened`. Raises: ``OSError``, ``ValueError``."""
    with opened(path, most) as file:
        try:
            parts = [file.read(os.fstat(file.fileno()).st_size)]
            while more := file.read(2**16):  # the file grows, or does not report its size
                parts.append(more)
                _require_room(sum(map(len, parts)), most)
            return parts[0] if len(parts) == 1 else b"".join(parts)
        except (MemoryError, OverflowError) as error:
            raise ValueError(why(MemoryError())) from error


def _require_room(size: int, most: int | None) -> None:
    if most is not None and size > most:
        raise ValueError(f"it has {size:,} bytes, and no such file has more than {most:,}")
    if size > _SMALL and size > (free := room()):
        raise ValueError(f"it has {size:,} bytes, and there is memory for {free:,}")


def require_room_for_json(text: bytes | str) -> None:
    """Refuse JSON whose values would not fit into memory. Raises: ``ValueError``.

    The three bytes ``[],`` become a list of 64 bytes. The estimate counts each character at the
    most memory that it can stand for.
    """
    if len(text) <= _SMALL // 16:
        return
    # A character beyond ASCII may make each character of its text take four bytes, twice.
    each = 3 if text.isascii() and not _count(text, "\\") else 9
    costs = {",": 32, "[": 64, "{": 240, ":": 60, '"': 30, "\n": 60}
    needed = each * len(text) + sum(cost * _count(text, sign) for sign, cost in costs.items())
    if needed > (free := 2 * room()):
        raise ValueError(f"its values take {needed:,} bytes, and there is memory for {free:,}")


def _count(text: bytes | str, sign: str) -> int:
    return text.count(sign) if isinstance(text, str) else text.count(sign.encode())


def named(path: Path | str) -> str:
    """Return a path for a message: in one line, and only its end where it is too long."""
    text = printable(str(path), keep="")
    return text if len(text) <= 1000 else f"…{text[-500:]}"


def why(error: object) -> str:
    """Return a reason in one line. Other libraries may print whole files, over many lines."""
    if isinstance(error, RecursionError):
        return "it is nested too deep"
    if isinstance(error, MemoryError):
        return "there is not enough memory for it"
    told = files.reason(error) if isinstance(error, OSError) else str(error)
    text = printable(" ".join(told.split()), keep="")
    return shortened(text, 300) if text else type(error).__name__
