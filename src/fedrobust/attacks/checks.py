"""Checks on what an attack receives and returns; each message says what would be right."""

from fedrobust.clients.poisoning import Poisons
from fedrobust.config import arguments
from fedrobust.config.arguments import told, unfit
from fedrobust.federation.attack import Attack, poisons
from fedrobust.federation.malicious_rows import called
from fedrobust.federation.threat import View
from fedrobust.typing import Images, Labels, Updates, Vector


def validate(attack: Attack, view: object, rng: object) -> None:
    """Refuse input that no attack can use; every ``craft`` of fedrobust begins with this check.

    Raises: ``ValueError`` where ``view`` is no view or ``rng`` is no generator, or where the honest
    updates that ``attack`` uses are missing.
    """
    if not isinstance(view, View):
        raise ValueError(
            f"attack {called(attack)}: view must be a fedrobust.View; got {told(view)}"
        )
    arguments.generator(rng, f"attack {called(attack)}: rng")
    if attack.requires.uses_honest_updates and not len(view.own):
        raise ValueError(
            f"attack {called(attack)} uses honest updates, but the view's own is "
            f"{list(view.own.shape)}: give one row for each of the {view.rows} clients"
        )


def broadcast(attack: Attack, view: View) -> Vector:
    """Return the broadcast parameters [d], for an ``attack`` whose rows depend on their values.

    Raises: ``ValueError`` for a view that was made without them, and has zeros in their place.
    """
    if view.assumed is view.parameters:
        raise ValueError(
            f"attack {called(attack)} works on the values of the broadcast parameters, which were "
            "not given: pass parameters=, as flatten(model) makes them, or model="
        )
    return view.parameters


def fits(rows: Updates, view: View) -> bool:
    """Whether the server could use ``rows`` [m, d] if they are finite; it drops other rows."""
    return not unfit(rows) and rows.shape == (view.rows, len(view.parameters))


def numbers(rows: Updates, view: View) -> Updates:
    """Return ``rows`` without autograd history; integers and booleans get the view's dtype."""
    rows = rows.detach()
    return rows if rows.is_floating_point() else rows.to(view.parameters)


def batch(x: object, y: object, classes: object) -> tuple[Images, Labels]:
    """Check and return the batch (x, y) that an attack may poison.

    Raises: ``ValueError`` for invalid inputs or labels, or where they do not fit each other.
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
    """Return the batch as ``attack`` changes it; unchanged where the attack does not poison.

    Raises: ``ValueError`` where the inputs and labels are not a batch.
    """
    x, y = batch(x, y, classes)
    return (
        attack.poison(x, y, classes) if isinstance(attack, Poisons) and poisons(attack) else (x, y)
    )
