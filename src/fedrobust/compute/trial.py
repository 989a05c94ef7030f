"""Try a model on a few examples: does it give logits, and one answer however it is asked?"""

from contextlib import suppress

import torch
from torch import Tensor, nn

from fedrobust.compute.network import evaluating, logits
from fedrobust.compute.randomness import isolated
from fedrobust.errors import ModelError
from fedrobust.typing import Images

_FEW = 8
"""The number of examples on which a model is tried out."""
_MIXED = 1e-3
"""The largest change of an answer with its batch, relative to the largest logit, from rounding."""


def require_logits(model: nn.Module, x: Images, *, alone: bool = True) -> int:
    """Return the number of classes of ``model``, tried on the first of x in evaluation mode.

    ``alone`` also checks that an example's answer does not depend on the others of its batch,
    within rounding: otherwise a result would depend on how examples are batched. A randomised model
    is not checked.

    Raises: ``ModelError`` where the model does not give logits for two classes or more, or gives
    probabilities, or answers that depend on their batch.
    """
    some = spread(x)
    with evaluating(model), isolated(), torch.no_grad():
        found = logits(model, some).clone()
        if found.shape[1] < 2:
            raise ModelError(
                "the model gives one number for each example; it must give one logit for each of "
                "two classes or more"
            )
        # Equal answers show nothing: a constant classifier may well give 0s and a 1.
        if are_probabilities(found) and not bool((found == found[:1]).all()):
            raise ModelError(
                "the model gives probabilities, not logits: leave out its softmax, because the "
                "cross-entropy applies it; a second softmax hides gradients and makes a model "
                "look robust"
            )
        if alone:
            require_one_answer(model, some, found)
        if alone and len(some) > 1 and _mixes(model, some, found):
            raise ModelError(
                "the model's answer to an example depends on the rest of its batch, as it does "
                "with BatchNorm without running statistics: figures would depend on how examples "
                "are batched. Use GroupNorm, or keep the statistics (track_running_stats=True)"
            )
    return int(found.shape[1])


def require_one_answer(model: nn.Module, x: Images, found: Tensor) -> None:
    """Refuse a model that answers x otherwise than ``found`` where gradients are taken.

    A randomised model is not refused. Raises: ``ModelError``.
    """
    if _differs(model, x, found):
        raise ModelError(
            "the model's answer depends on whether gradients are taken (torch.is_grad_enabled, or "
            "requires_grad of its input): attacks would see another model than is measured"
        )


def spread(x: Tensor, few: int = _FEW) -> Tensor:
    """Return at most ``few`` of x, spread over all of it, because x may be sorted by class."""
    return x[:: max(1, len(x) // few)][:few]


def are_probabilities(found: Tensor) -> bool:
    """Whether every row of a model's answers is a distribution over the classes."""
    total = found.double().sum(dim=1)
    rounding = 4 * found.shape[1] * torch.finfo(found.dtype).eps
    return bool((found >= 0).all() and ((total - 1).abs() <= rounding).all())


def _differs(model: nn.Module, x: Images, without: Tensor) -> bool:
    """Whether the model answers differently where gradients are taken, and is not randomised."""
    found = list[Tensor]()
    with torch.enable_grad():
        found.append(logits(model, x).detach().clone())
        with suppress(ModelError):  # a model that leaves PyTorch does not take such an input
            found.append(logits(model, x.detach().requires_grad_()).detach().clone())
    apart = any(_apart(each, without, without) for each in found)
    return apart and same(logits(model, x), without)


def mixes(model: nn.Module, x: Images) -> bool:
    """Whether the first example's answer depends on the rest of the batch, in the current mode.

    Raises: ``ModelError`` where the model cannot answer one example alone.
    """
    some = spread(x)
    with isolated(), torch.no_grad():
        return len(some) > 1 and _mixes(model, some, logits(model, some).clone())


def _mixes(model: nn.Module, x: Images, together: Tensor) -> bool:
    alone = logits(model, x[:1]).clone()
    apart = _apart(alone, together[:1], together)
    return apart and same(logits(model, x), together)  # otherwise it is randomised


def _apart(first: Tensor, other: Tensor, scale: Tensor) -> bool:
    """Whether answers differ by more than rounding, relative to the largest logit of ``scale``."""
    gap, size = (
        float(found.where(found.isfinite(), 0).abs().amax()) for found in (first - other, scale)
    )
    return gap > max(_MIXED, 8 * torch.finfo(scale.dtype).eps) * size


def same(first: Tensor, again: Tensor, rounding: float = 1e-6) -> bool:
    """Whether two answers to the same examples are the same, row by row, up to rounding."""
    if first.shape != again.shape or not torch.equal(first.isfinite(), again.isfinite()):
        return False
    a, b = (found.where(found.isfinite(), 0) for found in (first, again))
    near: Tensor = (a - b).abs().amax(dim=1) <= rounding * a.abs().amax(dim=1)
    return bool(near.all())
