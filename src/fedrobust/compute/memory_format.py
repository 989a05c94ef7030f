"""Lay the weights of convolutions out as suits them, where the network allows it."""

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

from fedrobust.compute.network import evaluating, logits
from fedrobust.errors import ModelError
from fedrobust.typing import Images


def channels_last(model: nn.Module, x: Images) -> None:
    """Give the weights of 2-D convolutions the layout with channels last, which is faster.

    What such a layer returns then has this layout too, and a network may not take that: ``view``
    refuses it. A network that fails on ``x`` [b, c, h, w] keeps the layout that it came with.
    """
    layers = [
        layer for layer in model.modules() if isinstance(layer, _ConvNd) and layer.weight.ndim == 4
    ]
    if not layers:
        return
    for layer in layers:
        layer.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    try:
        with evaluating(model), torch.no_grad():
            logits(model, x)
    except ModelError:
        for layer in layers:
            layer.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
