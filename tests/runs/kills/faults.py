"""Faults at the system calls that write: the n-th kills the process, or finds the disk full.

As SQLite tests itself: whatever a program does to the files under one folder is counted, and ended
at every count in turn. A call that writes kills amid its data, so that files are torn.
"""

import errno
import io
import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

_TOKEN = re.compile(r"\.[0-9a-f]{16}\.part$")
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
FREEING = {"unlink", "rmdir", "replace", "truncate"}
"""What a full disk allows."""

Count = Callable[[str, str], int]
"""Told what is done to which file; gives how many such calls there were, this one included."""


class Faults:
    """Counts, and at the count ``at`` kills the process group, or is ``full`` from then on.

    ``install`` changes this process for good.
    """

    def __init__(self, root: Path, count: Count, at: int = 0, full: bool = False) -> None:
        self.root, self._count, self._at, self._full = str(root.resolve()), count, at, full
        self._ours = False

    def install(self) -> None:
        """From here on."""
        self._real = {n: getattr(os, n) for n in ("open", "fdopen", "fsync", "mkdir", "rmdir")}
        for name in ("replace", "rename", "unlink", "remove", "truncate", "symlink", "link"):
            self._real[name] = getattr(os, name)
        for name in self._real:
            setattr(os, name, getattr(self, name, None) or self._plain(name))
        sys.addaudithook(self._seen)

    def _seen(self, event: str, arguments: tuple[Any, ...]) -> None:
        """No file under the root is opened for writing but by what is counted here."""
        if event == "open" and not self._ours and isinstance(arguments[0], str | bytes | Path):
            path, flags = os.fsdecode(arguments[0]), arguments[2]
            if isinstance(flags, int) and flags & _WRITES and self._under(path):
                os.write(2, f"{path} is opened for writing, not by fedrobust.files\n".encode())
                os._exit(99)

    def _under(self, path: Any) -> bool:
        return os.path.realpath(os.path.dirname(os.path.abspath(os.fsdecode(path)))).startswith(
            self.root
        )

    def _meet(self, call: str, path: Any) -> bool:
        """Whether this is where the process dies amid what it does."""
        name = _TOKEN.sub(".part", os.path.relpath(os.fsdecode(path), self.root))
        number = self._count(call, name)
        if self._full and number >= self._at > 0 and call not in FREEING:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), os.fsdecode(path))
        return not self._full and number == self._at

    def open(self, path: Any, flags: int, *arguments: Any, **more: Any) -> int:
        if flags & _WRITES and self._under(path):
            if not os.path.lexists(path) and self._meet("create", path):
                die()
            self._ours = True
        try:
            number: int = self._real["open"](path, flags, *arguments, **more)
        finally:
            self._ours = False
        return number

    def fdopen(self, number: int, mode: str = "r", *arguments: Any, **more: Any) -> Any:
        path = os.readlink(f"/proc/self/fd/{number}")
        if not set(mode) & {"w", "+", "a"} or not self._under(path):
            return self._real["fdopen"](number, mode, *arguments, **more)
        raw = _Raw(number, mode)
        raw.faults, raw.path = self, path
        return io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)

    def _plain(self, name: str) -> Callable[..., Any]:
        def call(path: Any, *arguments: Any, **more: Any) -> Any:
            shown = os.readlink(f"/proc/self/fd/{path}") if isinstance(path, int) else path
            named = {"remove": "unlink", "rename": "replace"}.get(name, name)
            acts = os.path.lexists(shown) == (name not in ("mkdir", "symlink"))
            if acts and self._under(shown) and self._meet(named, shown):
                die()
            return self._real[name](path, *arguments, **more)

        return call


class _Raw(io.FileIO):
    faults: Faults
    path: str

    def write(self, data: Any) -> int:
        if self.faults._meet("write", self.path):
            super().write(memoryview(data)[: len(data) // 2])
            die()
        return super().write(data)

    def truncate(self, size: int | None = None) -> int:
        if self.faults._meet("truncate", self.path):
            die()
        return super().truncate(size)


def die() -> NoReturn:
    """As from kill -9, for the whole group of processes."""
    os.killpg(0, signal.SIGKILL)
    os._exit(98)
