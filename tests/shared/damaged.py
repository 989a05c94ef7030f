"""Helpers of the tests that damage records: what is refused changes nothing, and is named."""

import json
import os
import socket
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from demo import demo_config

from fedrobust import run
from fedrobust.config.component import from_config
from fedrobust.errors import UserError
from fedrobust.experiment import Experiment
from fedrobust.progress import Progress

sys.path.append(str(Path(__file__).parents[1] / "fuzz"))

import records
from records import Originals, digest

__all__ = [
    "ODD",
    "Originals",
    "cut",
    "digest",
    "put",
    "records",
    "refused",
    "resumed",
    "tensors",
    "tiny",
]


def tiny() -> Experiment:
    changes: dict[str, Any] = {"rounds": 3, "evaluation": records.demo_evaluation()}
    return from_config(Experiment, demo_config(**changes))


def refused(folder: Path, message: str, read: Callable[[], object]) -> str:
    """The message of a refusal, which changed nothing in the folder."""
    before = digest(folder)
    with pytest.raises(UserError, match=message) as error:
        read()
    assert digest(folder) == before
    return str(error.value)


def cut(path: Path, share: float = 0.5) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])


def resumed(folder: Path) -> list[str]:
    """What a resumed run says it made again."""
    told: list[str] = []
    run(tiny(), folder, resume=True, progress=Progress(repaired=told.append))
    return told


ODD = {
    "pipe": "it is no regular file",
    "folder": "it is no regular file",
    "socket": "it is no regular file",
    "link to /dev/zero": "it is no regular file",
    "link to /dev/full": "it is no regular file",
    "link to a pipe": "it is no regular file",
    "link to itself": "Too many levels of symbolic links",
    "link to nowhere": "No such file or directory",
    "sparse": "it has 1,099,511,627,776 bytes, and (no such file has more|there is memory)",
}
"""What may lie where a file should, and what is said of it."""


def put(kind: str, path: Path) -> None:
    """Put something that is no file, or none that can be read, where ``path`` says."""
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(os.path.relpath(path))
    elif kind == "sparse":
        with path.open("wb") as file:
            file.truncate(2**40)
    elif kind == "link to a pipe":
        os.mkfifo(there := path.with_name("pipe"))
        path.symlink_to(there)
    else:
        path.symlink_to({"itself": path, "nowhere": "nowhere"}.get(kind[8:], kind[8:]))


def tensors(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    """A .safetensors file with this header, whatever it says."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text) if length is None else length) + text + data
