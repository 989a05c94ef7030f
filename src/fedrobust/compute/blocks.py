"""A strided convolution of an image as one of stride 1 on blocks of its pixels as channels.

A processor computes a convolution from few channels, and above all its input gradient, at a small
part of its rate. Blocks of s × s pixels are s² times as many channels. Where the next convolution
has stride s′ and no padding, the first one gives its outputs in blocks of s′ × s′ too, which the
next takes as they are; the blocks of pixels are then s·s′ wide.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch.nn.functional as F
from torch import Tensor, nn

Pair: TypeAlias = tuple[int, ...]
"""A number for the rows, and one for the columns."""


@dataclass(frozen=True)
class Axis:
    """How the rows (or columns) of images and of a convolution's outputs make blocks.

    A block of pixels has ``inner`` rows, a block of outputs ``outer``. The convolution on blocks
    pads its input by ``padding`` blocks and has kernels of ``kernel`` blocks. For the first output
    of a block the layer's own kernel begins at row ``shift`` of these, and for each that follows
    ``stride`` rows farther.
    """

    inner: int
    outer: int
    stride: int
    padding: int
    kernel: int
    shift: int

    @classmethod
    def of(cls, first: nn.Conv2d, after: nn.Conv2d | None, pixels: int, axis: int) -> "Axis | None":
        """Return the blocks of an axis of ``pixels``; None where they do not fit."""
        size, stride, edge = first.kernel_size[axis], first.stride[axis], int(first.padding[axis])
        outer = 1 if after is None else after.stride[axis]
        inner = stride * outer
        padding = -(-edge // inner)
        shift = padding * inner - edge
        kernel = -(-(shift + stride * (outer - 1) + size) // inner)
        blocks = pixels // inner + 2 * padding - kernel + 1
        fit = outer * blocks == (pixels + 2 * edge - size) // stride + 1 and pixels % inner == 0
        return cls(inner, outer, stride, padding, kernel, shift) if fit else None


@dataclass(frozen=True)
class Blocks:
    """The blocks of the first convolution of a network."""

    rows: Axis
    columns: Axis

    @classmethod
    def of(cls, first: nn.Conv2d, after: nn.Conv2d | None, shape: Sequence[int]) -> "Blocks | None":
        """Return the blocks for images [c, h, w] = ``shape``; None where they do not fit.

        ``after`` is the next convolution if that takes blocks: it has no padding.
        """
        rows, columns = (Axis.of(first, after, shape[1 + axis], axis) for axis in (0, 1))
        return None if rows is None or columns is None else cls(rows, columns)

    @property
    def padding(self) -> Pair:
        """The padding of the convolution on blocks."""
        return self.rows.padding, self.columns.padding

    def enter(self, x: Tensor) -> Tensor:
        """Reorder images [b, c, h, w] to blocks [b, h/B, w/B, (B, B, c)]."""
        b, c, h, w = x.shape
        p, q = self.rows.inner, self.columns.inner
        x = x.reshape(b, c, h // p, p, w // q, q).permute(0, 2, 4, 3, 5, 1)
        return x.reshape(b, h // p, w // q, p * q * c)

    def leave(self, x: Tensor) -> Tensor:
        """Reorder blocks to images."""
        b, h, w, values = x.shape
        p, q = self.rows.inner, self.columns.inner
        c = values // (p * q)
        return x.view(b, h, w, p, q, c).permute(0, 5, 1, 3, 2, 4).reshape(b, c, h * p, w * q)

    def first(self, weight: Tensor) -> Tensor:
        """Return the kernels [o, c, k, m] of the first convolution on blocks."""
        rows, columns = self.rows, self.columns
        o, c, k, m = weight.shape
        size = rows.kernel * rows.inner, columns.kernel * columns.inner
        found = weight.new_zeros(rows.outer, columns.outer, o, c, *size)
        for i in range(rows.outer):
            for j in range(columns.outer):
                top, left = rows.shift + i * rows.stride, columns.shift + j * columns.stride
                found[i, j, :, :, top : top + k, left : left + m] = weight
        return _gathered(found.flatten(0, 2), (rows.inner, columns.inner))

    def after(self, weight: Tensor) -> Tensor:
        """Return the kernels of the next convolution on the first one's blocks of outputs."""
        outer = self.rows.outer, self.columns.outer
        k, m = weight.shape[2:]
        return _gathered(F.pad(weight, (0, -m % outer[1], 0, -k % outer[0])), outer)

    def bias(self, bias: Tensor | None) -> Tensor | None:
        """Return the first convolution's bias for all outputs of a block."""
        return None if bias is None else bias.repeat(self.rows.outer * self.columns.outer)


def _gathered(weight: Tensor, block: Pair) -> Tensor:
    """Return kernels [o, c, k, m] as kernels on blocks [o, (B, B, c), k/B, m/B]."""
    o, c, k, m = weight.shape
    p, q = block
    found = weight.view(o, c, k // p, p, m // q, q).permute(0, 3, 5, 1, 2, 4)
    return found.reshape(o, p * q * c, k // p, m // q)
