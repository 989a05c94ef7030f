"""Small ELU networks, compiled: all clients' gradients of a round in one call.

A simulating attacker plays tens of thousands of rounds. For a network of a few dozen parameters,
such as DRFL's for the ring, PyTorch spends most of the time on dispatch. Compiled loops play a
round of ten clients in under a millisecond. The arithmetic is float64, with the same definitions.
"""

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook

from fedrobust.compute.chain import plain
from fedrobust.perturb.wasserstein import Ascent
from fedrobust.typing import Doubles, Images, Integers, Labels, Updates, Vector

MOST = 4096
"""Up to this number of parameters, the compiled network is the faster one."""


@dataclass(frozen=True)
class CompiledMlp:
    """An MLP with ELU between its layers; ``sizes`` are the widths, from input to logits."""

    sizes: tuple[int, ...]

    @classmethod
    def of(cls, model: nn.Module) -> "CompiledMlp | None":
        """Return ``model`` as a small network; None where it has another form or is too large."""
        if type(model) is not nn.Sequential or len(model) % 2 == 0:
            return None
        linear: list[Any] = list(model)[::2]
        between: list[Any] = list(model)[1::2]
        if not all(type(layer) is nn.Linear and layer.bias is not None for layer in linear):
            return None
        if not all(type(layer) is nn.ELU and layer.alpha == 1 for layer in between):
            return None
        parameters = list(model.parameters())
        if not all(p.requires_grad for p in parameters) or sum(map(torch.numel, parameters)) > MOST:
            return None
        if not all(plain(module) for module in model.modules()) or _has_any_global_hook():  # type: ignore[no-untyped-call]
            return None
        sizes = (linear[0].weight.shape[-1], *(len(layer.weight) for layer in linear))
        # Where layers share one, or have them in another order, the flat vector has other slices.
        shapes = [part for a, b in pairwise(sizes) for part in ((b, a), (b,))]
        return cls(sizes) if [tuple(p.shape) for p in parameters] == shapes else None

    def moved(self, theta: Vector, x: Images, y: Labels, gamma: float, ascent: Ascent) -> Images:
        """Return T_γ(θ; x) [b, features]: see :meth:`~fedrobust.perturb.wasserstein.Ascent.move`.

        This serves the step rules ``constant`` and ``decaying``, without a box or tolerance.
        """
        from fedrobust.clients import mlp_loops as loops  # imported only when needed: it compiles

        at = _array(x)
        if math.isfinite(gamma):
            lengths = _lengths(ascent, gamma)
            loops.ascend(_array(theta), self._sizes, at, y.numpy(), gamma, lengths)
        return torch.from_numpy(at)

    def gradients(self, theta: Vector, x: Images, y: Labels, clients: int) -> Updates:
        """Return each client's mean gradient [clients, d], over equal shares of the examples.

        Raises: ``ValueError`` where the examples have no equal shares.
        """
        if len(x) % clients:
            raise ValueError(f"{len(x)} examples have no {clients} equal shares")
        from fedrobust.clients import mlp_loops as loops

        out = np.zeros((clients, len(theta)))
        loops.gradients(_array(theta), self._sizes, _array(x), y.numpy(), out)
        return torch.from_numpy(out)

    def losses(self, theta: Vector, x: Images, y: Labels) -> Tensor:
        """Return the cross-entropy of each example [b]."""
        from fedrobust.clients import mlp_loops as loops

        out = np.empty(len(y))
        loops.losses(_array(theta), self._sizes, _array(x), y.numpy(), out)
        return torch.from_numpy(out)

    def soft_gradient(self, theta: Vector, x: Images, targets: Tensor) -> Vector:
        """Return ∇_θ of the mean cross-entropy with soft targets [b, classes], as float64 [d]."""
        from fedrobust.clients import mlp_matching as loops

        out = np.zeros(len(theta))
        loops.gradient(_array(theta), self._sizes, _array(x), _array(targets), out)
        return torch.from_numpy(out)

    def pulled(
        self, theta: Vector, along: Vector, x: Images, targets: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the slopes of ⟨``soft_gradient``, along⟩ by x and by the targets, as float64."""
        from fedrobust.clients import mlp_matching as loops

        found = np.empty(tuple(x.shape)), np.empty(tuple(targets.shape))
        loops.pull(_array(theta), _array(along), self._sizes, _array(x), _array(targets), *found)
        return torch.from_numpy(found[0]), torch.from_numpy(found[1])

    @cached_property
    def _sizes(self) -> Integers:
        return np.asarray(self.sizes, dtype=np.int64)


@lru_cache(maxsize=32)
def _lengths(ascent: Ascent, gamma: float) -> Doubles:
    """Return the lengths of all steps of an ascent at this price."""
    steps = np.arange(1, ascent.steps + 1, dtype=np.float64)
    each = ascent.size / (np.sqrt(steps) if ascent.rule == "decaying" else np.ones_like(steps))
    found: Doubles = each / (2 * gamma)
    return found


def serves(ascent: Ascent) -> bool:
    """Whether the compiled loops support the step rule of this ascent."""
    known = type(ascent) is Ascent and ascent.rule != "backtracking"
    return known and not ascent.box and ascent.tolerance == 0


def _array(x: Tensor) -> Doubles:
    """Return a float64 copy."""
    return np.array(x.detach().numpy(), dtype=np.float64, order="C")
