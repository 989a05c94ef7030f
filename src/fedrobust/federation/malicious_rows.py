"""What malicious clients send: any rows, but rows."""

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
    """What to call an attack in a message."""
    return name_of(type(attack))


def crafted(attack: Attack, state: Any, view: View, rng: torch.Generator) -> tuple[Updates, Any]:
    """What ``attack`` sends, and its next state. Rows of any shape and value may be sent.

    Raises: ``ConfigError`` where it does not return a tensor and a state: that is no hostile
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
    """``rows``. Raises: ``ConfigError`` for what is no tensor, saying how to make one of it."""
    if isinstance(rows, Tensor):
        return rows
    cure = ""
    if hasattr(rows, "__array__"):
        cure = "; torch.from_numpy makes one of an array"
    elif isinstance(rows, list | tuple):
        cure = "; torch.stack makes one of a list of rows"
    raise ConfigError(f"{what} must be one tensor [m, d], not {told(rows)}{cure}")


def _parts(answer: tuple[object, ...]) -> str:
    """A tuple in few words."""
    listed = ", ".join(told(part) for part in answer[:3])
    return f"a tuple of {len(answer)}: {listed}{', …' if len(answer) > 3 else ''}"
