"""The input gradient of a network on a GPU as one CUDA graph.

A small network's gradient is some forty kernels, each of which takes less time than its launch. A
graph launches them all at once.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from fedrobust.compute import network
from fedrobust.compute.precision import arithmetic
from fedrobust.typing import Images, Labels

_KEPT = 2
"""The graphs of a model that are kept: units of work have one size, and the last may be smaller.
Each holds the activations of its batch."""
_WARM_UP = 2
"""Calls before the capture, in which the libraries choose their kernels and take their memory."""

Replay: TypeAlias = Callable[[], None]
Kind: TypeAlias = tuple[object, ...]


@dataclass(frozen=True)
class Recording:
    """``replay`` reads x [b, ...] and y [b] and writes the slopes [b, ...], always in one place."""

    x: Images
    y: Labels
    slope: Tensor
    replay: Replay


_RECORDINGS: "WeakKeyDictionary[nn.Module, dict[tuple[object, ...], Recording]]" = (
    WeakKeyDictionary()
)


def kind(model: nn.Module) -> Kind:
    """Return everything but values that a recording of ``model`` depends on, its input apart."""
    held = (*model.parameters(), *model.buffers())
    device = held[0].device.type if held else "cpu"
    return (
        arithmetic(device),
        tuple((id(m), type(m), m.training, m.extra_repr()) for m in model.modules()),
        tuple((tensor.data_ptr(), tensor.requires_grad) for tensor in held),
    )


def input_gradient(model: nn.Module, x: Images, y: Labels, of: Kind) -> Tensor:
    """Return ∇ₓ of the summed cross-entropy, by a recording that is made at the first call.

    ``of`` is the :func:`kind` of ``model`` now. A recording reads the parameters where they lie, so
    it sees new values that are written there. ``model`` must be made of PyTorch's own layers:
    whatever else a forward pass does is not repeated.
    """
    known = _RECORDINGS.setdefault(model, {})
    key = (of, tuple(x.shape), x.stride(), x.dtype, x.device)
    if (found := known.pop(key, None)) is None:
        while len(known) >= _KEPT:
            known.pop(next(iter(known)))
        found = recorded(model, x, y)
    known[key] = found  # the last one that was used goes last
    found.x.copy_(x)
    found.y.copy_(y)
    found.replay()
    return found.slope.clone()


def forget(model: nn.Module) -> None:
    """Drop the recordings of ``model``, and give their memory back to the GPU."""
    if _RECORDINGS.pop(model, None) is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def recorded(model: nn.Module, x: Images, y: Labels) -> Recording:
    """Return the gradient of ``model`` at inputs like x and y as a CUDA graph."""
    x, y = x.detach().clone(), y.clone()
    with torch.cuda.device(x.device):  # a graph records what is launched on the current device
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        here = torch.cuda.current_stream()
        side.wait_stream(here)
        with torch.cuda.stream(side):
            for _ in range(_WARM_UP):
                network.input_gradient(model, x, y)
        here.wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            slope = network.input_gradient(model, x, y)
    return Recording(x, y, slope, graph.replay)
