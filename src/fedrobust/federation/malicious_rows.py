"""The rows that malicious clients send: they may hold anything, but must be a tensor."""

from typing import Any

import torch
from torch import Tensor

from fedrobust.config.arguments import told
from fedrobust.config.kind import name_of
from fedrobust.errors import ConfigError
from fedrobust.federation.attack import Attack
from fedrobust.federation.threat import View
from fedrobust.typing import Updates


def called(attack: object) -> str:
    """Return the name of an attack for a message."""
    return name_of(type(attack))


def crafted(attack: Attack, state: Any, view: View, rng: torch.Generator) -> tuple[Updates, Any]:
    """Return what ``attack`` sends, and its next state; rows may have any shape and value.

    Raises: ``ConfigError`` where it does not return a tensor and a state: this is not a hostile
    client, but a mistake in the user's code.
    """
    answer = attack.craft(state, view, rng)
    if not isinstance(answer, tuple) or len(answer) != 2:
        raise ConfigError(
            f"the attack {called(attack)} must return (rows, state) from craft; it returned "
            f"{_parts(answer) if isinstance(answer, tuple) else told(answer)}"
        )
    rows, after = answer
    return tensor_of_rows(rows, f"the rows that the attack {called(attack)} returns"), after


def tensor_of_rows(rows: object, what: str) -> Tensor:
    """Return ``rows``. Raises: ``ConfigError`` where it is no tensor, with a way to make one."""
    if isinstance(rows, Tensor):
        return rows
    cure = ""
    if hasattr(rows, "__array__"):
        cure = "; use torch.from_numpy to convert an array"
    elif isinstance(rows, list | tuple):
        cure = "; use torch.stack to convert a list of rows"
    raise ConfigError(f"{what} must be one tensor [m, d], not {told(rows)}{cure}")


def _parts(answer: tuple[object, ...]) -> str:
    """Describe a tuple in few words."""
    listed = ", ".join(told(part) for part in answer[:3])
    return f"a tuple of {len(answer)}: {listed}{', …' if len(answer) > 3 else ''}"
