"""Clean and robust accuracy, example by example."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedrobust.perturb import Perturbation
from fedrobust.perturb.pgd import answers
from fedrobust.typing import Images, Labels, Mask


@dataclass(frozen=True)
class Scores:
    """What a model does on each of b examples: ``robust`` implies ``correct``."""

    correct: Mask
    robust: Mask
    loss: Tensor

    @property
    def accuracy(self) -> float:
        """The share of examples classified correctly."""
        return self.correct.double().mean().item()

    @property
    def robust_accuracy(self) -> float:
        """The share of examples classified correctly before and after every attack."""
        return self.robust.double().mean().item()

    @property
    def mean_loss(self) -> float:
        """The mean clean cross-entropy."""
        return self.loss.double().mean().item()


def accuracy(model: nn.Module, x: Images, y: Labels, *, batch_size: int = 256) -> float:
    """The share of the examples (x, y) that ``model`` classifies correctly."""
    require_examples(x, y)
    with evaluating(model):
        return _clean(model, x, y, batch_size)[0].double().mean().item()


def robust_accuracy(
    model: nn.Module,
    x: Images,
    y: Labels,
    *,
    attack: Perturbation,
    generator: torch.Generator | None = None,
    batch_size: int = 256,
) -> float:
    """The share of the examples (x, y) classified correctly, clean and under ``attack``.

    With restarts an example counts as robust only if every restart fails: this never rises with
    more of them. Misclassified clean examples are not robust, since the clean point is in the ball.

    x: [b, ...] in [0, 1]; y: [b]. The model is put into evaluation mode and back. Raises:
    ``ValueError`` without examples, with labels that do not fit in number, with values that are not
    finite, or outside the pixel range that the attack keeps to.
    """
    source = generator if generator is not None else torch.Generator().manual_seed(0)
    scores = score(model, x, y, attack=attack, generator=source, batch_size=batch_size)
    return scores.robust_accuracy


def score(
    model: nn.Module,
    x: Images,
    y: Labels,
    *,
    attack: Perturbation,
    generator: torch.Generator,
    batch_size: int,
) -> Scores:
    """The scores of every example. Noise is drawn for all of them before any is skipped."""
    require_examples(x, y)
    with evaluating(model):
        correct, losses = _clean(model, x, y, batch_size)
        open_ = correct.nonzero().squeeze(1)

        def draw() -> Tensor | None:
            noise = attack.draw(x, generator)
            return None if noise is None else noise[open_]

        adversarial = attack.maximise(model, x[open_], y[open_], draw, batch=batch_size)
        robust = correct.clone()
        if len(open_):
            robust[open_] = _clean(model, adversarial, y[open_], batch_size)[0]
    return Scores(correct, robust, losses)


def right(model: nn.Module, x: Images, y: Labels, batch_size: int) -> Mask:
    """Which of the examples (x, y) ``model``, in the mode that it is in, classifies correctly."""
    return answers(_logits(model, x, batch_size)) == y


def _clean(model: nn.Module, x: Images, y: Labels, batch_size: int) -> tuple[Mask, Tensor]:
    logits = _logits(model, x, batch_size)
    return answers(logits) == y, F.cross_entropy(logits, y, reduction="none")


def _logits(model: nn.Module, x: Images, batch_size: int) -> Tensor:
    with torch.no_grad():
        return torch.cat([model(part) for part in torch.split(x, batch_size)])


def require_examples(x: Images, y: Labels) -> None:
    """Raises: ``ValueError`` where there is nothing to measure, or it cannot be measured."""
    if len(x) != len(y):
        raise ValueError(f"{len(x)} examples but {len(y)} labels")
    if len(x) == 0:
        raise ValueError("there are no examples to measure on")
    if not torch.isfinite(x).all():
        raise ValueError("x holds NaN or infinite values")


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Within, every part of ``model`` is in evaluation mode; afterwards each is as it was."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
