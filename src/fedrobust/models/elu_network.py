"""DRFL's convolutional network, computed on blocks of pixels."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook

from fedrobust.compute.chain import plain


class EluNetwork(nn.Sequential):
    """Convolutions 8 × 8 and 6 × 6 of stride 2 and one of 5 × 5, with ELU, then a linear layer.

    On images of one channel, its forward pass computes the same sums as its layers one after
    another, up to rounding. On a CPU, forward and backward pass together take half of the layers'
    time at width 16 (two thirds in bfloat16), and no more than it at width 64:

    - the first layer takes blocks of 4 × 4 pixels as channels and gives blocks of 2 × 2 outputs, by
      kernels of 3 × 3 of stride 1. A convolution from one channel would leave most of a
      processor's lanes empty, and its backward pass even more;
    - the second takes these blocks as they are, so that its stride is 1 as well;
    - the third is a matrix product where its kernel covers its whole input, as on 28 × 28 pixels.

    On other images, and once a layer has been replaced or has a hook, the layers run one after
    another. ``torch.fx`` and ``torch.jit.script`` cannot follow this choice: give them
    ``torch.nn.Sequential(*network)``.
    """

    layers_in_order: ClassVar[bool] = True
    """It computes the sums of its layers one after another: see ``compute/chain.py``."""

    @classmethod
    def build(cls, channels: int, width: int) -> "EluNetwork":
        """Return the network without its linear layer, for images of ``channels``."""
        first = nn.Conv2d(channels, width, 8, stride=2, padding=3)
        second = nn.Conv2d(width, 2 * width, 6, stride=2)
        third = nn.Conv2d(2 * width, 2 * width, 5)
        return cls(first, nn.ELU(), second, nn.ELU(), third, nn.ELU(), nn.Flatten())

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of ``x`` [b, c, h, w]."""
        if x.dim() != 4 or x.shape[1] != 1 or x.shape[2] % 4 or x.shape[3] % 4 or not self._plain():
            return super().forward(x)  # type: ignore[no-any-return, no-untyped-call]
        first: nn.Conv2d
        second: nn.Conv2d
        third: nn.Conv2d
        last: nn.Linear
        first, _, second, _, third, _, _, last = self  # type: ignore[assignment]  # as _BUILT says
        x = F.elu(_first(first, x))
        x = F.elu(F.conv2d(x, _on_blocks(second.weight), second.bias))
        if x.shape[2:] == third.weight.shape[2:]:
            x = F.linear(
                _by_channel(x).flatten(1), _by_channel(third.weight).flatten(1), third.bias
            )
        else:
            x = F.conv2d(x, third.weight, third.bias)
        return F.linear(F.elu(x).flatten(1), last.weight, last.bias)

    def _plain(self) -> bool:
        """Whether the layers are those that it was built with, and none has a hook."""
        if _has_any_global_hook():  # type: ignore[no-untyped-call]
            return False
        return [_described(layer) for layer in self] == _BUILT


def _described(layer: nn.Module) -> tuple[object, ...] | None:
    """Describe what a layer computes, without its weights; None where it may do something else."""
    if not plain(layer):
        return None
    kind = type(layer)
    if kind is nn.Conv2d and isinstance(layer, nn.Conv2d):
        sizes = layer.kernel_size, layer.stride, layer.padding, layer.dilation
        return kind, *sizes, layer.groups, layer.padding_mode
    if kind is nn.ELU:
        return kind, layer.alpha
    if kind is nn.Flatten:
        return kind, layer.start_dim, layer.end_dim
    return (kind,)


_BUILT = [*map(_described, EluNetwork.build(1, 1)), (nn.Linear,)]


def _by_channel(x: Tensor) -> Tensor:
    """Reorder [b, c, h, w] to [b, h, w, c]."""
    return x.permute(0, 2, 3, 1)


def _first(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """Compute the first convolution, with blocks of 2 × 2 outputs as channels.

    The result is [b, (2, 2, w), h / 4, w / 4]. A block of outputs depends on 10 × 10 pixels, in its
    own block of 4 × 4 and the eight blocks around it. The kernel of an output is the layer's
    kernel, shifted by its place in the block, inside zeros of 12 × 12.
    """
    b, _, h, w = x.shape
    blocks = x.reshape(b, h // 4, 4, w // 4, 4).permute(0, 1, 3, 2, 4)
    blocks = blocks.reshape(b, h // 4, w // 4, 16).permute(0, 3, 1, 2)
    places = [(1 + 2 * q, 3 - 2 * q, 1 + 2 * p, 3 - 2 * p) for p in (0, 1) for q in (0, 1)]
    kernels = torch.cat([F.pad(layer.weight, place) for place in places])
    bias = None if layer.bias is None else layer.bias.repeat(4)
    return F.conv2d(blocks, F.pixel_unshuffle(kernels, 4), bias, padding=1)


def _on_blocks(weight: Tensor) -> Tensor:
    """Return a kernel [o, i, 6, 6] of stride 2 as one of stride 1 on blocks.

    The result is [o, (2, 2, i), 3, 3].
    """
    o, i, h, w = weight.shape
    blocks = weight.view(o, i, h // 2, 2, w // 2, 2).permute(0, 3, 5, 1, 2, 4)
    return blocks.reshape(o, 4 * i, h // 2, w // 2)
