"""What an attack may be given, and what it may give back: each check says what would be right."""

from typing import Any

import torch
from torch import Tensor

from fedrobust.attacks.attack import Attack, Poisons, poisons
from fedrobust.config import arguments
from fedrobust.config.arguments import told, unfit
from fedrobust.config.component import name_of
from fedrobust.errors import ConfigError
from fedrobust.federation.threat import View
from fedrobust.typing import Images, Labels, Updates


def called(attack: object) -> str:
    """What to call an attack in a message."""
    return name_of(type(attack))


def validate(attack: Attack, view: object, rng: object) -> None:
    """Refuse what no attack can craft from; every ``craft`` of fedrobust's begins with it.

    Raises: ``ValueError`` for what is no view or no generator, or where the honest updates that
    ``attack`` uses are left out.
    """
    if not isinstance(view, View):
        raise ValueError(
            f"attack {called(attack)}: view must be a fedrobust.View; got {told(view)}"
        )
    arguments.generator(rng, f"attack {called(attack)}: rng")
    if attack.trains and not len(view.own):
        raise ValueError(
            f"attack {called(attack)} uses honest updates, but the view's own is "
            f"{list(view.own.shape)}: give one row for each of the {view.rows} clients"
        )


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


def fits(rows: Updates, view: View) -> bool:
    """Whether the server could use ``rows`` [m, d] if they are finite; it drops others."""
    return not unfit(rows) and rows.shape == (view.rows, len(view.parameters))


def numbers(rows: Updates, view: View) -> Updates:
    """``rows`` without their autograd history; whole numbers and truth values as the view's."""
    rows = rows.detach()
    return rows if rows.is_floating_point() else rows.to(view.parameters)


def batch(x: object, y: object, classes: object) -> tuple[Images, Labels]:
    """The batch (x, y) that an attack may poison.

    Raises: ``ValueError`` for inputs and labels that are none, or do not fit each other.
    """
    arguments.whole("classes", classes)
    inputs = arguments.tensor(x, "x")
    if inputs.ndim < 1 or not len(inputs):
        raise ValueError("there are no examples")
    targets = arguments.tensor(y, "y")
    if targets.is_floating_point():
        raise ValueError(f"y must hold whole numbers, got {targets.dtype}; pass y.long()")
    assert isinstance(classes, int)
    return inputs, arguments.labels(targets, len(inputs), classes)


def poisoned(attack: object, x: Images, y: Labels, classes: int) -> tuple[Images, Labels]:
    """The batch as ``attack`` changes it; as it is where it does not poison.

    Raises: ``ValueError`` for inputs and labels that are no batch.
    """
    x, y = batch(x, y, classes)
    return (
        attack.poison(x, y, classes) if isinstance(attack, Poisons) and poisons(attack) else (x, y)
    )


def _parts(answer: tuple[object, ...]) -> str:
    """A tuple in few words."""
    listed = ", ".join(told(part) for part in answer[:3])
    return f"a tuple of {len(answer)}: {listed}{', …' if len(answer) > 3 else ''}"
