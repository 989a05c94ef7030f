"""The layers of a frozen network: forward, and backward to the layer's input only.

Images between layers are [b, c, h, w] with channels last in memory. A layer may overwrite what it
is given in both directions, and keeps what its backward pass needs from the forward pass before it.
"""

from dataclasses import dataclass, field
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from fedrobust.compute.blocks import Pair

_SLOPE_OF_RELU = torch.ops.aten.threshold_backward.grad_input
_SLOPE_OF_ELU = torch.ops.aten.elu_backward.grad_input
_SLOPE_OF_POOL = torch.ops.aten.max_pool2d_with_indices_backward


class Layer(Protocol):
    """A function of tensors, and the product of a slope with its derivative."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the layer's outputs."""
        ...

    def backward(self, slope: Tensor) -> Tensor:
        """Return the slope by the inputs of the last forward pass."""
        ...


@dataclass
class Convolution:
    """A convolution; its input slope is the transposed convolution."""

    weight: Tensor
    bias: Tensor | None
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1
    _size: Pair = field(default=(0, 0), init=False)

    def __post_init__(self) -> None:
        self.weight = self.weight.contiguous(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        """Return x ∗ w + b."""
        self._size = x.shape[2], x.shape[3]
        return F.conv2d(
            x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups
        )

    def backward(self, slope: Tensor) -> Tensor:
        """Return the slope, also for pixels that no kernel reached."""
        sizes = zip(self._size, self.weight.shape[2:], strict=True)
        left = [
            (size + 2 * p - d * (k - 1) - 1) % s
            for (size, k), s, p, d in zip(
                sizes, self.stride, self.padding, self.dilation, strict=True
            )
        ]
        return F.conv_transpose2d(
            slope, self.weight, None, self.stride, self.padding, left, self.groups, self.dilation
        )


class FromOneChannel(Convolution):
    """A convolution from one channel.

    Its input slope is a matrix product, which gives each output's part of the slope by each pixel
    under its kernel, and then a sum of these parts by pixel. A transposed convolution to a single
    channel takes three to five times as long.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        self._parts = self.weight.flatten(1).T.contiguous()  # [pixels of a kernel, outputs]

    def backward(self, slope: Tensor) -> Tensor:
        """Return the slope."""
        outputs = slope.permute(0, 2, 3, 1).flatten(1, 2)
        parts = self._parts @ outputs.transpose(1, 2)
        return F.fold(
            parts, self._size, self.weight.shape[2:], self.dilation, self.padding, self.stride
        )


@dataclass
class Whole:
    """A convolution whose kernel covers its whole input: a matrix product."""

    weight: Tensor
    bias: Tensor | None
    _shape: torch.Size = field(default=torch.Size(), init=False)

    def __post_init__(self) -> None:
        self.weight = self.weight.permute(0, 2, 3, 1).flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs [b, c, 1, 1]."""
        x = x.permute(0, 2, 3, 1)
        self._shape = x.shape
        return F.linear(x.flatten(1), self.weight, self.bias)[:, :, None, None]

    def backward(self, slope: Tensor) -> Tensor:
        """Return the slope."""
        return (slope[:, :, 0, 0] @ self.weight).view(self._shape).permute(0, 3, 1, 2)


@dataclass
class Dense:
    """A linear layer."""

    weight: Tensor
    bias: Tensor | None

    def forward(self, x: Tensor) -> Tensor:
        """Return W x + b."""
        return F.linear(x, self.weight, self.bias)

    def backward(self, slope: Tensor) -> Tensor:
        """Return Wᵀ slope."""
        return slope @ self.weight


@dataclass
class Flat:
    """Images as vectors, in the order of their memory, so that nothing moves."""

    _shape: torch.Size = field(default=torch.Size(), init=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return [b, (h, w, c)]."""
        x = x.permute(0, 2, 3, 1)
        self._shape = x.shape
        return x.flatten(1)

    def backward(self, slope: Tensor) -> Tensor:
        """Return the slope as images."""
        return slope.view(self._shape).permute(0, 3, 1, 2)


@dataclass
class ChannelsFirst:
    """Vectors of images, [b, (h, w, c)], in the order [b, (c, h, w)] of ``shape``."""

    shape: tuple[int, ...]

    def forward(self, x: Tensor) -> Tensor:
        """Return [b, (c, h, w)]."""
        channels, rows, columns = self.shape
        return x.view(-1, rows, columns, channels).permute(0, 3, 1, 2).flatten(1)

    def backward(self, slope: Tensor) -> Tensor:
        """Return the slope as [b, (h, w, c)]."""
        return slope.view(-1, *self.shape).permute(0, 2, 3, 1).flatten(1)


@dataclass
class Relu:
    """max(0, x), in place."""

    _output: Tensor = field(default_factory=lambda: torch.empty(0), init=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs."""
        self._output = x.relu_()
        return self._output

    def backward(self, slope: Tensor) -> Tensor:
        """Return the slope where the output is above 0, else 0."""
        found: Tensor = _SLOPE_OF_RELU(slope, self._output, 0, grad_input=slope)
        return found


@dataclass
class Elu:
    """x where x > 0, else α(eˣ − 1), in place."""

    alpha: float
    _output: Tensor = field(default_factory=lambda: torch.empty(0), init=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs y."""
        self._output = F.elu_(x, self.alpha)
        return self._output

    def backward(self, slope: Tensor) -> Tensor:
        """Return the slope times the derivative: 1 where y > 0, else y + α."""
        y = self._output
        found: Tensor = _SLOPE_OF_ELU(slope, self.alpha, 1.0, 1.0, True, y, grad_input=slope)
        return found


@dataclass
class Pool:
    """Max pooling. Among equal values the first one gets the slope."""

    kernel: Pair
    stride: Pair
    padding: Pair
    dilation: Pair
    ceil_mode: bool
    _input: Tensor = field(default_factory=lambda: torch.empty(0), init=False)
    _where: Tensor = field(default_factory=lambda: torch.empty(0), init=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the maxima."""
        how = self.kernel, self.stride, self.padding, self.dilation, self.ceil_mode
        self._input = x
        found, self._where = F.max_pool2d_with_indices(x, *how)
        return found

    def backward(self, slope: Tensor) -> Tensor:
        """Return the slope at the maxima, else 0."""
        how = self.kernel, self.stride, self.padding, self.dilation, self.ceil_mode
        found: Tensor = _SLOPE_OF_POOL(slope, self._input, *how, self._where)
        return found
