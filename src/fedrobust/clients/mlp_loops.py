"""The compiled loops of a small ELU network: its forward and backward passes, written out.

``sizes`` are the widths of its layers, and ``theta`` its flat vector, all in float64. The ascent
takes most of the time. It works on ``LANES`` examples side by side, so that the compiler uses
vector instructions throughout.
"""

import numpy as np

from fedrobust.compute.jit import compiled, inlined, reassociated
from fedrobust.typing import Doubles, Integers

LANES = 16


@compiled
def forward(theta: Doubles, sizes: Integers, acts: Doubles, y: int, out: Doubles) -> None:
    """Fill acts[1:] from acts[0]; the last row is softmax − onehot, and ``out[0]`` the loss."""
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
def backward(theta: Doubles, sizes: Integers, acts: Doubles, into: Doubles, share: float) -> None:
    """Add ``share``·∇_θ of the loss to ``into``, from acts after ``forward``."""
    at = len(theta)
    for k in range(len(sizes) - 2, -1, -1):
        inputs, outputs = sizes[k], sizes[k + 1]
        bias = at - outputs
        at = bias - inputs * outputs
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
            if value <= 0:
                total *= value + 1.0  # the slope of ELU below 0 is its value + 1
            acts[k, i] = total


@compiled
def gradients(theta: Doubles, sizes: Integers, x: Doubles, y: Integers, out: Doubles) -> None:
    """Add Σ ∇_θ l / (their number) over each client's examples to the client's row of ``out``."""
    acts, loss = np.empty((len(sizes), sizes.max())), np.empty(1)
    each = len(x) // len(out)
    for b in range(len(x)):
        for i in range(sizes[0]):
            acts[0, i] = x[b, i]
        forward(theta, sizes, acts, y[b], loss)
        backward(theta, sizes, acts, out[b // each], 1.0 / each)


@compiled
def losses(theta: Doubles, sizes: Integers, x: Doubles, y: Integers, out: Doubles) -> None:
    """Write the cross-entropy of each example to ``out``."""
    acts, loss = np.empty((len(sizes), sizes.max())), np.empty(1)
    for b in range(len(x)):
        for i in range(sizes[0]):
            acts[0, i] = x[b, i]
        forward(theta, sizes, acts, y[b], loss)
        out[b] = loss[0]


@inlined
def _exp(x: float) -> float:
    """Return e^x for x ≤ 0, within 1e-14, without a branch: e^(x/64) by series, squared 6 times."""
    x = (-40.0 if x < -40.0 else x) / 64.0  # written this way, NaN stays NaN
    series = 1.0 / 6227020800.0
    series = series * x + 1.0 / 479001600.0
    series = series * x + 1.0 / 39916800.0
    series = series * x + 1.0 / 3628800.0
    series = series * x + 1.0 / 362880.0
    series = series * x + 1.0 / 40320.0
    series = series * x + 1.0 / 5040.0
    series = series * x + 1.0 / 720.0
    series = series * x + 1.0 / 120.0
    series = series * x + 1.0 / 24.0
    series = series * x + 1.0 / 6.0
    series = series * x + 0.5
    series = series * x + 1.0
    series = series * x + 1.0
    square = series * series
    square *= square
    square *= square
    square *= square
    square *= square
    return square * square


@reassociated
def ascend(
    theta: Doubles, sizes: Integers, x: Doubles, y: Integers, gamma: float, lengths: Doubles
) -> None:
    """Update x ← x + s_t (∇ₓ l − 2γ (x − x₀)) in place, ``LANES`` examples side by side."""
    features, layers = sizes[0], len(sizes) - 1
    acts, start = np.zeros((layers + 1, sizes.max(), LANES)), np.zeros((features, LANES))
    slopes, wanted = np.zeros((2, sizes.max(), LANES)), np.zeros((sizes[layers], LANES))
    for first in range(0, len(x), LANES):
        some = min(LANES, len(x) - first)
        wanted[:] = 0.0
        for b in range(some):
            wanted[y[first + b], b] = 1.0
            for i in range(features):
                start[i, b] = acts[0, i, b] = x[first + b, i]
        for length in lengths:
            outputs(theta, sizes, acts)
            probabilities(acts[layers], sizes[layers], slopes[0])
            for c in range(sizes[layers]):
                for b in range(LANES):
                    slopes[0, c, b] -= wanted[c, b]
            slope = slopes[_slopes_by_input(theta, sizes, acts, slopes)]
            for i in range(features):
                for b in range(LANES):
                    pull = 2 * gamma * (acts[0, i, b] - start[i, b])
                    acts[0, i, b] += length * (slope[i, b] - pull)
        for b in range(some):
            for i in range(features):
                x[first + b, i] = acts[0, i, b]


@reassociated
def outputs(theta: Doubles, sizes: Integers, acts: Doubles) -> None:
    """Fill acts[1:] [layer, unit, lane] from acts[0]; the last layer gives logits."""
    at, last = 0, len(sizes) - 2
    for k in range(len(sizes) - 1):
        inputs, outputs = sizes[k], sizes[k + 1]
        bias = at + inputs * outputs
        for o in range(outputs):
            out = acts[k + 1, o]
            for b in range(LANES):
                out[b] = theta[bias + o]
            for i in range(inputs):
                weight, given = theta[at + o * inputs + i], acts[k, i]
                for b in range(LANES):
                    out[b] += weight * given[b]
            if k < last:
                for b in range(LANES):
                    below = _exp(0.0 if out[b] > 0 else out[b]) - 1.0
                    out[b] = out[b] if out[b] > 0 else below
        at = bias + outputs


@reassociated
def probabilities(logits: Doubles, classes: int, out: Doubles) -> None:
    """Write the softmax of each lane of logits [class, lane] to ``out``."""
    top, total = np.empty(LANES), np.zeros(LANES)
    for b in range(LANES):
        top[b] = logits[0, b]
    for c in range(1, classes):
        for b in range(LANES):
            top[b] = logits[c, b] if logits[c, b] > top[b] else top[b]
    for c in range(classes):
        for b in range(LANES):
            out[c, b] = _exp(logits[c, b] - top[b])
            total[b] += out[c, b]
    for c in range(classes):
        for b in range(LANES):
            out[c, b] /= total[b]


@reassociated
def _slopes_by_input(theta: Doubles, sizes: Integers, acts: Doubles, slopes: Doubles) -> int:
    """Turn ∇ of the loss by the logits, in slopes[0], into ∇ by the input; return its index."""
    at, here = len(theta), 0
    for k in range(len(sizes) - 2, -1, -1):
        inputs, outputs = sizes[k], sizes[k + 1]
        at -= outputs + inputs * outputs
        for i in range(inputs):
            into = slopes[1 - here, i]
            for b in range(LANES):
                into[b] = 0.0
            for o in range(outputs):
                weight, slope = theta[at + o * inputs + i], slopes[here, o]
                for b in range(LANES):
                    into[b] += weight * slope[b]
            if k > 0:
                value = acts[k, i]
                for b in range(LANES):
                    into[b] *= 1.0 if value[b] > 0 else value[b] + 1.0
        here = 1 - here
    return here
