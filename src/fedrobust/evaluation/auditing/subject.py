"""The model under audit: what it gives, and how it has to be asked."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fedrobust.typing import Images, Labels

_STEADY = 1e-6


class Scaled(nn.Module):
    """``model`` with its logits times ``factor``."""

    def __init__(self, model: nn.Module, factor: float) -> None:
        super().__init__()
        self.model, self.factor = model, factor

    def forward(self, x: Images) -> Tensor:
        """The scaled logits [b, classes]."""
        logits: Tensor = self.model(x) * self.factor
        return logits


class Logs(nn.Module):
    """The logits of a model that gives probabilities: their logarithms."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Images) -> Tensor:
        """log p [b, classes]."""
        p: Tensor = self.model(x)
        return p.clamp_min(torch.finfo(p.dtype).tiny).log()


class Deaf(nn.Module):
    """A model through which no gradient comes: its gradient by the input is taken for 0."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Images) -> Tensor:
        """The same logits, joined to x by a slope of 0."""
        logits: Tensor = self.model(x.detach())
        return logits.detach() + 0 * x.flatten(1).sum(dim=1, keepdim=True)


@dataclass(frozen=True)
class Subject:
    """A model that gives logits with a gradient, and what had to be said about it.

    ``differentiable`` is false where no gradient reaches the input, ``steady`` where the same input
    gives other logits the next time, ``constant`` where it gives many examples one answer. ``said``
    are the logits of a few examples, as the model gave them; None where it is not steady.
    """

    model: nn.Module
    classes: int
    differentiable: bool
    steady: bool
    constant: bool
    notes: tuple[str, ...]
    said: Tensor | None


def subject(model: nn.Module, x: Images, y: Labels, batch: int = 256) -> Subject:
    """Look at ``model``, in evaluation mode, on a few of the examples (x, y).

    Raises: ``ValueError`` for inputs outside [0, 1], a model that does not fit them, logits that
    are no [b, classes], or labels beyond the classes.
    """
    if x.min() < 0 or x.max() > 1:
        raise ValueError(
            f"the examples lie in [{x.min():g}, {x.max():g}]; an audit is of images in [0, 1]: "
            "scale them (bytes by 1/255), and normalise them inside the model"
        )
    some = x[:16]
    try:
        with torch.no_grad():
            first, again = model(some), model(some)
    except Exception as error:  # a user's network may fail in any way
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(
            f"the model does not take examples {x.dtype} {list(x.shape[1:])}: {reason}"
        ) from error
    if not isinstance(first, Tensor) or first.dim() != 2 or len(first) != len(some):
        given = list(first.shape) if isinstance(first, Tensor) else type(first).__name__
        raise ValueError(
            f"the model must give logits [{len(some)}, classes] for {len(some)} examples; "
            f"it gave {given}"
        )
    classes = first.shape[1]
    if classes < 2:
        raise ValueError("the model gives one number an example; an audit needs two logits or more")
    if int(y.min()) < 0 or int(y.max()) >= classes:
        raise ValueError(
            f"labels go from {int(y.min())} to {int(y.max())}, but the model has {classes} classes"
        )
    notes: list[str] = []
    if first.isnan().any():
        notes.append("the model gives logits that are no numbers; these answers count as wrong")
    steady = same(first, again)
    if not steady:
        notes.append("the model is randomised: the same input gives other logits the next time")
    if bool((first >= 0).all()) and torch.allclose(first.sum(1), torch.ones_like(first[:, 0])):
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
        model = Deaf(model)
    with torch.no_grad():
        logits = [model(part) for part in torch.split(x[:200], batch)]
    chosen = torch.cat(logits).argmax(dim=1)
    constant = bool((chosen == chosen[0]).all()) and not bool((y[:200] == y[0]).all())
    if constant:
        notes.append("the model gives one answer to everything: there is nothing to audit")
    said = first if steady else None
    return Subject(model, classes, differentiable, steady, constant, tuple(notes), said)


def same(first: Tensor, again: Tensor, rounding: float = _STEADY) -> bool:
    """Whether two answers to the same examples are the same, row by row, but for rounding."""
    if first.shape != again.shape or not torch.equal(first.isfinite(), again.isfinite()):
        return False
    a, b = (logits.where(logits.isfinite(), 0) for logits in (first, again))
    near: Tensor = (a - b).abs().amax(dim=1) <= rounding * a.abs().amax(dim=1)
    return bool(near.all())


def _slope(model: nn.Module, x: Images) -> Tensor | None:
    """A gradient of the logits by the input, each at its own weight; None where there is no path.

    Raises: ``ValueError`` for a model that fails for another reason than that it leaves PyTorch.
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_(True)
        try:
            logits = model(x)
        except RuntimeError as error:  # it took x without a gradient
            if "numpy()" in str(error):
                return None
            raise ValueError(f"the model cannot be differentiated: {error}") from error
        if not logits.requires_grad:
            return None
        mixed = logits * torch.linspace(1, 2, logits.shape[1], dtype=logits.dtype, device=x.device)
        slope: Tensor | None = torch.autograd.grad(mixed.sum(), x, allow_unused=True)[0]
    return slope
