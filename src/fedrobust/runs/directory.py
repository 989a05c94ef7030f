"""The run directory: the records of a run, written so that a kill at any moment damages nothing.

``checkpoint.pt`` is the one source: the state, the metrics and the length of the log of rounds, all
of the same moment, replaced atomically. The other files are made from it, so the records of a run
that was killed between two writes are mended when it resumes. A damaged file is kept under another
name before a new one takes its place.
"""

import json
import os
import zipfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from io import StringIO
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from ruamel.yaml import YAML
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from fedrobust.config.arguments import told, unfit
from fedrobust.config.text import shortened
from fedrobust.errors import ConfigError, RecordError, WriteError
from fedrobust.files import atomically, clear, held, listing, reason, written
from fedrobust.records.plain import plain_json
from fedrobust.records.reading import json_of, mapping_of, present
from fedrobust.runs import checkpoint
from fedrobust.runs.rounds_log import SHOWN, as_lines
from fedrobust.typing import Json

BEGUN = {"config.yaml", "environment.json"}
"""The files of a run directory before its first checkpoint. One alone may be a user's own file."""
_PLAYED = ("metrics.jsonl", SHOWN, "summary.json", "model.safetensors", "best.safetensors")
"""The files that exist only after a checkpoint. Only the log of rounds is written before it."""


