"""A network whose parameters stand still, in the form that is fastest for moving its input."""

from collections.abc import Callable
from typing import Protocol, TypeAlias

import torch
from torch import Tensor, nn

from fedrobust.compute import captured, network
from fedrobust.compute.chain import UnknownFormError, compiled
from fedrobust.compute.global_draws import drawless
from fedrobust.compute.memory import keep_freed_memory
from fedrobust.compute.network import Asked
from fedrobust.compute.stacked import Stacked
from fedrobust.config import arguments
from fedrobust.typing import Images, Labels

Loss: TypeAlias = Callable[[Tensor], Tensor]
"""A function of logits: a value for each example [b], which depends on its logits only."""


class Ascended(Protocol):
    """A network as an inner maximisation sees it: images enter, are moved, and leave.

    In between they have the network's own layout: [b, ...] with the values of each image in
    another order. Signs, bounds, norms and sums are what they are for images.
    """

    def enter(self, x: Images) -> Tensor:
        """Return images in the network's layout, perhaps in the same memory."""
        ...

    def leave(self, x: Tensor) -> Images:
        """Return them as images."""
        ...

    def logits(self, x: Tensor) -> Tensor:
        """Return the logits [b, classes]."""
        ...

    def ascent(self, x: Tensor, function: Loss) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits, values and slopes, as :func:`~fedrobust.compute.network.ascent` does."""
        ...

    def input_gradient(self, x: Tensor, y: Labels) -> Tensor:
        """Return ∇ₓ of the cross-entropy on raw logits, summed over the batch."""
        ...


def fastest(model: nn.Module, x: Images) -> Ascended:
    """Return ``model`` for images like x in its fastest form.

    On a CPU this is a :class:`FrozenNetwork` where the model is one; on a GPU it is a
    :class:`GraphedNetwork` for models of PyTorch's own layers; otherwise the model as it is.
    """
    if isinstance(model, Asked):  # as a user's own objective hands it on
        model = model.model
    if x.is_cuda:
        known = drawless(model) and not isinstance(model, Stacked)
        return GraphedNetwork(model) if known else AsItIs(model)
    keep_freed_memory()
    try:
        return FrozenNetwork(model, x)
    except UnknownFormError:
        return AsItIs(model)


class AsItIs:
    """Any model, called as it is and differentiated by autograd."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def enter(self, x: Images) -> Tensor:
        """Return x."""
        return x

    def leave(self, x: Tensor) -> Images:
        """Return x."""
        return x

    def logits(self, x: Tensor) -> Tensor:
        """Return the model's logits."""
        return network.logits(self.model, x)

    def ascent(self, x: Tensor, function: Loss) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits, values and slopes."""
        return network.ascent(self.model, x, function)

    def input_gradient(self, x: Tensor, y: Labels) -> Tensor:
        """Return ∇ₓ of the summed cross-entropy."""
        return network.input_gradient(self.model, x, y)


class GraphedNetwork(AsItIs):
    """A model of PyTorch's own layers on a GPU: its input gradient is one CUDA graph.

    The model must stay as it is, except for the values of its parameters.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self._kind = captured.kind(model)

    def input_gradient(self, x: Tensor, y: Labels) -> Tensor:
        """Return ∇ₓ of the summed cross-entropy."""
        return captured.input_gradient(self.model, x, y, self._kind)


class FrozenNetwork:
    """A chain of known layers with its backward pass, to the input alone, written out.

    It computes the sums of :class:`AsItIs` in another order, so that both agree up to rounding:

    - a first convolution from few channels works on blocks of pixels, in which the images stay for
      as long as they are moved (:mod:`fedrobust.compute.blocks`); or its input slope is a matrix
      product;
    - max pooling comes before ReLU, which then has fewer values to look at;
    - activations and their slopes overwrite what they are given;
    - autograd records nothing.

    Where the result is not finite, the model itself is asked, so that an infinite slope is infinite
    where the model's is.

    It holds the parameters that the model had when it was made, and belongs to one thread.

    Raises: ``UnknownFormError`` for a model that is not a plain chain of the layers in
    :mod:`fedrobust.compute.chain` in float32 or float64 on a CPU, and for images that do not fit.
    """

    def __init__(self, model: nn.Module, x: Images) -> None:
        self.model = AsItIs(model)
        self.layers, self.blocks = compiled(model, x)

    def enter(self, x: Images) -> Tensor:
        """Return images with their channels last, in blocks where there are any."""
        if self.blocks is not None:
            return self.blocks.enter(x)
        return x.permute(0, 2, 3, 1).contiguous() if x.dim() == 4 else x

    def leave(self, x: Tensor) -> Images:
        """Return them as images [b, c, h, w]."""
        if self.blocks is not None:
            return self.blocks.leave(x)
        return x.permute(0, 3, 1, 2).contiguous() if x.dim() == 4 else x

    def logits(self, x: Tensor) -> Tensor:
        """Return the logits [b, classes]."""
        found = self._forward(x)
        return found if found.sum().isfinite() else self.model.logits(self.leave(x))

    def ascent(self, x: Tensor, function: Loss) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits, values and slopes; autograd differentiates ``function`` alone."""
        with torch.enable_grad():
            found = self._forward(x).requires_grad_()
            value = function(found)
            (steepest,) = torch.autograd.grad(value.sum(), found, materialize_grads=True)
        slope = self._backward(steepest)
        if not (found.sum() + slope.sum()).isfinite():
            *rest, slope = self.model.ascent(self.leave(x), function)
            return rest[0], rest[1], self.enter(slope)
        return found.detach(), value.detach(), slope

    def input_gradient(self, x: Tensor, y: Labels) -> Tensor:
        """Return ∇ₓ of the summed cross-entropy, which by the logits is softmax(z) − (1 at y)."""
        found = self._forward(x)
        slope = torch.softmax(found, dim=1)
        try:
            slope.scatter_add_(1, y[:, None], slope.new_full((len(y), 1), -1))
        except RuntimeError:
            arguments.labels(y, len(found), found.shape[1])
            raise
        slope = self._backward(slope)
        if not slope.sum().isfinite():
            slope = self.enter(self.model.input_gradient(self.leave(x), y))
        return slope

    @torch.no_grad()
    def _forward(self, x: Tensor) -> Tensor:
        if x.dim() == 4:
            x = x.permute(0, 3, 1, 2)
        for layer in self.layers:
            x = layer.forward(x)
        return x

    @torch.no_grad()
    def _backward(self, slope: Tensor) -> Tensor:
        for layer in reversed(self.layers):
            slope = layer.backward(slope)
        return slope.permute(0, 2, 3, 1).contiguous() if slope.dim() == 4 else slope
