"""The only place that calls a model: for logits, and gradients by its inputs or parameters.

A model is a user's code. It gets a copy of its inputs, on which it may work in place. Its results
are checked, so that a mistake gives one clear message and not a wrong result. Its modes are
restored.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedrobust.config import arguments
from fedrobust.config.text import shortened
from fedrobust.errors import ModelError, UndifferentiableError
from fedrobust.typing import Images, Labels, Mask, Vector


def logits(model: nn.Module, x: Images) -> Tensor:
    """Return the logits [b, classes] of ``model``, in its current mode, for x [b, ...].

    Raises: ``ModelError`` where the model fails, or gives anything else.
    """
    try:
        found = model(x.clone())
    except ModelError:
        raise
    except Exception as error:  # a user's network may fail in any way
        reason = shortened(f"{type(error).__name__}: {error}", 300)
        raise ModelError(
            f"the model does not take examples {x.dtype} {list(x.shape[1:])}, {len(x)} at a time: "
            f"{reason}"
        ) from error
    if not isinstance(found, Tensor) or arguments.unfit(found) or _rows(found) != len(x):
        raise ModelError(_no_logits(found, len(x)))
    if not found.is_floating_point():
        raise ModelError(
            f"the model must give logits, floating-point numbers; it gave {found.dtype}"
        )
    return found


def _rows(found: Tensor) -> int:
    """Return the number of rows of a matrix; -1 where ``found`` is not a matrix."""
    return len(found) if found.dim() == 2 else -1


def _no_logits(found: object, count: int) -> str:
    wanted = f"the model must give logits, one logit for each class: [{count}, classes]"
    if isinstance(found, Tensor) and (why := arguments.unfit(found)):
        return f"{wanted}; it gave a tensor that is {why}"
    if isinstance(found, Tensor):
        hint = ": it must answer a batch of one like any other" if count == 1 else ""
        return f"{wanted}; it gave shape {list(found.shape)}{hint}"
    cure = "wrap it in a module whose forward gives the logits alone"
    if isinstance(found, tuple | list):
        return f"{wanted}; it gave a {type(found).__name__} of {len(found)}: {cure}"
    if isinstance(found, dict):
        keys = shortened(", ".join(map(str, found)))
        return f"{wanted}; it gave a mapping with {keys}: {cure}"
    return f"{wanted}; it gave {arguments.told(found)}: {cure}"


def batched_logits(model: nn.Module, x: Images, batch: int) -> Tensor:
    """Return the logits [b, classes], computed ``batch`` at a time, without a gradient."""
    with torch.no_grad():
        # Copies: a model may return the same memory each time.
        return torch.cat([logits(model, part).clone() for part in torch.split(x, batch)])


def answers(found: Tensor) -> Tensor:
    """Return the class with the largest logit of each row; -1, which is never right, for NaN."""
    return torch.where(found.isnan().any(dim=1), -1, found.argmax(dim=1))


def right(model: nn.Module, x: Images, y: Labels, batch: int) -> Mask:
    """Return which examples (x, y) ``model``, in its current mode, classifies correctly."""
    return answers(batched_logits(model, x, batch)) == y


def logit_of(found: Tensor, y: Labels) -> Tensor:
    """Return z_y of each row of logits [b]. Raises: ``ValueError`` for labels without a class."""
    try:
        return found.gather(1, y[:, None])[:, 0]
    except RuntimeError:
        arguments.labels(y, len(found), found.shape[1])
        raise


def margin(found: Tensor, y: Labels) -> Tensor:
    """Return z_y − max_{i≠y} z_i of each row of logits: below 0 for a mistake."""
    own = logit_of(found, y)
    return own - found.scatter(1, y[:, None], -torch.inf).amax(dim=1)


def cross_entropy(found: Tensor, y: Labels, reduction: str = "none") -> Tensor:
    """Return the cross-entropy of each row of logits [b], or their ``sum`` or ``mean``.

    Raises: ``ValueError`` for labels that the model has no class for.
    """
    try:
        return F.cross_entropy(found, y, reduction=reduction)
    except IndexError:
        arguments.labels(y, len(found), found.shape[1])
        raise


def ascent(
    model: nn.Module, x: Images, function: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Return logits, values and slopes: ``function`` of the logits [b], its gradient by x [b, ...].

    Each value must depend on its own example only, so the gradient of the sum contains the gradient
    of each value. A function may also return the sum itself.

    Raises: ``ModelError`` where no gradient reaches the input.
    """
    with torch.enable_grad():
        at = x.detach().requires_grad_(True)
        found = logits(model, at)
        value = function(found)
        slope = None
        if value.requires_grad:
            total = value.sum() if value.dim() else value
            (slope,) = torch.autograd.grad(total, at, allow_unused=True)
    if slope is None:
        raise UndifferentiableError(
            "no gradient reaches the model's input (it detaches, or leaves PyTorch): attacks by "
            "gradients cannot work on it; use Square, which needs no gradient, and an audit to "
            "find what they miss"
        )
    return found.detach(), value.detach(), slope


def differentiable(model: nn.Module, x: Images) -> bool:
    """Whether a gradient of the logits, even if it is 0, reaches the inputs x [b, ...]."""
    try:
        with frozen(model):
            ascent(model, x, lambda found: found.sum(dim=1))
    except UndifferentiableError:
        return False
    return True


def input_gradient(model: nn.Module, x: Images, y: Labels) -> Tensor:
    """Return ∇ₓ of the cross-entropy on raw logits, summed over the batch."""
    return ascent(model, x, lambda found: cross_entropy(found, y, "sum"))[2]


def usable(slope: Tensor) -> Tensor:
    """Make ``slope`` [b, ...] finite, example by example, so that an ascent can follow it.

    NaN counts as 0. An infinity counts as the steepest of the example's finite entries (1 where
    there are none): a larger value would alone decide the direction of a step of a given length.
    """
    if slope.device.type == "cpu" and bool(slope.sum().isfinite()):
        return slope  # if the sum of finite entries overflows, the code below only costs time
    finite = slope.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
    steepest = finite.flatten(1).abs().amax(dim=1)
    steepest = torch.where(steepest > 0, steepest, 1).reshape(-1, *[1] * (slope.dim() - 1))
    return torch.where(slope.isinf(), slope.sign() * steepest, finite)


def parameter_gradient(model: nn.Module, x: Images, y: Labels) -> Vector:
    """Return ∇_θ of the mean cross-entropy over the batch [d]; 0 for an unused parameter."""
    return gradient_of(model, lambda: cross_entropy(logits(model, x), y, "mean"))


def gradient_of(model: nn.Module, loss: Callable[[], Tensor]) -> Vector:
    """Return ∇_θ of what ``loss`` computes with ``model`` [d]; 0 for an unused parameter."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    with torch.enable_grad():
        gradients = torch.autograd.grad(loss(), trained, materialize_grads=True)
    return torch.cat([gradient.reshape(-1) for gradient in gradients])


class Asked(nn.Module):
    """Calls ``model`` as it is always called, with the same checks of its answer."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.training = model.training
        self.model = model

    def forward(self, x: Images) -> Tensor:
        """Return the logits [b, classes]."""
        return logits(self.model, x)


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Inside this context, autograd differentiates only by inputs, not by the parameters."""
    trained = [p for p in model.parameters() if p.requires_grad and p.is_leaf]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Inside this context, all of ``model`` is in evaluation mode; the modes are restored."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
