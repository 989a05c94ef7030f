"""Small ELU networks, compiled: all clients' gradients of a round in one call.

A simulating attacker plays tens of thousands of rounds. For a network of a few dozen parameters,
such as DRFL's for the ring, PyTorch spends them on dispatch; written out and compiled, a round of
ten clients takes about a millisecond. The arithmetic is float64, of the same definitions.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from fedrobust.aggregators.loops import compiled
from fedrobust.perturb.wasserstein import Ascent
from fedrobust.typing import Images, Labels, Updates, Vector

Doubles = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

MOST = 4096
"""Parameters up to which the compiled network is the faster one."""


@dataclass(frozen=True)
class SmallNetwork:
    """An MLP with ELU between its layers; ``sizes`` are their widths, input and logits included."""

    sizes: tuple[int, ...]

    @classmethod
    def of(cls, model: nn.Module) -> "SmallNetwork | None":
        """``model`` as a small network; None where it is none, or too large."""
        if not isinstance(model, nn.Sequential) or len(model) % 2 == 0:
            return None
        linear, between = list(model)[::2], list(model)[1::2]
        if not all(type(layer) is nn.Linear and layer.bias is not None for layer in linear):
            return None
        if not all(type(layer) is nn.ELU and layer.alpha == 1 for layer in between):
            return None
        parameters = list(model.parameters())
        if not all(p.requires_grad for p in parameters) or sum(map(torch.numel, parameters)) > MOST:
            return None
        first: nn.Linear = linear[0]  # type: ignore[assignment]
        return cls((first.in_features, *(int(layer.out_features) for layer in linear)))  # type: ignore[arg-type]

    def moved(self, theta: Vector, x: Images, y: Labels, gamma: float, ascent: Ascent) -> Images:
        """T_γ(θ; x) [b, features], as :meth:`~fedrobust.perturb.wasserstein.Ascent.move` has it.

        For the step rules ``constant`` and ``decaying``, without a box or tolerance.
        """
        steps = np.arange(1, ascent.steps + 1, dtype=np.float64)
        lengths = ascent.size / (
            np.sqrt(steps) if ascent.rule == "decaying" else np.ones_like(steps)
        )
        at = _array(x)
        if np.isfinite(gamma):
            _ascend(_array(theta), self._sizes, at, y.numpy(), gamma, lengths / (2 * gamma))
        return torch.from_numpy(at)

    def gradients(self, theta: Vector, x: Images, y: Labels, clients: int) -> Updates:
        """The mean gradient by θ over each client's equal share of the examples [clients, d]."""
        out = np.zeros((clients, len(theta)))
        _gradients(_array(theta), self._sizes, _array(x), y.numpy(), out)
        return torch.from_numpy(out)

    def losses(self, theta: Vector, x: Images, y: Labels) -> torch.Tensor:
        """The cross-entropy of each example [b]."""
        out = np.empty(len(y))
        _losses(_array(theta), self._sizes, _array(x), y.numpy(), out)
        return torch.from_numpy(out)

    @property
    def _sizes(self) -> Integers:
        return np.asarray(self.sizes, dtype=np.int64)


def serves(ascent: Ascent) -> bool:
    """Whether the compiled ascent has this step rule."""
    return ascent.rule != "backtracking" and not ascent.box and ascent.tolerance == 0


def _array(x: torch.Tensor) -> Doubles:
    """A float64 copy."""
    return x.detach().double().contiguous().numpy().copy()


@compiled
def _forward(theta: Doubles, sizes: Integers, acts: Doubles, y: int, out: Doubles) -> None:
    """Fill acts[1:] from acts[0]; the last row becomes softmax − onehot, ``out[0]`` the loss."""
    at, last = 0, len(sizes) - 2
    for k in range(len(sizes) - 1):
        inputs, outputs = sizes[k], sizes[k + 1]
        bias = at + inputs * outputs
        for o in range(outputs):
            total = theta[bias + o]
            for i in range(inputs):
                total += theta[at + o * inputs + i] * acts[k, i]
            if k < last and total <= 0:
                total = np.expm1(total)
            acts[k + 1, o] = total
        at = bias + outputs
    logits = acts[len(sizes) - 1]
    classes = sizes[len(sizes) - 1]
    top = logits[0]
    for c in range(1, classes):
        top = max(top, logits[c])
    total = 0.0
    for c in range(classes):
        total += np.exp(logits[c] - top)
    out[0] = top + np.log(total) - logits[y]
    for c in range(classes):
        logits[c] = np.exp(logits[c] - top) / total
    logits[y] -= 1.0


@compiled
def _backward(
    theta: Doubles, sizes: Integers, acts: Doubles, into: Doubles, share: float, by_input: bool
) -> None:
    """From acts as ``_forward`` left them: ∇_x of the loss to acts[0], or ``share``·∇_θ to into."""
    at = len(theta)
    for k in range(len(sizes) - 2, -1, -1):
        inputs, outputs = sizes[k], sizes[k + 1]
        bias = at - outputs
        at = bias - inputs * outputs
        if not by_input:
            for o in range(outputs):
                slope = share * acts[k + 1, o]
                into[bias + o] += slope
                for i in range(inputs):
                    into[at + o * inputs + i] += slope * acts[k, i]
            if k == 0:
                return
        for i in range(inputs):
            total = 0.0
            for o in range(outputs):
                total += theta[at + o * inputs + i] * acts[k + 1, o]
            value = acts[k, i]
            if k > 0 and value <= 0:
                total *= value + 1.0  # the slope of ELU below 0 is its value + 1
            acts[k, i] = total


@compiled
def _ascend(
    theta: Doubles, sizes: Integers, x: Doubles, y: Integers, gamma: float, lengths: Doubles
) -> None:
    """x ← x + s_t (∇ₓ l − 2γ (x − x₀)), in place, each example alone."""
    features = sizes[0]
    acts, out, none = np.empty((len(sizes), sizes.max())), np.empty(1), np.empty(1)
    at = np.empty(features)
    for b in range(len(x)):
        for i in range(features):
            at[i] = x[b, i]
        for t in range(len(lengths)):
            for i in range(features):
                acts[0, i] = at[i]
            _forward(theta, sizes, acts, y[b], out)
            _backward(theta, sizes, acts, none, 0.0, True)
            for i in range(features):
                at[i] += lengths[t] * (acts[0, i] - 2 * gamma * (at[i] - x[b, i]))
        for i in range(features):
            x[b, i] = at[i]


@compiled
def _gradients(theta: Doubles, sizes: Integers, x: Doubles, y: Integers, out: Doubles) -> None:
    """Σ over each client's examples of ∇_θ l / their number, added to its row of ``out``."""
    acts, loss = np.empty((len(sizes), sizes.max())), np.empty(1)
    each = len(x) // len(out)
    for b in range(len(x)):
        for i in range(sizes[0]):
            acts[0, i] = x[b, i]
        _forward(theta, sizes, acts, y[b], loss)
        _backward(theta, sizes, acts, out[b // each], 1.0 / each, False)


@compiled
def _losses(theta: Doubles, sizes: Integers, x: Doubles, y: Integers, out: Doubles) -> None:
    acts, loss = np.empty((len(sizes), sizes.max())), np.empty(1)
    for b in range(len(x)):
        for i in range(sizes[0]):
            acts[0, i] = x[b, i]
        _forward(theta, sizes, acts, y[b], loss)
        out[b] = loss[0]
