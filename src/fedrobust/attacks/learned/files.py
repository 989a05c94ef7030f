"""Policies on disk: safetensors with what they were trained for."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from fedrobust.errors import ConfigError
from fedrobust.records import atomically

if TYPE_CHECKING:
    from fedrobust.attacks.learned.policy import Policy

_FORMAT = "fedrobust policy 2"


def save_policy(policy: "Policy", path: Path | str, about: dict[str, Any]) -> None:
    """Write ``policy``, and ``about``, how it was trained.

    Raises: ``ConfigError`` where there is a file already.
    """
    path = Path(path)
    require_new(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.contiguous() for name, tensor in policy.tensors().items()}
    content = save(tensors, metadata={"format": _FORMAT, "about": json.dumps(about)})
    atomically(path, lambda file: file.write(content))


def require_new(path: Path) -> None:
    """Raises: ``ConfigError`` where there is a file already."""
    if path.exists():
        raise ConfigError(f"{path} exists: choose another file")


@contextmanager
def opened(path: Path | str) -> Iterator[Any]:
    """The file of a policy. Raises: ``ConfigError`` where it holds none."""
    try:
        with safe_open(path, framework="pt") as file:
            if (file.metadata() or {}).get("format") != _FORMAT:
                raise ConfigError(f"{path} holds no policy: fedrobust attack learn writes one")
            yield file
    except (SafetensorError, OSError) as error:
        raise ConfigError(f"{path} cannot be read as a policy: {error}") from error


def load_policy(path: Path | str) -> tuple["Policy", dict[str, Any]]:
    """The policy of a file, and how it was trained. Raises: ``ConfigError`` where it holds none."""
    from fedrobust.attacks.learned.policy import Policy  # which needs the extra

    with opened(path) as file:
        about: dict[str, Any] = json.loads(file.metadata()["about"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    return Policy.of(tensors), about
