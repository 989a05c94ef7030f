"""Recognise a plain chain of known layers, and compile it into :mod:`.layers`."""

import math
from itertools import pairwise
from typing import TypeGuard

import torch
from torch import nn
from torch.nn.modules.module import _has_any_global_hook

from fedrobust.compute.blocks import Blocks, Pair
from fedrobust.compute.layers import (
    ChannelsFirst,
    Convolution,
    Dense,
    Elu,
    Flat,
    FromOneChannel,
    Layer,
    Pool,
    Relu,
    Whole,
)
from fedrobust.typing import Images

_FEW = 4
"""A convolution from at most this many channels is slow, so that blocks of pixels pay."""
_MANY = 16
"""From this many outputs for each image on, reordering a linear layer's weights does not pay."""
_KNOWN = {nn.Conv2d, nn.Linear, nn.ReLU, nn.ELU, nn.MaxPool2d, nn.Flatten}


class UnknownFormError(Exception):
    """There is no fast form for a network."""


def plain(module: nn.Module) -> bool:
    """Whether nothing but its class and its fields say what ``module`` computes."""
    hooks = (module._forward_hooks, module._forward_pre_hooks)
    slopes = (module._backward_hooks, module._backward_pre_hooks)
    return not any((*hooks, *slopes)) and "forward" not in vars(module)


def chain(model: nn.Module) -> list[nn.Module]:
    """Return the layers that ``model`` computes one after another.

    A subclass of ``nn.Sequential`` must say ``layers_in_order = True`` in its own body.

    Raises: ``UnknownFormError`` where it may compute something else.
    """
    _require(plain(model) and not _has_any_global_hook())  # type: ignore[no-untyped-call]
    kind = type(model)
    if kind is nn.Identity or (kind is nn.Dropout and not model.training):
        return []
    if kind is nn.Sequential or vars(kind).get("layers_in_order") is True:
        # Not children(), which leaves out a module that is there already, such as a shared ReLU.
        parts = model._modules.values()
        return [layer for part in parts if part is not None for layer in chain(part)]
    _require(kind in _KNOWN)
    return [model]


def compiled(model: nn.Module, x: Images) -> tuple[list[Layer], Blocks | None]:
    """Return the layers of ``model`` for images like x, and the blocks that they take, if any.

    Raises: ``UnknownFormError`` where a layer is not known, or x does not fit.
    """
    _require(x.dtype in (torch.float32, torch.float64) and x.device.type == "cpu")
    _require(x.dim() in (2, 4) and len(x) > 0 and not torch.is_autocast_enabled("cpu"))
    modules = chain(model)
    _require(bool(modules) and type(modules[-1]) is nn.Linear)
    for value in model.parameters():
        _require(type(value) is nn.Parameter and value.layout == torch.strided)
        _require(value.dtype == x.dtype and value.device == x.device)
    compiler = _Compiler(tuple(x.shape[1:]), len(x))
    with torch.no_grad():
        for module in compiler.on_blocks(_pool_before_relu(modules)):
            compiler.add(module)
    return compiler.layers, compiler.blocks


def _require(known: bool) -> None:
    if not known:
        raise UnknownFormError


def _pool_before_relu(modules: list[nn.Module]) -> list[nn.Module]:
    """Exchange ReLU and max pooling: the greatest max(0, xᵢ) is max(0, the greatest xᵢ)."""
    found = list(modules)
    for i, (one, other) in enumerate(pairwise(modules)):
        if type(one) is nn.ReLU and type(other) is nn.MaxPool2d:
            found[i : i + 2] = other, one
    return found


