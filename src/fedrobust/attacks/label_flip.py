"""Label flipping: the malicious clients train honestly, on false labels."""

from typing import ClassVar, Literal

import torch
from pydantic import model_validator

from fedrobust.attacks.checks import batch, validate
from fedrobust.config.component import component
from fedrobust.config.scalars import Size
from fedrobust.errors import ConfigError
from fedrobust.federation.attack import Requirements
from fedrobust.federation.one_call import on_rows
from fedrobust.federation.threat import View
from fedrobust.typing import Images, Labels, Updates


@component
class LabelFlip:
    """Data poisoning: malicious clients train honestly on the labels y ← classes - 1 - y.

    With ``source`` and ``target``, only the label ``source`` is changed, to ``target``.

    Reference: Fang et al., "Local model poisoning attacks to Byzantine-robust federated learning",
    USENIX Security 2020 (all labels); Tolpegin et al., "Data poisoning attacks against federated
    learning systems", ESORICS 2020 (source and target).

    Cost: honest training on other labels.

    Example: ``{name: label-flip}``
    """

    source: Size | None = None
    target: Size | None = None
    name: Literal["label-flip"] = "label-flip"
    __call__ = on_rows

    requires: ClassVar[Requirements] = Requirements()

    @model_validator(mode="after")
    def _fits(self) -> "LabelFlip":
        if (self.source is None) != (self.target is None):
            raise ValueError("source and target go together: give both, or neither to flip all")
        if self.source is not None and self.source == self.target:
            raise ValueError(f"source and target are both {self.source}, which changes nothing")
        return self

    def init(self) -> None:
        """Return None: the attack keeps no state."""

    def poison(self, x: Images, y: Labels, classes: int) -> tuple[Images, Labels]:
        """Return the batch with false labels.

        Raises: ``ValueError`` for an invalid batch, or a label that does not exist.
        """
        x, y = batch(x, y, classes)
        if self.source is None or self.target is None:
            return x, classes - 1 - y
        if max(self.source, self.target) >= classes:
            raise ConfigError(
                f"label-flip: labels go from 0 to {classes - 1}; "
                f"source is {self.source} and target {self.target}"
            )
        return x, torch.where(y == self.source, self.target, y)

    def craft(self, state: None, view: View, rng: torch.Generator) -> tuple[Updates, None]:
        """Return the updates from training on the poisoned data [m, d]."""
        validate(self, view, rng)
        return view.own, None
