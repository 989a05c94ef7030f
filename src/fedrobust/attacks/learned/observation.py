"""What a policy sees of the network: all of it, one layer, or its change since the start."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from fedrobust.compute.parameters import Layout
from fedrobust.typing import Floats, Vector

Sees: TypeAlias = Literal["change", "parameters"]
Layer: TypeAlias = Literal["output", "last-hidden"]


@dataclass(frozen=True)
class Observation:
    """The inputs of an observation: parameters [d] now, before, and at the start of the attack.

    ``waited`` is the number of rounds that the attacker has missed since it last took part. If it
    is above 0, the previous parameters are unknown and are set to the current ones.
    """

    layout: Layout
    parameters: Vector
    previous: Vector
    start: Vector
    waited: int = 0


def _relative(now: Vector, start: Vector) -> Tensor:
    """Return θ − θ_start in units of the root mean square of θ_start."""
    unit = start.square().mean().sqrt().clamp(min=1e-8)
    return (now - start) / unit


def finished(values: list[Tensor], sight: Observation) -> Floats:
    """Return ``values`` and the rounds waited as one vector, cut off at ±100."""
    numbers = torch.cat(
        [*(value.detach().cpu() for value in values), torch.tensor([float(np.log1p(sight.waited))])]
    )
    return numbers.clamp(-100, 100).nan_to_num().float().numpy()


def seen(sees: Sees, part: slice, sight: Observation) -> Floats:
    """Return θ of ``part`` as it is, or its change since the start, and the rounds waited."""
    now = sight.parameters[part]
    if sees == "parameters":
        largest = torch.finfo(torch.float32).max
        return now.detach().cpu().clamp(-largest, largest).nan_to_num().float().numpy()
    return finished([_relative(now, sight.start[part])], sight)


def size(sees: Sees, part: slice) -> int:
    """Return the length of what :func:`seen` gives."""
    return int(part.stop - part.start) + (sees == "change")


def layer_of(layout: Layout, which: Layer) -> slice:
    """Return the slice of the weight and bias of the last layer, or of the one before it.

    They come in the order in which the network declares them. Normalisations, which have no matrix,
    are no layers. A network of one layer has no hidden one; its only layer then stands for it.
    """
    layers: dict[str, list[str]] = {}
    for name in layout.slices:
        layers.setdefault(name.rpartition(".")[0] or name, []).append(name)
    with_matrix = [ns for ns in layers.values() if any(len(layout.shapes[n]) > 1 for n in ns)]
    *hidden, last = with_matrix or layers.values()
    names = hidden[-1] if hidden and which == "last-hidden" else last
    return slice(layout.slices[names[0]].start, layout.slices[names[-1]].stop)
