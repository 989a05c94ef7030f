"""Attacks that change the data on which a client trains."""

from typing import Protocol, runtime_checkable

from fedrobust.config import arguments
from fedrobust.errors import ConfigError
from fedrobust.typing import Images, Labels


@runtime_checkable
class Poisons(Protocol):
    """An attack that also changes the data on which malicious clients train."""

    def poison(self, x: Images, y: Labels, classes: int) -> tuple[Images, Labels]:
        """Return the batch that a malicious client trains on instead of (x, y)."""
        ...


def poisoned(attack: Poisons, x: Images, y: Labels, classes: int) -> tuple[Images, Labels]:
    """Return the batch that ``attack`` makes of (x, y), in memory that may be written to.

    Raises: ``ConfigError`` where this is no batch of such examples with labels below ``classes``.
    """
    given = attack.poison(x, y, classes)
    try:
        inputs, labels = given
        if arguments.tensor(inputs, "x").shape[1:] != x.shape[1:] or not len(inputs):
            raise ValueError(f"x has shape {list(inputs.shape)} where it was {list(x.shape)}")
        # Copies: an attack may hand out the same tensors each time, or expand one image.
        return inputs.detach().clone(), arguments.labels(labels, len(inputs), classes).clone()
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"poison of the attack {type(attack).__name__} must give a batch (x, y): {error}"
        ) from error
