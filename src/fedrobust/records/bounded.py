"""Reading files that somebody else may have made: it ends, and takes no more memory than there is.

What is no regular file is not read, since a pipe may keep its reader waiting and a device may never
end. What is larger than it can be, or than this machine can hold, is not read either.
"""

import os
import stat
from pathlib import Path
from typing import IO

from fedrobust import files
from fedrobust.compute.memory import available_memory
from fedrobust.config.arguments import shortened
from fedrobust.config.explain import printable

TEXT = 2**30
"""The most bytes of a record of text: 3,000 times as many as the largest of ours."""
_SMALL = 2**24
"""Of so many bytes it is not asked whether there is memory for them."""


def room() -> int:
    """How many bytes may be read: half of the free memory, since what is read is worked with."""
    return available_memory("cpu") // 2


def opened(path: Path, most: int | None = None) -> IO[bytes]:
    """A regular file, open for reading, of at most ``most`` bytes, and no more than :func:`room`.

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
    """The bytes of a file, as :func:`opened` opens it. Raises: ``OSError`` or ``ValueError``."""
    with opened(path, most) as file:
        try:
            parts = [file.read(os.fstat(file.fileno()).st_size)]
            while more := file.read(2**16):  # it grows, or does not tell its size
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

    Three bytes, ``[],``, become a list of 64. What each sign stands for is counted, at its most.
    """
    if len(text) <= _SMALL // 16:
        return
    # A sign of another script may make each of its text take four bytes, twice.
    each = 3 if text.isascii() and not _count(text, "\\") else 9
    costs = {",": 32, "[": 64, "{": 240, ":": 60, '"': 30, "\n": 60}
    needed = each * len(text) + sum(cost * _count(text, sign) for sign, cost in costs.items())
    if needed > (free := 2 * room()):
        raise ValueError(f"its values take {needed:,} bytes, and there is memory for {free:,}")


def _count(text: bytes | str, sign: str) -> int:
    return text.count(sign) if isinstance(text, str) else text.count(sign.encode())


def named(path: Path | str) -> str:
    """A path as a message can carry it: in one line, its end where it is too long."""
    text = printable(str(path), keep="")
    return text if len(text) <= 1000 else f"…{text[-500:]}"


def why(error: object) -> str:
    """A reason in one line: other libraries print whole files, over many."""
    if isinstance(error, RecursionError):
        return "it is nested too deep"
    if isinstance(error, MemoryError):
        return "there is not enough memory for it"
    told = files.reason(error) if isinstance(error, OSError) else str(error)
    text = printable(" ".join(told.split()), keep="")
    return shortened(text, 300) if text else type(error).__name__
