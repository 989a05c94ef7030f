"""Policies on disk: safetensors with a description of their training."""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from fedrobust.digest import digest
from fedrobust.errors import ConfigError
from fedrobust.files import atomically, clear, require_new
from fedrobust.records import bounded
from fedrobust.records.bounded import named, why
from fedrobust.records.plain import plain_json
from fedrobust.records.reading import parsed, shaped
from fedrobust.records.schema.learned import PolicyRecord

if TYPE_CHECKING:
    from fedrobust.attacks.learned.policy import Policy

_FORMAT = "fedrobust policy 2"


def save_policy(policy: "Policy", path: Path | str, about: dict[str, Any]) -> None:
    """Write ``policy`` and ``about``, the description of its training, with a digest of both.

    Raises: ``ConfigError`` where the file exists, where it cannot be written, and where ``about``
    is not what :func:`load_policy` could read.
    """
    path = Path(path)
    require_new(path)
    tensors = {name: tensor.contiguous() for name, tensor in policy.tensors().items()}
    content, _ = plain_json(about, "about")
    try:
        shaped(PolicyRecord, content)
    except ValueError as error:
        raise ConfigError(f"about: {error}") from error
    text = json.dumps(content, allow_nan=False)
    metadata = {"format": _FORMAT, "about": text, "seal": _digest(text, tensors)}
    content = save(tensors, metadata=metadata)
    atomically(path, lambda file: file.write(content))
    clear(path.parent, of=path)


@contextmanager
def opened(path: Path | str) -> Iterator[Any]:
    """Open the file of a policy. Raises: ``ConfigError`` where it is not as it was written."""
    try:
        bounded.opened(Path(path)).close()
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            _require_format(path, metadata.get("format", ""))
            _require_whole(file, metadata)
            yield file
    except (SafetensorError, OSError, ValueError, RecursionError, MemoryError) as error:
        if isinstance(error, ConfigError):
            raise
        raise _unfit(path, error) from error


def _unfit(path: Path | str, error: Exception) -> ConfigError:
    return ConfigError(
        f"{named(path)} cannot be read as a policy: {why(error)}; train it again, with fedrobust "
        "attack learn, or restore it"
    )


def _require_format(path: Path | str, found: str) -> None:
    """Refuse a file without a policy, or of another version. Raises: ``ConfigError``."""
    if found == _FORMAT:
        return
    name, number = _FORMAT.rsplit(" ", 1)
    kind, _, other = found.rpartition(" ")
    if kind == name and other.isdecimal() and len(other) < 9 and int(other) > int(number):
        raise ConfigError(
            f"{named(path)} is of format {int(other)}, which this version of fedrobust does not "
            "know; update fedrobust"
        )
    raise ConfigError(f"{named(path)} holds no policy: fedrobust attack learn writes one")


def _require_whole(file: Any, metadata: dict[str, str]) -> None:
    """Refuse a damaged file. Raises: ``ValueError``, or ``SafetensorError``."""
    text = metadata.get("about", "")
    bounded.require_room_for_json(text)
    shaped(PolicyRecord, parsed(text))
    # A file of an earlier version has no seal.
    if "seal" in metadata and metadata["seal"] != _digest(text, _tensors(file)):
        raise ValueError("its content is not what was written")


def _tensors(file: Any) -> dict[str, Tensor]:
    return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def _digest(text: str, tensors: dict[str, Tensor]) -> str:
    each = ((f"{name} {t.dtype} {list(t.shape)}", t) for name, t in sorted(tensors.items()))
    return digest(text, *(part for pair in each for part in pair))


def load_policy(path: Path | str) -> tuple["Policy", dict[str, Any]]:
    """Read a policy, and how it was trained. Raises: ``ConfigError`` where the file holds none."""
    from fedrobust.attacks.learned.policy import Policy  # it needs the extra

    with opened(path) as file:
        about: dict[str, Any] = parsed(file.metadata()["about"])
        try:
            policy = Policy.of(_tensors(file))
            _require_sound(policy, file.keys())
        except (ConfigError, TypeError, ValueError, RuntimeError) as error:
            raise _unfit(path, error) from error
    return policy, about


def _require_sound(policy: "Policy", names: Iterable[str]) -> None:
    """Refuse a policy whose actions mean nothing. Raises: ``ValueError``."""
    tensors, (seen, actions) = policy.tensors(), policy.sizes
    if tensors.keys() != set(names):
        raise ValueError("it holds other tensors than a policy does")
    for name, tensor in tensors.items():
        if tensor.dtype not in (torch.float32, torch.float64) or not tensor.isfinite().all():
            raise ValueError(f"its {name} does not hold finite floating-point numbers")
    if any(tensor.shape != (seen,) for tensor in (policy.mean, policy.deviation)):
        raise ValueError(f"its mean and deviation do not have its {seen} observed numbers")
    if not (policy.deviation > 0).all():
        raise ValueError("its deviation is not above 0")
    found = policy(torch.zeros(seen).numpy())
    if found.shape != (actions,):
        raise ValueError(f"it gives {list(found.shape)} actions, but it should give {actions}")
