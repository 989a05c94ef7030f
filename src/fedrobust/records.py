"""The run directory: what a run leaves behind, written so that a kill at any moment loses nothing.

``checkpoint.pt`` is the one truth: state, metrics and round logs of the same moment, replaced
atomically. The other files are made from it, so a run that was killed between two writes is put
right when it resumes.
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from io import StringIO
from pathlib import Path
from typing import IO, Any, cast

import filelock
import numpy as np
import torch
from numpy.typing import NDArray
from ruamel.yaml import YAML
from safetensors.torch import save
from torch import Tensor

from fedrobust.errors import RecordError
from fedrobust.experiment import read_yaml

Json = dict[str, Any]


BEGUN = {"config.yaml", "environment.json"}
"""What a run directory holds before its first checkpoint; one alone may be a user's own file."""


class RunDirectory:
    """A run directory that this process alone writes to."""

    def __init__(self, path: Path, *, resume: bool) -> None:
        """Open ``path`` for a new run, or with ``resume`` for one that may be there already.

        Raises: ``RecordError`` where there is something that would be overwritten, where another
        process is running it, or where it cannot be written.
        """
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._lock = filelock.FileLock(path / ".lock")
            self._lock.acquire(timeout=0)
        except filelock.Timeout as error:
            raise RecordError(f"another process is running in {path}: wait for it") from error
        except OSError as error:
            raise RecordError(f"cannot write to {path}: {error}; choose another --out") from error
        # A kill leaves the lock, and at most one file that was not yet put in its place.
        there = sorted(p.name for p in path.iterdir() if not is_leftover(p.name))
        if not resume and set(there) == BEGUN:
            for name in BEGUN:  # begun, but no round was saved: nothing is lost
                (path / name).unlink()
            there = []
        if there and not resume:
            self.close()
            what = "already holds a run" if self.has_config else f"is not empty ({there[0]}, ...)"
            raise RecordError(
                f"{path} {what}: continue it with --resume (resume=True), or choose another --out"
                if self.has_config
                else f"{path} {what}: choose another --out"
            )
        if there and not self.has_config:
            self.close()
            raise RecordError(f"{path} is no run directory ({there[0]}, ...): choose another --out")

    def close(self) -> None:
        """Let other processes in."""
        self._lock.release()

    @property
    def has_config(self) -> bool:
        """Whether a run was begun here."""
        return (self.path / "config.yaml").exists()

    def config(self) -> Json:
        """The config of the run that was begun here."""
        content: Json = read_yaml(self.path / "config.yaml")
        return content

    def write_config(self, config: Json) -> None:
        """The complete config, from which ``fedrobust run`` plays the same run."""
        text = StringIO()
        yaml = YAML(typ="safe", pure=True)
        yaml.default_flow_style = None
        yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
        yaml.width = 100
        yaml.dump(config, text)
        self._write("config.yaml", text.getvalue())

    def write_json(self, name: str, content: Any) -> None:
        """One JSON object as ``name``."""
        self._write(name, json.dumps(content, indent=2, allow_nan=False) + "\n")

    def read_json(self, name: str) -> Any:
        """The JSON object ``name``, or None where there is none."""
        path = self.path / name
        return json.loads(path.read_text("utf-8")) if path.exists() else None

    def write_lines(self, name: str, lines: Sequence[Json]) -> None:
        """One JSON object a line."""
        text = "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines)
        self._write(name, text)

    def write_model(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        """Named tensors as safetensors."""
        plain = {key: tensor.detach().cpu().contiguous().clone() for key, tensor in tensors.items()}
        atomically(self.path / name, lambda file: file.write(save(plain)))

    def write_arrays(self, name: str, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Named arrays as compressed .npz."""
        atomically(
            self.path / name, lambda file: np.savez_compressed(file, allow_pickle=False, **arrays)
        )

    def drop(self, pattern: str) -> None:
        """Remove the files of such a name, which are of no more use."""
        for path in self.path.glob(pattern):
            path.unlink()

    def save_checkpoint(self, content: Mapping[str, Any]) -> None:
        """Replace the checkpoint. ``content`` may hold tensors, numbers, texts and containers.

        Raises: ``RecordError`` for anything else, which could be written but not read again.
        """
        _require_plain(content, "")
        atomically(self.path / "checkpoint.pt", lambda file: torch.save(dict(content), file))

    def load_checkpoint(self) -> Json | None:
        """The checkpoint, on the CPU, or None where there is none yet."""
        path = self.path / "checkpoint.pt"
        if not path.exists():
            return None
        try:
            content: Json = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises many kinds
            reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
            raise RecordError(f"{path} is damaged: {reason}; start again in a new --out") from error
        return content

    def _write(self, name: str, text: str) -> None:
        atomically(self.path / name, lambda file: file.write(text.encode()))


def _require_plain(value: object, where: str) -> None:
    """Refuse what a checkpoint can be written with but not loaded from."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            _require_plain(item, f"{where}.{key}" if where else str(key))
    elif type(value) in (list, tuple):
        for i, item in enumerate(cast("Sequence[object]", value)):
            _require_plain(item, f"{where}[{i}]")
    elif value is not None and type(value) not in (bool, int, float, str, bytes, Tensor):
        raise RecordError(
            f"{where} is a {type(value).__module__}.{type(value).__qualname__}, which a checkpoint "
            "cannot hold: keep tensors, numbers, texts, and lists, tuples and dicts of these"
        )


def is_leftover(name: str) -> bool:
    """Whether a kill may have left this file behind."""
    return name == ".lock" or (name.startswith(".") and name.endswith(".part"))


def atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Fill ``path`` so that whoever looks, whenever, sees the old content or the new, whole.

    Raises: ``RecordError`` where it cannot be written; the old content is then still there.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise RecordError(f"cannot write {path}: {error}") from error
