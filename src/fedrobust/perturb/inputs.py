"""Checks on the arguments of an inner maximisation, before it begins."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from fedrobust.compute.network import logits
from fedrobust.compute.trial import require_logits
from fedrobust.config import arguments
from fedrobust.typing import Images, Labels


class Narrow(nn.Module):
    """A model of half precision that takes inputs of single precision."""

    def __init__(self, model: nn.Module, kind: torch.dtype) -> None:
        super().__init__()
        self.model, self.kind = model, kind

    def forward(self, x: Images) -> Tensor:
        """Return the logits [b, classes] at x, rounded to the model's type."""
        return logits(self.model, x.to(self.kind))


def begin(
    model: nn.Module, x: Images, y: Labels, draw: object, batch: int | None, *, box: bool
) -> tuple[nn.Module, Images, Labels, int]:
    """Return the model, valid examples, labels and batch of an attack; there may be no examples.

    In half precision a step of ε/30 is lost to rounding: bfloat16 has 256 numbers from ½ to 1. So
    an attack on such examples computes in single precision, and only the model rounds them.

    Raises: ``ValueError`` that names the invalid argument.
    """
    arguments.module(model)
    x = arguments.images(x, least=0)
    y = arguments.labels(y, len(x))
    if draw is not None and not callable(draw):
        raise ValueError(f"draw must be a function without arguments; got {arguments.told(draw)}")
    if batch is not None:
        arguments.whole("batch", batch)
    x = arguments.pixels(x) if box else x
    if x.dtype in (torch.float16, torch.bfloat16):
        model, x = Narrow(model, x.dtype), x.float()
    return model, x, y, batch or max(len(x), 1)


def drawn(draw: Callable[[], Tensor | None], x: Images) -> Tensor | None:
    """Return what ``draw`` gives for x [b, ...]: a number for each of its values, or None.

    Raises: ``ValueError`` for anything else.
    """
    noise = draw()
    if noise is not None and (not isinstance(noise, Tensor) or noise.shape != x.shape):
        raise ValueError(
            f"draw must give a tensor {list(x.shape)}, or None; it gave {arguments.told(noise)}"
        )
    return noise


def require_draws(x: Images, generator: torch.Generator) -> None:
    """Refuse inputs or generators that noise cannot be drawn for. Raises: ``ValueError``."""
    arguments.generator(generator)
    empty = len(x) and not x.numel() if arguments.tensor(x, "x").dim() else True
    if x.dim() < 2 or empty or not x.is_floating_point():
        arguments.images(x, least=0)


def require_price(gamma: float) -> None:
    """Require that γ is a positive number or infinity. Raises: ``ValueError`` otherwise."""
    if not arguments.is_real(gamma) or not gamma > 0:
        told = arguments.told(gamma)
        raise ValueError(f"gamma must be above 0 (infinity means that nothing moves); got {told}")


def require_inputs(
    model: nn.Module, x: Images, y: Labels, *, alone: bool = True
) -> tuple[Images, Labels]:
    """Return the examples, valid for this model, and their labels as int64.

    Raises: ``ValueError`` for invalid examples or labels; ``ModelError``, a subclass of it, for an
    invalid model. See :func:`~fedrobust.compute.trial.require_logits` for ``alone``.
    """
    arguments.module(model)
    x = arguments.images(x)
    return x, arguments.labels(y, len(x), require_logits(model, x, alone=alone))
