"""The rows that malicious clients send: they may hold anything, but must be a tensor."""

from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from fedrobust.config.arguments import told
from fedrobust.config.fingerprint import foreign
from fedrobust.config.kind import name_of
from fedrobust.config.text import suggestion
from fedrobust.errors import ConfigError
from fedrobust.federation.attack import Attack
from fedrobust.federation.threat import View
from fedrobust.typing import Updates

_GRANTED = {"benign": "benign", "benign_clients": "benign", "rule": "rule", "clients": "clients"}
"""The fields of a view that are None unless granted, each with the knowledge that grants it."""


def called(attack: object) -> str:
    """Return the name of an attack for a message."""
    return name_of(type(attack))


def crafted(attack: Attack, state: Any, view: View, rng: torch.Generator) -> tuple[Updates, Any]:
    """Return what ``attack`` sends, and its next state; rows may have any shape and value.

    Raises: ``ConfigError`` where it does not return a tensor and a state, or fails on knowledge
    that it was not granted: this is not a hostile client, but a mistake in the user's code.
    """
    answer = _asked(attack, state, view, rng) if foreign(attack) else attack.craft(state, view, rng)
    if not isinstance(answer, tuple) or len(answer) != 2:
        raise ConfigError(
            f"the attack {called(attack)} must return (rows, state) from craft; it returned "
            f"{_parts(answer) if isinstance(answer, tuple) else told(answer)}"
        )
    rows, after = answer
    return tensor_of_rows(rows, f"the rows that the attack {called(attack)} returns"), after


class _Noted(View):
    """A view that notes which knowledge was read of it that is not granted."""

    def __getattribute__(self, name: str) -> Any:
        value = super().__getattribute__(name)
        if value is None and name in _GRANTED:
            super().__getattribute__("__dict__").setdefault("_missed", []).append(_GRANTED[name])
        return value

    def __getattr__(self, name: str) -> Any:
        """Say what a view has, where an attack asks for something else."""
        known = [field.name for field in fields(View)]
        raise AttributeError(
            f"a View has no {name}{suggestion(name, known)}; it has {', '.join(known)}"
        )


def _asked(attack: Attack, state: Any, view: View, rng: torch.Generator) -> Any:
    """Return what a user's own attack answers. Raises: ``ConfigError`` for knowledge it lacks."""
    noted = object.__new__(_Noted)
    noted.__dict__.update(vars(view))
    try:
        return attack.craft(state, noted, rng)
    except (AttributeError, TypeError) as error:
        missed = vars(noted).get("_missed")
        if not missed or "NoneType" not in str(error):
            raise
        what = missed[-1]
        raise ConfigError(
            f"the attack {called(attack)} failed: {error}. It has read view.{what}, which is None, "
            f"as its threat model does not grant it. If it needs this, grant it (threat: "
            f"{{{what}: true}}), and let the attack say so: requires = "
            f"Requirements(knowledge={{{what!r}}})"
        ) from error


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
