"""Check the model under audit: what it returns, and how it must be called."""

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fedrobust.compute.network import answers, batched_logits, logits
from fedrobust.compute.trial import are_probabilities, mixes, require_one_answer, same, spread
from fedrobust.config import arguments
from fedrobust.errors import ModelError, ModelWarning
from fedrobust.typing import Images, Labels


class Scaled(nn.Module):
    """``model`` with its logits times ``factor``."""

    def __init__(self, model: nn.Module, factor: float) -> None:
        super().__init__()
        self.model, self.factor = model, factor

    def forward(self, x: Images) -> Tensor:
        """Return the scaled logits [b, classes]."""
        return logits(self.model, x) * self.factor


class Logs(nn.Module):
    """A model that returns the logarithms of another model's probabilities as logits."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Images) -> Tensor:
        """Return log p [b, classes]."""
        p = logits(self.model, x)
        return p.clamp_min(torch.finfo(p.dtype).tiny).log()


class NoInputGradient(nn.Module):
    """A model that lets no gradient through. Its gradient with respect to the input is set to 0."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Images) -> Tensor:
        """Return the model's logits, connected to x with a gradient of 0."""
        found = logits(self.model, x.detach())
        return found.detach() + 0 * x.flatten(1).sum(dim=1, keepdim=True)


@dataclass(frozen=True)
class ModelCheck:
    """A model that gives logits with a gradient, and notes about it.

    ``differentiable`` is false where no gradient reaches the input. ``steady`` is false where the
    same input gives other logits the next time or in another batch. ``constant`` is true where it
    gives the same answer to all examples. ``said`` are the logits of a few examples, as the model
    gave them; None where it is randomised.
    """

    model: nn.Module
    classes: int
    differentiable: bool
    steady: bool
    constant: bool
    notes: tuple[str, ...]
    said: Tensor | None


def subject(model: nn.Module, x: Images, y: Labels, batch: int = 256) -> ModelCheck:
    """Check ``model``, in evaluation mode, on a few of the examples (x, y).

    Raises: ``ModelError``, a ``ValueError``, for a model that does not fit them, gives no logits
    [b, classes], or answers otherwise where gradients are taken; ``ValueError`` for labels beyond
    the classes.
    """
    some = spread(x, 16)
    with torch.no_grad():
        first, again = (logits(model, some).clone() for _ in range(2))
    classes = first.shape[1]
    if classes < 2:
        raise ModelError("the model gives one number an example; an audit needs two logits or more")
    if int(y.min()) < 0 or int(y.max()) >= classes:
        raise ValueError(
            f"labels go from {int(y.min())} to {int(y.max())}, but the model has {classes} classes"
        )
    notes: list[str] = []
    if first.isnan().any():
        notes.append("the model gives logits that are no numbers; these answers count as wrong")
    with torch.no_grad():
        require_one_answer(model, some, first)
        said = logits(model, x[:16]).clone()
    steady = same(first, again)
    if not steady:
        notes.append("the model is randomised: the same input gives other logits the next time")
    mixed = mixes(model, some)
    if mixed:
        notes.append(
            "the model's answer to an example depends on the rest of its batch, as with BatchNorm "
            "without running statistics: every figure here depends on how examples are batched"
        )
    if are_probabilities(first):
        notes.append("the model gives probabilities; their logarithms were taken for logits")
        if lost := int((first == 1).any(dim=1).sum()):
            notes.append(
                f"{lost} of {len(first)} examples have a probability of exactly 1: what the logits "
                "were is lost there, no attack can scale them back, and what is called robust may "
                "not be; audit the model without its softmax"
            )
        model = Logs(model)
    slope = _slope(model, some)
    differentiable = slope is not None
    if slope is not None and not slope.any():
        notes.append(
            f"the gradient of the logits is 0 at all of {len(some)} examples, as behind rounding: "
            "gradient attacks see a flat surface"
        )
    if not differentiable:
        notes.append("no gradient reaches the input: gradient attacks see a flat surface")
        model = NoInputGradient(model)
    chosen = answers(batched_logits(model, x, batch))
    constant = bool((chosen == chosen[0]).all()) and not bool((y == y[0]).all())
    if constant:
        notes.append("the model gives one answer to everything: there is nothing to audit")
    return ModelCheck(
        model,
        classes,
        differentiable,
        steady and not mixed,
        constant,
        tuple(notes),
        said if steady else None,
    )


def warn_of_channels_last(model: nn.Module, x: Images) -> None:
    """Warn where ``x`` looks like images [N, h, w, c], and ``model`` also takes [N, c, h, w].

    A model that flattens its input does. Only the shapes are known, so this is no error.
    """
    if not arguments.looks_channels_last(x.shape):
        return
    try:
        with torch.no_grad():
            logits(model, x[:1].permute(0, 3, 1, 2).contiguous())
    except ModelError:
        return
    warnings.warn(
        f"x has shape {list(x.shape)}, as of images with channels last, and the model takes both "
        "orders: if it was trained on [N, c, h, w], pass x.permute(0, 3, 1, 2)",
        ModelWarning,
        stacklevel=3,
    )


def _slope(model: nn.Module, x: Images) -> Tensor | None:
    """Return the input gradient of a weighted sum of the logits; None where there is no path.

    Raises: ``ValueError`` for a model that fails for another reason than leaving PyTorch.
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_(True)
        try:
            found = logits(model, x)
        except ModelError as error:
            if "numpy()" in str(error):  # the model worked on x without a gradient before
                return None
            raise
        if not found.requires_grad:
            return None
        mixed = found * torch.linspace(1, 2, found.shape[1], dtype=found.dtype, device=x.device)
        slope: Tensor | None = torch.autograd.grad(mixed.sum(), x, allow_unused=True)[0]
    return slope
