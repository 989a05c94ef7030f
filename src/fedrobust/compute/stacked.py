"""A model at many parameter vectors at once: each client's own, in one batch of work."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from fedrobust.compute.network import Asked, cross_entropy, logits, parameter_gradient
from fedrobust.compute.parameters import read, write
from fedrobust.config.text import shortened
from fedrobust.typing import Images, Labels, Updates, Vector

_NEAR = 1e-3
"""The largest distance of a gradient from autograd's, relative to its length, from rounding."""


class Stacked(nn.Module):
    """``model`` at the rows of ``theta`` [n, d]: x [n · b, ...] has b examples for each row.

    The parameters are constants here: the logits have a gradient by x only.
    """

    def __init__(self, model: nn.Module, theta: Updates) -> None:
        super().__init__()
        self.train(model.training)
        self._asked = _asked(model)
        self._theta = theta

    def forward(self, x: Images) -> Tensor:
        """Return the logits [n · b, classes]."""
        parts = x.view(len(self._theta), -1, *x.shape[1:])
        found: Tensor = vmap(self._asked)(self._theta, parts)
        return found.flatten(0, 1)


def client_gradients(model: nn.Module, theta: Tensor, x: Images, y: Labels) -> Updates:
    """Return ∇_θ of each client's mean cross-entropy [n, d], by one backward pass.

    x: [n, b, ...]; y: [n, b]. ``theta`` is one vector [d] for all clients, or the rows [n, d].
    """
    asked = _asked(model)

    def loss(vector: Vector, images: Images, labels: Labels) -> Tensor:
        return cross_entropy(asked(vector, images), labels, "mean")

    shared = None if theta.dim() == 1 else 0
    found: Updates = vmap(grad(loss), in_dims=(shared, 0, 0))(theta, x, y)
    return found


def _asked(model: nn.Module) -> Callable[[Vector, Images], Tensor]:
    """Return the function that gives the logits of ``model`` at a parameter vector [d]."""
    shapes = {name: p.shape for name, p in model.named_parameters() if p.requires_grad}
    sizes = [shape.numel() for shape in shapes.values()]
    # Not registered as a module of its own: ``model`` stays in its mode, whoever asks.
    asking = Asked(model)

    def asked(vector: Vector, images: Images) -> Tensor:
        pieces = zip(shapes.items(), torch.split(vector, sizes), strict=True)
        named = {f"model.{name}": piece.view(shape) for (name, shape), piece in pieces}
        found: Tensor = functional_call(asking, named, (images,))
        return found

    return asked


def why_not(model: nn.Module, x: Images) -> str | None:
    """Return why ``model`` cannot be asked for many clients at once; None where it can.

    It is tried on two clients with one of the examples x each, at one vector and at two.
    """
    if len(x) < 2:
        x = x.expand(2, *x.shape[1:])
    theta = read(model)
    images, y = x[:2, None], torch.zeros(2, 1, dtype=torch.long, device=x.device)
    other = 0.9 * theta
    try:
        for rows in (torch.stack([theta, theta]), torch.stack([theta, other])):
            gradients, answers = _one_after_another(model, rows, images, y)
            write(model, theta)
            shared = torch.equal(rows[0], rows[1])
            if not _near(client_gradients(model, theta if shared else rows, images, y), gradients):
                return "its gradients for several clients at once differ from those for one"
            with torch.no_grad():
                stacked = Stacked(model, rows)(x[:2])
            if not _near(stacked, answers):
                return "its logits for several clients at once differ from those for one"
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # a user's network may fail in any way
        cause = error.__cause__ or error
        return f"torch.func.vmap does not take the model: {shortened(str(cause), 200)}"
    return None


def _one_after_another(
    model: nn.Module, rows: Updates, images: Images, y: Labels
) -> tuple[Updates, Tensor]:
    """Return the gradient and the logits of each client, at the row that it has."""
    gradients, answers = [], []
    for row, x, label in zip(rows, images, y, strict=True):
        write(model, row)
        gradients.append(parameter_gradient(model, x, label))
        with torch.no_grad():
            answers.append(logits(model, x).clone())
    return torch.stack(gradients), torch.cat(answers)


def _near(found: Tensor, expected: Tensor) -> bool:
    return bool((found - expected).norm() <= _NEAR * expected.norm())
