"""Find, check and fetch the files of the data sets.

Files are searched in the folders that the environment variable FEDROBUST_DATA names, then in the
cache (FEDROBUST_CACHE, or the user's cache folder), each in a folder with the data set's name.
Files that are in neither are downloaded into the cache. Content is checked whatever its source.
"""

import hashlib
import logging
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import platformdirs

from fedrobust.config.text import suggestion
from fedrobust.data.catalogue import CHECKSUMS, FORMS, IDX, ORIGINS
from fedrobust.data.download import Source, SourceError
from fedrobust.data.formats import FILE, unzipped
from fedrobust.errors import DataError
from fedrobust.records.bounded import contents, named, why

_LOG = logging.getLogger(__name__)

_NO_FILES = {
    "digits": "digits comes with scikit-learn: there is nothing to fetch",
    "npz": "npz reads a file of your own: there is nothing to fetch",
    "synthetic-ring": "synthetic-ring is generated: there is nothing to fetch",
}


@dataclass(frozen=True)
class Found:
    """A data set in one folder, in one of its forms."""

    name: str
    form: str
    root: Path
    paths: tuple[Path, ...]

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes for a report on files whose content has no known checksum."""
        known = CHECKSUMS[self.name]
        unknown = [path.name for path in self.paths if _key(self.root, path) not in known]
        more = f" and {len(unknown) - 1} more files" if len(unknown) > 1 else ""
        return (f"no checksum is known of {unknown[0]}{more}: not checked",) if unknown else ()

    def only(self) -> tuple[str, bytes]:
        """Return path and content of the only file. Raises: ``DataError`` where there are more."""
        if len(self.paths) > 1:
            names = ", ".join(path.name for path in self.paths)
            raise DataError(f"{self.root} holds {names}; keep only the one to use")
        return str(self.paths[0]), self.contents()[0]

    def contents(self) -> list[bytes]:
        """Return the bytes of each file, IDX files decompressed. Raises: ``DataError``."""
        return [_content(self.name, self.root, path) for path in self.paths]


def cache() -> Path:
    """Return the folder in which downloads are kept."""
    own = os.environ.get("FEDROBUST_CACHE")
    return _home(own, "FEDROBUST_CACHE") if own else platformdirs.user_cache_path("fedrobust")


def folders() -> list[Path]:
    """Return the folders of FEDROBUST_DATA. Raises: ``DataError`` where one does not exist."""
    names = os.environ.get("FEDROBUST_DATA", "").split(os.pathsep)
    given = [_home(name, "FEDROBUST_DATA") for name in names if name.strip()]
    for folder in given:
        if not os.path.isdir(folder):
            raise DataError(f"FEDROBUST_DATA names {named(folder)}, which is not a folder")
    return given


def _home(name: str, variable: str) -> Path:
    try:
        return Path(name).expanduser()
    except RuntimeError as error:  # ~ of an unknown user
        raise DataError(f"{variable} names {named(name)}: {why(error)}") from error


def find(name: str) -> Found | None:
    """Find ``name`` in the first folder that has all of it; nothing is downloaded or read."""
    for folder in (*folders(), cache()):
        root = folder / name
        for form, patterns in FORMS[name].items():
            matches = [_matches(root, pattern) for pattern in patterns]
            if all(matches):
                return Found(name, form, root, tuple(path for group in matches for path in group))
    return None


def ensure(name: str, report: Callable[[str], None] = _LOG.info) -> Found:
    """Find ``name``, after a download if needed. Raises: ``DataError`` as :func:`get`."""
    found = find(name)
    if found is None:
        _download(name, report)
        found = find(name)
    assert found is not None, f"downloaded {name}, but cannot find it"
    return found


def get(name: str, report: Callable[[str], None]) -> list[Path]:
    """Make sure that every file of ``name`` exists and is intact; report where each is.

    A corrupt file in the cache is downloaded again; in a folder of the user's it is an error.

    Raises: ``DataError`` for an unknown name, a corrupt file, or where all sources failed.
    """
    if name in _NO_FILES:
        report(_NO_FILES[name])
        return []
    if name not in FORMS:
        known = [*FORMS, *_NO_FILES]
        raise DataError(
            f"no data set {name!r}{suggestion(name, known)}; there are: {', '.join(known)}"
        )
    _clean_cache(name, report)
    found = ensure(name, report)
    found.contents()
    for path in found.paths:
        report(f"{path}: {'checksum correct' if not found.notes else 'present'}")
    for note in found.notes:
        report(note)
    return list(found.paths)


def _matches(root: Path, pattern: str) -> list[Path]:
    """Return the files that match ``pattern``: of an IDX file and its .gz, the first one."""
    try:
        if pattern in IDX:
            both = (root / pattern, root / f"{pattern}.gz")
            there = [path for path in both if os.path.lexists(path)]
            return sorted(there, key=lambda path: not path.is_file())[:1]
        # A path that is no regular file is returned too: the error comes when it is read.
        if "*" not in pattern:
            return [root / pattern] if os.path.lexists(root / pattern) else []
        return sorted(root.glob(pattern))
    except OSError as error:
        raise DataError(f"{named(root)} cannot be read: {why(error)}") from error


def _key(root: Path, path: Path) -> str:
    relative = path.relative_to(root).as_posix()
    plain = relative.removesuffix(".gz")
    return plain if plain in IDX else relative


class _CorruptError(Exception):
    """The reason why content is corrupt."""


def _content(name: str, root: Path, path: Path) -> bytes:
    try:
        return _verified(name, _key(root, path), _read(path))
    except _CorruptError as error:
        cure = "replace or remove it"
        if cache() in path.parents:
            cure = f"fedrobust data get {name} fetches it again"
        raise DataError(f"{path} is corrupt: {error}; {cure}") from error


def _read(path: Path) -> bytes:
    try:
        return contents(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{named(path)} cannot be read: {why(error)}") from error


def _verified(name: str, key: str, content: bytes) -> bytes:
    """Return ``content``, decompressed if it is an IDX file. Raises: ``_CorruptError``."""
    expected = CHECKSUMS[name].get(key)
    md5 = expected is not None and len(expected) == 32
    algorithm, label = ("md5", "MD5") if md5 else ("sha256", "SHA-256")
    what = "its content"
    # Checked by content, not by name: browsers may save a .gz file decompressed.
    if key in IDX and content.startswith(b"\x1f\x8b"):
        try:
            content = unzipped(content, FILE)
            what = "its decompressed content"
        except (EOFError, OSError, ValueError, MemoryError, zlib.error) as error:
            if expected is None:
                raise _CorruptError(f"it does not decompress: {why(error)}") from error
            what = f"it does not decompress ({why(error)}) and as it is"
    actual = hashlib.new(algorithm, content, usedforsecurity=False).hexdigest()
    if expected is not None and actual != expected:
        raise _CorruptError(f"{what} has {label} {actual}, and {expected} is expected")
    return content


def _clean_cache(name: str, report: Callable[[str], None]) -> None:
    root = cache() / name
    for patterns in FORMS[name].values():
        for path in [path for pattern in patterns for path in _matches(root, pattern)]:
            try:
                _verified(name, _key(root, path), _read(path))
            except _CorruptError as error:
                report(f"{path} is corrupt: {error}; removing it")
                with _writing():
                    path.unlink()


@contextmanager
def _writing() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(f"cannot write to the cache: {error}; set FEDROBUST_CACHE") from error


def _download(name: str, report: Callable[[str], None]) -> None:
    """Download what the cache lacks of ``name``, from one source after another."""
    origin, root = ORIGINS[name], cache() / name
    with _writing():
        root.mkdir(parents=True, exist_ok=True)
    failures = []
    for source in origin.sources:
        missing = [file for file in origin.files if not _matches(root, file)]
        if not missing:
            return
        report(f"{name}: fetching {', '.join(missing)} from {source}")
        try:
            with _writing():
                _keep_verified(name, source, missing, root)
        except SourceError as error:
            failures.append(f"  {source}: {error}")
            report(f"{name}: {source} failed: {error}")
    if all(_matches(root, file) for file in origin.files):
        return
    partial = [f"  {f / name}: lacks part of it" for f in folders() if (f / name).is_dir()]
    raise DataError(
        f"{name} is in no folder of FEDROBUST_DATA nor in the cache, and no source has it:\n"
        + "\n".join(partial + failures)
        + f"\nPut into a folder {name}/, in a folder that FEDROBUST_DATA names: {origin.advice}"
    )


def _keep_verified(name: str, source: Source, missing: Sequence[str], root: Path) -> None:
    """Move the files of ``source`` into ``root``, each only whole and verified."""
    # On the file system of the cache, so that the move is atomic.
    with TemporaryDirectory(prefix=".partial-", dir=root) as folder:
        for path in source.fetch(missing, Path(folder)):
            try:
                _verified(name, _key(path.parent, path), _read(path))
            except (_CorruptError, DataError) as error:
                raise SourceError(f"{path.name} is not the file: {error}") from error
            os.replace(path, root / path.name)