class RunDirectory:
    """A run directory that this process alone writes to, within its context.

    A directory that was made here is removed again if the context fails before it holds a record.
    """

    def __init__(self, path: Path, *, resume: bool) -> None:
        """Open ``path`` for a new run, or with ``resume`` for a run that may be there already.

        Raises: ``RecordError`` where something would be overwritten, where another process is
        running this run, or where the directory cannot be written.
        """
        self.path = path
        self._held = ExitStack()
        if os.path.isdir(path):
            self._require_ours(resume)  # before anything in it is changed
        with ExitStack() as opening:
            opening.enter_context(held(path, f"another process is running in {path}"))
            begun = self._require_ours(resume)
            clear(path)
            for name in begun:  # no round was saved, so nothing is lost
                (path / name).unlink()
            self._held = opening.pop_all()

    def _require_ours(self, resume: bool) -> set[str]:
        """Return the files that may be removed: those of a run that has saved no round.

        Raises: ``RecordError`` where there is anything that a run must not change.
        """
        try:
            there = listing(self.path)
        except OSError as error:
            why = reason(error)
            raise RecordError(f"cannot read {self.path}: {why}; choose another --out") from error
        if not there:
            return set()
        if not self.has_config:
            raise RecordError(
                f"{self.path} is no run directory ({there[0]}, ..., but no config.yaml): choose "
                "another --out"
                if resume
                else f"{self.path} is not empty ({there[0]}, ...): choose another --out"
            )
        if resume:
            return set()
        if set(there) != BEGUN:
            raise RecordError(
                f"{self.path} already holds a run: continue it with --resume (resume=True), or "
                "choose another --out"
            )
        if "fedrobust" not in json_of(self.path / "environment.json", dict):
            raise RecordError(f"{self.path} is not empty ({there[0]}, ...): choose another --out")
        return BEGUN

    def __enter__(self) -> "RunDirectory":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._held.__exit__(kind, error, trace)

    @property
    def has_config(self) -> bool:
        """Whether a run was begun here."""
        return present(self.path / "config.yaml")

    def config(self) -> Json:
        """Return the config of the run that was begun here. Raises: ``RecordError`` if broken."""
        return mapping_of(self.path / "config.yaml")

    def write_config(self, config: Json) -> None:
        """Write the complete config, from which ``fedrobust run`` plays the same run."""
        text = StringIO()
        yaml = YAML(typ="safe", pure=True)
        yaml.default_flow_style = None
        yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
        yaml.width = 100
        yaml.dump(config, text)
        written(self.path / "config.yaml", text.getvalue())

    def write_json(self, name: str, content: Any) -> None:
        """Write a JSON object to ``name``, with null for numbers that are not finite."""
        plain, _ = plain_json(content, name)
        written(self.path / name, json.dumps(plain, indent=2, allow_nan=False) + "\n")

    def read_json(self, name: str) -> Any:
        """Return the JSON object in ``name``, or None where there is no such file.

        Raises: ``RecordError`` where it is broken.
        """
        path = self.path / name
        content: Json | None = json_of(path, dict) if present(path) else None
        return content

    def write_lines(self, name: str, lines: Sequence[Json]) -> None:
        """Write one JSON object per line, with null for numbers that are not finite."""
        written(self.path / name, as_lines(lines))

    def write_model(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        """Write named tensors as safetensors. They must fulfil :func:`require_storable`.

        Tensors that share memory are each written as a whole.
        """
        plain = {key: tensor.detach().cpu().contiguous().clone() for key, tensor in tensors.items()}
        atomically(self.path / name, lambda file: file.write(save(plain)))

    def write_arrays(self, name: str, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Write named arrays as a compressed .npz file."""

        def fill(file: IO[bytes]) -> None:
            # NumPy's own savez would take some names for its arguments.
            with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
                for key, array in arrays.items():
                    with archive.open(f"{key}.npy", "w", force_zip64=True) as part:
                        np.lib.format.write_array(part, np.asanyarray(array), allow_pickle=False)

        atomically(self.path / name, fill)

    def drop(self, pattern: str) -> None:
        """Remove the files whose names match ``pattern``. Raises: ``RecordError``."""
        for path in self.path.glob(pattern):
            if path.is_dir() and not path.is_symlink():
                continue  # a folder is not ours
            try:
                path.unlink()
            except OSError as error:
                raise WriteError(f"cannot remove {path}: {reason(error)}") from error

    def set_aside(self, name: str) -> str:
        """Rename a damaged file, so that it is not overwritten, and return its new name.

        Raises: ``RecordError`` where that fails.
        """
        return self._renamed(name, lambda number: f"{name}.damaged-{number}")

    def keep_result(self, name: str, rounds: int) -> str:
        """Rename a result of a run that goes on to more than ``rounds``; return its new name.

        Raises: ``RecordError`` where that fails.
        """
        stem, dot, ending = name.rpartition(".")

        def marked(number: int) -> str:
            return f"{stem}.{rounds}-rounds{f'-{number}' if number > 1 else ''}{dot}{ending}"

        return self._renamed(name, marked)

    def _renamed(self, name: str, mark: Callable[[int], str]) -> str:
        """Rename a file to the first name ``mark(1)``, ``mark(2)``, ... that is free."""
        path, number = self.path / name, 1
        while os.path.lexists(aside := path.with_name(mark(number))):
            number += 1
        try:
            path.rename(aside)
        except OSError as error:
            raise WriteError(f"cannot set {path} aside: {reason(error)}") from error
        return aside.name

    def save_checkpoint(self, content: Mapping[str, Any]) -> None:
        """Replace the checkpoint. ``content`` may hold tensors, numbers, texts and containers.

        Raises: ``RecordError`` for anything else, which could be written but not read again.
        """
        checkpoint.require_plain(content)
        atomically(self.path / "checkpoint.pt", lambda file: checkpoint.write(content, file))

    def load_checkpoint(self) -> Json | None:
        """Return the checkpoint, on the CPU, or None where there is none yet.

        Raises: ``RecordError`` where it is damaged, or is missing although rounds were played.
        """
        path = self.path / "checkpoint.pt"
        beside = [name for name in _PLAYED if (self.path / name).exists()]
        if not present(path):
            if beside and beside != [SHOWN]:
                raise RecordError(
                    f"{path} is missing, though {beside[0]} is there: the run cannot be resumed, "
                    "and nothing was changed. Put it back, or start again in a new --out"
                )
            return None
        kept = f" ({', '.join(beside)} beside it stay as they are)" if beside else ""
        then = f"put a copy back, or start again in a new --out{kept}"
        return checkpoint.read(path, then)


def require_storable(model: nn.Module) -> None:
    """Refuse a network whose weights no .safetensors file can hold, before the first round.

    Raises: ``ConfigError`` for a state that is not a tensor, such as a module's
    ``get_extra_state``, and for tensors that are sparse, complex, quantized or without values.
    """
    try:
        state = dict(model.state_dict())
    except Exception as error:  # a user's hooks may fail in any way
        raise ConfigError(
            f"model: its state_dict fails, so that it cannot be stored: {type(error).__name__}: "
            f"{shortened(str(error), 300)}"
        ) from error
    for name, value in state.items():
        if not isinstance(value, Tensor):
            why = f"{told(value)}, not a tensor; keep it as a buffer, or as a plain attribute"
        elif is_lazy(value):
            why = "not initialised yet: call the model once before"
        elif found := unfit(value):
            why = f"a tensor that is {found}; make it a dense one of real numbers"
        else:
            continue
        raise ConfigError(f"model: a run directory cannot hold {shortened(str(name))}: it is {why}")