class _Compiler:
    """Compiles layer by layer, for ``count`` images.

    ``shape`` is that of one example as the next layer gets it.
    """

    def __init__(self, shape: tuple[int, ...], count: int) -> None:
        self.count = count
        self.shape, self.image = shape, shape  # the latter as it was before it was flattened
        self.layers: list[Layer] = []
        self.blocks: Blocks | None = None
        self.fresh = False  # whether the next layer may overwrite what it gets

    def on_blocks(self, modules: list[nn.Module]) -> list[nn.Module]:
        """Compile a first convolution that gains by blocks; return the layers that are left.

        A strided convolution without padding that comes next goes on with its blocks.
        """
        first, between, after = (*modules, None, None)[:3]
        if not _simple(first) or first.in_channels > _FEW:
            return modules
        self._outputs(first)  # it takes these images
        if isinstance(between, nn.ReLU | nn.ELU) and _simple(after) and _goes_on(after):
            self.blocks = Blocks.of(first, after, self.shape)
            if self.blocks is not None:
                self._begin(self.blocks, first)
                self._activation(between)
                weight = self.blocks.after(after.weight)
                self._append(Convolution(weight, after.bias), self._outputs(after))
                return modules[3:]
        if min(first.stride) > 1 and first.in_channels > 1:
            self.blocks = Blocks.of(first, None, self.shape)
            if self.blocks is not None:
                self._begin(self.blocks, first)
                return modules[1:]
        return modules

    def _begin(self, blocks: Blocks, first: nn.Conv2d) -> None:
        layer = Convolution(
            blocks.first(first.weight), blocks.bias(first.bias), padding=blocks.padding
        )
        self._append(layer, self._outputs(first))

    def _append(self, layer: Layer, shape: tuple[int, ...]) -> None:
        """Append a layer whose results, of ``shape``, are in new memory."""
        self.layers.append(layer)
        self.shape, self.fresh = shape, True

    def add(self, module: nn.Module) -> None:
        """Compile one layer."""
        if isinstance(module, nn.Conv2d):
            self._convolution(module)
        elif isinstance(module, nn.Linear):
            self._linear(module)
        elif isinstance(module, nn.Flatten):
            self._flatten(module)
        elif isinstance(module, nn.MaxPool2d):
            self._pool(module)
        else:
            self._activation(module)

    def _outputs(self, module: nn.Conv2d) -> tuple[int, ...]:
        """Return the shape of a convolution's outputs. Raises: ``UnknownFormError``."""
        weight = module.weight
        _require(len(self.shape) == 3 and module.padding_mode == "zeros")
        _require(weight.shape[1] * module.groups == self.shape[0])
        _require(weight.shape[2:] == module.kernel_size)
        sizes = self.shape[1:], module.kernel_size, _padding(module)
        axes = zip(*sizes, module.dilation, module.stride, strict=True)
        rows, columns = ((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, p, d, s in axes)
        _require(rows > 0 and columns > 0)
        return len(weight), rows, columns

    def _convolution(self, module: nn.Conv2d) -> None:
        weight, bias, shape = module.weight, module.bias, self._outputs(module)
        how = module.stride, _padding(module), module.dilation, module.groups
        if weight.shape[1:] == self.shape and shape[1:] == (1, 1) and _padding(module) == (0, 0):
            self._append(Whole(weight, bias), shape)
        elif self.shape[0] == 1:
            self._append(FromOneChannel(weight, bias, *how), shape)
        else:
            self._append(Convolution(weight, bias, *how), shape)

    def _linear(self, module: nn.Linear) -> None:
        weight = module.weight
        _require(self.shape == weight.shape[1:])
        if len(self.image) == 3:  # its columns are in the order of [c, h, w]
            if len(weight) > _MANY * self.count:  # to reorder them would take longer than a product
                self.layers.append(ChannelsFirst(self.image))
            else:
                weight = weight.view(-1, *self.image).permute(0, 2, 3, 1).flatten(1)
        self._append(Dense(weight, module.bias), weight.shape[:1])
        self.image = self.shape

    def _flatten(self, module: nn.Flatten) -> None:
        _require(module.start_dim == 1 and module.end_dim in (-1, len(self.shape)))
        if len(self.shape) == 3:
            self.layers.append(Flat())
            self.image, self.shape = self.shape, (math.prod(self.shape),)

    def _pool(self, module: nn.MaxPool2d) -> None:
        _require(len(self.shape) == 3 and not module.return_indices)
        try:
            found = module(torch.empty(1, *self.shape))
        except RuntimeError as error:
            raise UnknownFormError from error
        layer = Pool(
            _pair(module.kernel_size),
            _pair(module.stride),
            _pair(module.padding),
            _pair(module.dilation),
            module.ceil_mode,
        )
        self._append(layer, found.shape[1:])

    def _activation(self, module: nn.Module) -> None:
        _require(self.fresh)
        self.fresh = False
        if isinstance(module, nn.ELU):
            _require(module.alpha >= 0)
            self.layers.append(Elu(module.alpha))
        else:
            self.layers.append(Relu())


def _pair(size: int | Pair) -> Pair:
    return (size, size) if isinstance(size, int) else size


def _padding(layer: nn.Conv2d) -> Pair:
    """Return how many rows and columns are padded on each side; ``same`` need not be symmetric."""
    if isinstance(layer.padding, str):
        raise UnknownFormError
    return layer.padding


def _simple(layer: nn.Module | None) -> TypeGuard[nn.Conv2d]:
    """Whether each kernel of a convolution covers neighbouring pixels of all channels."""
    return isinstance(layer, nn.Conv2d) and layer.groups == 1 and layer.dilation == (1, 1)


def _goes_on(layer: nn.Conv2d) -> bool:
    """Whether a convolution can take blocks of the outputs before it."""
    return layer.padding == (0, 0) and min(layer.stride) > 1
