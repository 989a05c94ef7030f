"""Write files whole or not at all, and let only one process at a time write to a folder.

This module writes every record of a run, a sweep, an audit, a policy or a report. It follows no
link, so it changes nothing outside the folder. Files that a kill leaves behind are recognised by
their names.
"""

import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import filelock

from fedrobust.errors import ConfigError, RecordError, WriteError

LOCK = ".lock"
_TRIES = 100
"""How often a folder is made that others remove as they fail. Some places, as /proc, take none."""

_PART = re.compile(r"\..+\.[0-9a-f]{16}\.part")
_OLDER_PART = re.compile(
    r"\.(config\.yaml|checkpoint\.pt|(environment|summary|sweep)\.json|(metrics|rounds)\.jsonl|"
    r"(model|best)\.safetensors|(examples|attack)\.npz)\.part"
    r"|(progress\.jsonl|audit\.json)\.part"
    r"|\.index\.html\.[a-z0-9_]{8}"
)
"""The names of unfinished files in earlier versions."""
_NO_LINKS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


def is_leftover(name: str) -> bool:
    """Whether this is the name of a folder's lock, or of a file that a kill may leave behind."""
    return name == LOCK or _is_part(name)


def _is_part(name: str) -> bool:
    return bool(_PART.fullmatch(name) or _OLDER_PART.fullmatch(name))


def listing(folder: Path) -> list[str]:
    """Return the names in ``folder``, sorted, without leftovers. Raises: ``OSError``."""
    return sorted(name for name in os.listdir(folder) if not is_leftover(name))


def clear(folder: Path, of: Path | None = None) -> None:
    """Remove the files that a kill left in ``folder``. No other process may write to the folder.

    If other files may be written at the same time, give ``of``: then only the leftovers of that
    file are removed.

    Raises: ``RecordError`` where they cannot be removed.
    """
    ours = _is_part if of is None else _part_of(of).fullmatch
    try:
        for name in os.listdir(folder):
            if ours(name) and not (path := folder / name).is_dir():
                path.unlink(missing_ok=True)
    except OSError as error:
        why = reason(error)
        raise RecordError(f"cannot remove what a kill left in {folder}: {why}") from error


def _part_of(path: Path) -> re.Pattern[str]:
    return re.compile(rf"{re.escape(_begin(path))}[0-9a-f]{{16}}\.part")


def _begin(path: Path) -> str:
    """Return the beginning of the names of new files that will replace ``path``."""
    return f".{path.name[:60]}."


@contextmanager
def held(folder: Path, busy: str, *, remove: bool = False, wait: bool = False) -> Iterator[None]:
    """Make ``folder``, and let only this process write to it within the context.

    The caller calls :func:`clear` after checking that the folder is its own. ``remove`` deletes the
    lock file at the end. ``wait`` waits for another process that holds the folder. A folder that is
    made here is removed again if the context fails before anything is in it; whoever waits for it
    makes it again.

    Raises: ``RecordError``, with the text ``busy`` where another process holds the folder.
    """
    try:
        lock, made = _locked(folder, wait)
    except filelock.Timeout as error:
        raise RecordError(f"{busy}: wait for it") from error
    except (OSError, ValueError) as error:
        why = reason(error)
        raise WriteError(f"cannot write to {folder}: {why}; choose another --out") from error
    empty = False
    try:
        yield
    except BaseException:
        empty = bool(made) and os.path.isdir(folder) and os.listdir(folder) == [LOCK]
        raise
    finally:
        if remove or empty:
            with suppress(OSError):
                (folder / LOCK).unlink()
        lock.release()
        if empty:
            remove_empty(made)


def _locked(folder: Path, wait: bool) -> tuple[filelock.BaseFileLock, list[Path]]:
    """Make ``folder`` and lock it; return the lock, and the folders that were made.

    Another process that fails may remove the folder meanwhile: it is then made again.
    """
    for _ in range(_TRIES - 1):
        with suppress(FileNotFoundError):
            return _locked_if_kept(folder, wait)
    return _locked_if_kept(folder, wait)


