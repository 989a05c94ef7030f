"""A model's trainable parameters as one flat vector, with a named slice for each tensor."""

from dataclasses import dataclass

import torch
from torch import nn

from fedrobust.config.arguments import told
from fedrobust.errors import ConfigError
from fedrobust.typing import Vector


@dataclass(frozen=True)
class Layout:
    """Where each trainable tensor of a model lies in its flat vector, in the model's own order.

    ``layout.slices["2.weight"]`` is the range of one tensor. The updates of this tensor alone are
    ``updates[:, layout.slices["2.weight"]]``.
    """

    slices: dict[str, slice]
    shapes: dict[str, tuple[int, ...]]

    @classmethod
    def of(cls, model: nn.Module) -> "Layout":
        """Return the layout. Raises: ``ConfigError`` for nothing to train, or mixed types."""
        trainable(model)
        parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        if len(types := {p.dtype for p in parameters.values()}) > 1:
            raise ConfigError(f"the model mixes parameter types: {sorted(map(str, types))}")
        slices, start = {}, 0
        shapes = {name: tuple(p.shape) for name, p in parameters.items()}
        for name, parameter in parameters.items():
            slices[name] = slice(start, start + parameter.numel())
            start += parameter.numel()
        return cls(slices, shapes)

    @property
    def size(self) -> int:
        """d, the number of trainable parameters."""
        return sum(piece.stop - piece.start for piece in self.slices.values())


def trainable(model: nn.Module) -> list[nn.Parameter]:
    """Return the parameters that training changes; nobody can change the frozen ones.

    Raises: ``ConfigError`` where there is none.
    """
    found = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not found:
        some = any(True for _ in model.parameters())
        why = "all are frozen; call requires_grad_(True) on some" if some else "it has none at all"
        raise ConfigError(f"the model has no parameters to train: {why}")
    return found


def read(model: nn.Module) -> Vector:
    """Return the trainable parameters of ``model`` as a new vector [d].

    Raises: ``ValueError`` for another object than a model, or one without such parameters.

    >>> from torch import nn
    >>> read(nn.Linear(3, 2)).shape
    torch.Size([8])
    """
    if not isinstance(model, nn.Module):
        raise ValueError(f"model must be a torch.nn.Module; got {told(model)}")
    return torch.cat([p.detach().reshape(-1) for p in trainable(model)])


def write(model: nn.Module, vector: Vector) -> None:
    """Copy ``vector`` [d] into the trainable parameters of ``model``, in their memory layout.

    Raises: ``ValueError`` for a vector of another length.

    >>> from torch import nn
    >>> model = nn.Linear(2, 1)
    >>> write(model, torch.tensor([1.0, 2.0, 3.0]))
    >>> model.weight.tolist(), model.bias.tolist()
    ([[1.0, 2.0]], [3.0])
    """
    parameters = trainable(model)
    sizes = [p.numel() for p in parameters]
    if vector.shape != (sum(sizes),):
        raise ValueError(f"the vector must be [{sum(sizes)}] for this model; got {told(vector)}")
    pieces = torch.split(vector, sizes)
    with torch.no_grad():
        for parameter, piece in zip(parameters, pieces, strict=True):
            parameter.copy_(piece.view(parameter.shape))
