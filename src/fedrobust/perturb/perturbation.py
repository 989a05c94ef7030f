"""The interface of an inner maximisation."""

from collections.abc import Callable
from typing import Annotated, Protocol, TypeAlias

import torch
from torch import Tensor, nn

from fedrobust.compute.trial import require_logits
from fedrobust.config import arguments
from fedrobust.config.kind import Kind
from fedrobust.typing import Images, Labels

Draw: TypeAlias = Callable[[], Tensor | None]
"""Gives the random start of one restart for all examples; called once for each restart."""


class Perturbation(Protocol):
    """A search for the input near x on which the model is worst."""

    def draw(self, x: Images, generator: torch.Generator) -> Tensor | None:
        """Return the random start of one restart for every example, or None where there is none."""
        ...

    def maximize(
        self, model: nn.Module, x: Images, y: Labels, draw: Draw, *, batch: int | None = None
    ) -> Images:
        """Return perturbed examples, computed ``batch`` at a time."""
        ...


PERTURBATION = Kind(
    "perturbation",
    has=("draw", "maximize"),
    calls={"draw": "x, generator", "maximize": "model, x, y, draw, *, batch"},
)
AnyPerturbation: TypeAlias = Annotated[Perturbation, PERTURBATION]


def adversarial(
    attack: Perturbation,
    model: nn.Module,
    x: Images,
    y: Labels,
    *,
    generator: torch.Generator | None = None,
    batch_size: int | None = None,
) -> Images:
    """Return the attack's adversarial examples for ``x`` [b, ...] with labels ``y`` [b].

    The model keeps its mode, its parameters do not change, and the result has the type of ``x``.
    Starts are drawn from ``generator``, seed 0 if left out. Attacks have it as their call:
    ``Pgd(eps=0.3, step_size=0.01, steps=40)(model, x, y)``.

    Raises: ``ValueError``, which names the argument; ``ModelError``, a subclass of it, for a model
    that gives no logits, or no gradient.
    """
    arguments.module(model)
    x = arguments.images(x, least=0)
    if batch_size is not None:
        arguments.whole("batch_size", batch_size)
    if generator is not None:
        arguments.generator(generator)
    y = arguments.labels(y, len(x), require_logits(model, x, alone=False) if len(x) else None)
    source = generator if generator is not None else torch.Generator().manual_seed(0)
    return attack.maximize(model, x, y, lambda: attack.draw(x, source), batch=batch_size)
