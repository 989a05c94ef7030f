"""The checkpoint of a run, a file that shows by itself whether it is whole.

PyTorch reads a file with a flipped bit without complaint. So a checkpoint holds a digest of its
content, and a run does not go on from a checkpoint that does not match its digest.
"""

import hashlib
import os
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, cast

import torch
from torch import Tensor

from fedrobust.compute.memory import available_memory
from fedrobust.compute.storages import compacted
from fedrobust.config.text import shortened
from fedrobust.errors import RecordError
from fedrobust.files import opened
from fedrobust.typing import Json

_SEAL = "seal"
_DEPTH = 64
_SCALARS = (type(None), bool, int, float, str, bytes)


def require_plain(content: Mapping[str, Any]) -> None:
    """Refuse content that a checkpoint could be written with, but not read again.

    Raises: ``RecordError`` for anything but tensors, numbers, texts, and lists, tuples and dicts.
    """
    _require_plain(content, "", 0)


def write(content: Mapping[str, Any], file: IO[bytes]) -> None:
    """Write ``content``, for which :func:`require_plain` holds. Raises: ``OSError``."""
    stream = _Stream(file)
    try:
        # Of a tensor that repeats its entries PyTorch would write fewer bytes than are read.
        whole = compacted({**content, _SEAL: _digest(content)}, whole=True)
        torch.save(whole, stream)  # type: ignore[arg-type]
    except RuntimeError as error:
        # On a full disk, torch only says "unexpected pos".
        raise (stream.failure or error) from error


class _Stream:
    """A file that remembers why a write failed."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.failure: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return self._file.write(data)
        except OSError as error:
            self.failure = error
            raise

    def flush(self) -> None:
        self._file.flush()


def read(path: Path, then: str) -> Json:
    """Read the checkpoint in ``path``, on the CPU.

    Raises: ``RecordError`` for a checkpoint that is not as it was written. ``then`` is the advice
    at the end of the message.
    """
    try:
        with opened(path) as file:
            size = _require_unpacked(file)
            file.seek(0)
            content = torch.load(file, map_location="cpu", weights_only=True)
        if not isinstance(content, dict):
            raise ValueError(f"it holds a {type(content).__name__}, not a checkpoint")
        _require_small(content, size)
        if _SEAL not in content:  # of an earlier version: only the archive's checksums can tell
            with opened(path) as file, zipfile.ZipFile(file) as archive:
                if torn := archive.testzip():
                    raise ValueError(f"the part {torn} is not as it was written")
        elif content.pop(_SEAL) != _digest(content):
            raise ValueError("its content is not what was written")
    except Exception as error:  # torch raises many kinds
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise RecordError(f"{path} is damaged: {reason}; {then}") from error
    return content


def _require_unpacked(file: IO[bytes]) -> int:
    """Check that no part of the file grows when it is read, and return the size of the file.

    Raises: ``OSError``, and ``ValueError`` for a file that :func:`write` cannot have written.
    """
    size = os.fstat(file.fileno()).st_size
    if size > (free := available_memory("cpu")):
        raise ValueError(f"it has {size:,} bytes, and there is memory for {free:,}")
    with zipfile.ZipFile(file) as archive:
        parts = archive.infolist()
        if any(part.compress_type != zipfile.ZIP_STORED for part in parts):
            raise ValueError("it is compressed, but no checkpoint is")
        if sum(part.file_size for part in parts) > size:
            raise ValueError("its parts are larger than the file")
    return size


def _require_small(value: object, size: int) -> None:
    """Refuse a tensor with more bytes than the file. Raises: ``ValueError``.

    A stored tensor may repeat its entries and so take much more memory.
    """
    if isinstance(value, Mapping):
        for item in value.values():
            _require_small(item, size)
    elif isinstance(value, list | tuple):
        for item in value:
            _require_small(item, size)
    elif isinstance(value, Tensor) and value.numel() * value.element_size() > size:
        raise ValueError(f"a tensor of shape {list(value.shape)} is larger than the file")


def _require_plain(value: object, where: str, depth: int) -> None:
    """Refuse a value that a checkpoint can be written with but not loaded from."""
    if depth > _DEPTH:
        raise RecordError(
            f"{shortened(where)} is nested more than {_DEPTH} deep, which a checkpoint cannot hold"
        )
    if type(value) in (dict, OrderedDict):
        for key, item in cast("Mapping[object, object]", value).items():
            at = f"{where}.{key}" if where else str(key)
            _require_plain(key, f"the key {at}", depth + 1)
            _require_plain(item, at, depth + 1)
    elif type(value) in (list, tuple):
        for i, item in enumerate(cast("tuple[object, ...]", value)):
            _require_plain(item, f"{where}[{i}]", depth + 1)
    elif type(value) is not Tensor and type(value) not in _SCALARS:
        raise RecordError(
            f"{where} is a {type(value).__module__}.{type(value).__qualname__}, which a checkpoint "
            "cannot hold: keep tensors, numbers, texts, and lists, tuples and dicts of these"
        )


def _digest(content: object) -> str:
    found = hashlib.sha256()
    _feed(found, content)
    return found.hexdigest()


def _feed(digest: Any, value: object) -> None:
    """Add every value with its type to the digest, and every tensor with its type and shape."""
    digest.update(f"{type(value).__name__}(".encode())
    if isinstance(value, Mapping):
        for key, item in value.items():
            _feed(digest, key)
            _feed(digest, item)
    elif isinstance(value, list | tuple):
        for item in value:
            _feed(digest, item)
    elif isinstance(value, Tensor):
        digest.update(f"{value.dtype}{list(value.shape)}{value.layout}".encode())
        if value.layout == torch.strided:
            plain = value.detach().cpu().contiguous().view(-1)
            digest.update(plain.view(torch.uint8).numpy().data)
    else:
        digest.update(repr(value).encode("utf-8", "backslashreplace"))
    digest.update(b")")
