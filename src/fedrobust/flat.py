"""A model's parameters as one flat vector, with a named slice for each tensor."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fedrobust.errors import ConfigError
from fedrobust.typing import Vector


@dataclass(frozen=True)
class Layout:
    """Where each parameter tensor of a model lies in its flat vector, in the model's own order.

    ``layout.slices["2.weight"]`` is the range of one tensor, and so
    ``updates[:, layout.slices["2.weight"]]`` are the updates of that tensor alone.
    """

    names: tuple[str, ...]
    shapes: tuple[torch.Size, ...]
    slices: dict[str, slice]

    @classmethod
    def of(cls, model: nn.Module) -> "Layout":
        """The layout of ``model``.

        Raises: ``ConfigError`` for a model without parameters, with parameters of several types, or
        with buffers, which no rule for parameter updates can aggregate.
        """
        parameters = dict(model.named_parameters())
        if not parameters:
            raise ConfigError("the model has no parameters to train")
        if buffers := [name for name, _ in model.named_buffers()]:
            shown = ", ".join(buffers[:3]) + ", ..." * (len(buffers) > 3)
            raise ConfigError(
                f"the model keeps buffers ({shown}), which change in training outside the "
                "parameters, as BatchNorm's do: "
                "a federation cannot aggregate them. Use GroupNorm instead"
            )
        if len(types := {p.dtype for p in parameters.values()}) > 1:
            raise ConfigError(f"the model mixes parameter types: {sorted(map(str, types))}")
        slices, start = {}, 0
        for name, parameter in parameters.items():
            slices[name] = slice(start, start + parameter.numel())
            start += parameter.numel()
        return cls(tuple(parameters), tuple(p.shape for p in parameters.values()), slices)

    @property
    def size(self) -> int:
        """d, the number of parameters."""
        return sum(shape.numel() for shape in self.shapes)

    def join(self, tensors: "list[Tensor] | tuple[Tensor, ...]") -> Vector:
        """Parameter-shaped tensors, in order, as one vector [d]."""
        return torch.cat([tensor.detach().reshape(-1) for tensor in tensors])

    def split(self, vector: Vector) -> dict[str, Tensor]:
        """``vector`` [d] as named tensors that share its memory."""
        return {
            name: vector[self.slices[name]].view(shape)
            for name, shape in zip(self.names, self.shapes, strict=True)
        }


def read(model: nn.Module) -> Vector:
    """The parameters of ``model`` as a new vector [d]."""
    return torch.cat([p.detach().reshape(-1) for p in model.parameters()])


def write(model: nn.Module, vector: Vector) -> None:
    """Copy ``vector`` [d] into the parameters of ``model``, keeping their memory layout."""
    parameters = list(model.parameters())
    pieces = torch.split(vector, [p.numel() for p in parameters])
    with torch.no_grad():
        for parameter, piece in zip(parameters, pieces, strict=True):
            parameter.copy_(piece.view(parameter.shape))
