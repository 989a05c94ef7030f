"""Policies on disk: safetensors with what they were trained for."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from fedrobust.arguments import shortened
from fedrobust.errors import ConfigError
from fedrobust.plain import plain_json
from fedrobust.reading import parsed, shaped
from fedrobust.records import atomically
from fedrobust.schema.learned import PolicyRecord

if TYPE_CHECKING:
    from fedrobust.attacks.learned.policy import Policy

_FORMAT = "fedrobust policy 2"


def save_policy(policy: "Policy", path: Path | str, about: dict[str, Any]) -> None:
    """Write ``policy``, and ``about``, how it was trained, with a digest of both.

    Raises: ``ConfigError`` where there is a file already, or where none can be.
    """
    path = Path(path)
    require_new(path)
    tensors = {name: tensor.contiguous() for name, tensor in policy.tensors().items()}
    text = json.dumps(plain_json(about, "about")[0], allow_nan=False)
    metadata = {"format": _FORMAT, "about": text, "seal": _digest(text, tensors)}
    content = save(tensors, metadata=metadata)
    atomically(path, lambda file: file.write(content))


def require_new(path: Path) -> None:
    """Make the folder of a file to come.

    Raises: ``ConfigError`` where there is a file already, or where none can be.
    """
    try:
        there = path.exists() or path.is_symlink()
        if not there:
            path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error}; choose another file") from error
    if there:
        raise ConfigError(f"{path} exists: choose another file")


@contextmanager
def opened(path: Path | str) -> Iterator[Any]:
    """The file of a policy, which is as it was written. Raises: ``ConfigError`` where it is not."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != _FORMAT:
                raise ConfigError(f"{path} holds no policy: fedrobust attack learn writes one")
            _require_whole(file, metadata)
            yield file
    except (SafetensorError, OSError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(
            f"{path} cannot be read as a policy: {shortened(str(error), 300)}; train it again, "
            "with fedrobust attack learn, or restore it"
        ) from error


def _require_whole(file: Any, metadata: dict[str, str]) -> None:
    """Raises: ``ValueError`` where the file is damaged, or ``SafetensorError``."""
    text = metadata.get("about", "")
    about = parsed(text)
    if "seal" in metadata:
        if metadata["seal"] != _digest(text, _tensors(file)):
            raise ValueError("its content is not what was written")
    else:  # of an earlier version
        shaped(PolicyRecord, about)


def _tensors(file: Any) -> dict[str, Tensor]:
    return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def _digest(text: str, tensors: dict[str, Tensor]) -> str:
    found = hashlib.sha256(text.encode())
    for name, tensor in sorted(tensors.items()):
        plain = tensor.detach().cpu().contiguous()
        found.update(f"{name} {plain.dtype} {list(plain.shape)}".encode())
        found.update(plain.view(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def load_policy(path: Path | str) -> tuple["Policy", dict[str, Any]]:
    """The policy of a file, and how it was trained. Raises: ``ConfigError`` where it holds none."""
    from fedrobust.attacks.learned.policy import Policy  # which needs the extra

    with opened(path) as file:
        about: dict[str, Any] = parsed(file.metadata()["about"])
        try:
            policy = Policy.of(_tensors(file))
        except (ConfigError, TypeError, ValueError) as error:
            raise ConfigError(f"{path} cannot be read as a policy: {error}") from error
    return policy, about