def _locked_if_kept(folder: Path, wait: bool) -> tuple[filelock.BaseFileLock, list[Path]]:
    path = folder / LOCK
    made = [each for each in (folder, *folder.parents) if not os.path.lexists(each)]
    folder.mkdir(parents=True, exist_ok=True)
    if os.path.lexists(path) and not stat.S_ISREG(path.lstat().st_mode):
        raise RecordError(f"{path} is not a regular file, so it is not our lock: remove it")
    lock = filelock.FileLock(path)
    lock.acquire(timeout=-1 if wait else 0)
    return lock, made


def remove_empty(folders: Sequence[Path]) -> None:
    """Remove folders, the inner ones first; one that is used by now stays."""
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()


def atomically(path: Path, write: Callable[[IO[bytes]], object], *, sync: bool = True) -> None:
    """Fill ``path`` so that a reader always sees either the whole old or the whole new content.

    The new content goes into a new file beside ``path``, which then replaces it. A link at ``path``
    is replaced and not followed. Without ``sync`` it is not waited for the disk: a machine that
    fails may then lose the content.

    Raises: ``WriteError`` where it cannot be written; the old content is then still there.
    """
    part = path.with_name(f"{_begin(path)}{secrets.token_hex(8)}.part")
    try:
        number = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_LINKS, 0o666)
        try:
            with os.fdopen(number, "wb") as file:
                write(file)
                file.flush()
                if sync:
                    os.fsync(file.fileno())
            os.replace(part, path)
        except BaseException:
            with suppress(OSError):
                part.unlink()
            raise
        if sync:
            _sync(path.parent)
    except OSError as error:
        raise WriteError(f"cannot write {path}: {reason(error)}") from error


def require_new(path: Path) -> None:
    """Make the folder of a new file.

    Raises: ``ConfigError`` where the file exists, or where it cannot be written.
    """
    try:
        there = path.exists() or path.is_symlink()
        if not there:
            path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error}; choose another file") from error
    if there:
        raise ConfigError(f"{path} exists: choose another file")


def written(path: Path, text: str) -> None:
    """Fill ``path`` with ``text``, whole or not at all. Raises: ``WriteError``."""
    atomically(path, lambda file: file.write(text.encode()))


def let_go(folder: Path, seconds: float) -> bool:
    """Wait until no process holds ``folder``, or until the ``seconds`` are over; say whether.

    On a disk that machines share, the lock of a machine that died is kept for a while.
    """
    try:
        with filelock.FileLock(folder / LOCK, timeout=seconds):
            return True
    except filelock.Timeout:
        return False
    except OSError:
        return True  # the caller opens the folder next, and says what is wrong with it


@contextmanager
def appending(path: Path, size: int) -> Iterator[IO[bytes]]:
    """Open ``path`` to write after its first ``size`` bytes; the bytes after them are cut off.

    When the context ends, the new content is on the disk. A file with a second name elsewhere (a
    hard link) is copied first, so that the other one stays as it is.

    Raises: ``WriteError`` where it cannot be written, is not a regular file (a link, for example),
    or has become shorter than ``size``.
    """
    try:
        with os.fdopen(_alone(path), "r+b") as file:
            there = os.fstat(file.fileno()).st_size
            if there < size:
                raise OSError("another process has changed it")
            if there > size:
                file.truncate(size)
            file.seek(size)
            yield file
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise WriteError(f"cannot write {path}: {reason(error)}") from error


def _alone(path: Path) -> int:
    """Open a regular file that has no other name; return its descriptor. Raises: ``OSError``."""
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NONBLOCK", 0) | _NO_LINKS
    if path.is_symlink():
        raise OSError("it is a link: remove it")
    number = os.open(path, flags, 0o666)
    found = os.fstat(number)
    if stat.S_ISREG(found.st_mode) and found.st_nlink == 1:
        return number
    try:
        if not stat.S_ISREG(found.st_mode):
            raise OSError("it is no regular file: remove it")
        with os.fdopen(os.dup(number), "rb") as there:
            atomically(path, lambda file: shutil.copyfileobj(there, file))
    finally:
        os.close(number)
    return os.open(path, flags, 0o666)


def opened(path: Path) -> IO[bytes]:
    """Open a regular file for reading. Refuse a pipe or a device, which may never end.

    Raises: ``OSError``.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    number = os.open(path, flags)
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise OSError("it is no regular file")
    return os.fdopen(number, "rb")


def _sync(folder: Path) -> None:
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def reason(error: Exception) -> str:
    """Return why a file could not be written or read, in the words of the operating system."""
    return getattr(error, "strerror", None) or str(error)
