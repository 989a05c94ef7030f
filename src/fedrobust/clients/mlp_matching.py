"""The compiled loops of gradient matching on a small ELU network.

With soft targets q the loss of an example is l = −Σ_c q_c log p_c. ``theta`` is the flat vector of
the network and ``sizes`` are the widths of its layers; all is float64. As in :mod:`.mlp_loops`,
``LANES`` examples are computed side by side.
"""

import numpy as np

from fedrobust.clients.mlp_loops import LANES, outputs, probabilities
from fedrobust.compute.jit import reassociated
from fedrobust.typing import Doubles, Integers


@reassociated
def gradient(theta: Doubles, sizes: Integers, x: Doubles, q: Doubles, out: Doubles) -> None:
    """Add the mean of ∇_θ l over the examples x [b, features], q [b, classes] to ``out`` [d]."""
    layers, classes = len(sizes) - 1, sizes[len(sizes) - 1]
    acts, slopes = np.zeros((layers + 1, sizes.max(), LANES)), np.zeros((2, sizes.max(), LANES))
    targets, total = np.zeros((classes, LANES)), np.zeros(LANES)
    for first in range(0, len(x), LANES):
        _load(x, q, first, acts[0], targets, total)
        outputs(theta, sizes, acts)
        probabilities(acts[layers], classes, slopes[0])
        for c in range(classes):
            for b in range(LANES):
                slopes[0, c, b] = (total[b] * slopes[0, c, b] - targets[c, b]) / len(x)
        at, here = len(theta), 0
        for k in range(layers - 1, -1, -1):
            inputs, outs = sizes[k], sizes[k + 1]
            bias = at - outs
            at = bias - inputs * outs
            for o in range(outs):
                slope = slopes[here, o]
                for b in range(LANES):
                    out[bias + o] += slope[b]
                for i in range(inputs):
                    value, both = acts[k, i], 0.0
                    for b in range(LANES):
                        both += slope[b] * value[b]
                    out[at + o * inputs + i] += both
            if k == 0:
                break
            for i in range(inputs):
                into, value = slopes[1 - here, i], acts[k, i]
                into[:] = 0.0
                for o in range(outs):
                    weight, slope = theta[at + o * inputs + i], slopes[here, o]
                    for b in range(LANES):
                        into[b] += weight * slope[b]
                for b in range(LANES):
                    into[b] *= 1.0 if value[b] > 0 else value[b] + 1.0
            here = 1 - here


@reassociated
def pull(
    theta: Doubles,
    along: Doubles,
    sizes: Integers,
    x: Doubles,
    q: Doubles,
    by_x: Doubles,
    by_q: Doubles,
) -> None:
    """Write ∇ₓ S [b, features] and ∇_q S [b, classes] of S = ⟨mean ∇_θ l, along⟩.

    S is the derivative of the mean loss along ``along`` [d] in parameter space. So its slopes are
    those of a forward pass with a tangent: z and ż = ∂z/∂θ · along of each unit are computed
    together, and ∂S/∂z and ∂S/∂ż are taken back together, through ELU with its second derivative.
    """
    layers, classes = len(sizes) - 1, sizes[len(sizes) - 1]
    width = sizes.max()
    acts, dots = np.zeros((layers + 1, width, LANES)), np.zeros((layers + 1, width, LANES))
    by_z, by_dot = np.zeros((2, width, LANES)), np.zeros((2, width, LANES))
    targets, total, middle = np.zeros((classes, LANES)), np.zeros(LANES), np.zeros(LANES)
    for first in range(0, len(x), LANES):
        some = _load(x, q, first, acts[0], targets, total)
        outputs(theta, sizes, acts)
        _tangents(theta, along, sizes, acts, dots)
        probabilities(acts[layers], classes, by_z[0])
        middle[:] = 0.0
        for c in range(classes):
            for b in range(LANES):
                middle[b] += by_z[0, c, b] * dots[layers, c, b]
        for c in range(classes):
            for b in range(some):
                by_q[first + b, c] = (middle[b] - dots[layers, c, b]) / len(x)
            for b in range(LANES):
                p = total[b] * by_z[0, c, b]
                by_dot[0, c, b] = (p - targets[c, b]) / len(x)
                by_z[0, c, b] = p * (dots[layers, c, b] - middle[b]) / len(x)
        at, here = len(theta), 0
        for k in range(layers - 1, -1, -1):
            inputs, outs = sizes[k], sizes[k + 1]
            at -= outs + inputs * outs
            for i in range(inputs):
                z, dot = by_z[1 - here, i], by_dot[1 - here, i]
                z[:] = 0.0
                dot[:] = 0.0
                for o in range(outs):
                    weight, change = theta[at + o * inputs + i], along[at + o * inputs + i]
                    above, beside = by_z[here, o], by_dot[here, o]
                    for b in range(LANES):
                        z[b] += weight * above[b] + change * beside[b]
                        dot[b] += weight * beside[b]
                if k > 0:
                    value, moving = acts[k, i], dots[k, i]
                    for b in range(LANES):
                        slope = 1.0 if value[b] > 0 else value[b] + 1.0
                        curve = 0.0 if value[b] > 0 else value[b] + 1.0
                        z[b] = slope * z[b] + curve * moving[b] * dot[b]
                        dot[b] *= slope
            here = 1 - here
        for i in range(sizes[0]):
            for b in range(some):
                by_x[first + b, i] = by_z[here, i, b]


@reassociated
def _load(
    x: Doubles, q: Doubles, first: int, inputs: Doubles, targets: Doubles, total: Doubles
) -> int:
    """Fill the lanes with the examples from ``first`` on; return how many there are.

    ``total`` are the sums of the targets. They are 0 in lanes without an example, as are slopes.
    """
    some = min(LANES, len(x) - first)
    targets[:] = 0.0
    total[:] = 0.0
    for b in range(some):
        for i in range(x.shape[1]):
            inputs[i, b] = x[first + b, i]
        for c in range(q.shape[1]):
            targets[c, b] = q[first + b, c]
            total[b] += q[first + b, c]
    return some


@reassociated
def _tangents(
    theta: Doubles, along: Doubles, sizes: Integers, acts: Doubles, dots: Doubles
) -> None:
    """Fill dots[1:] with ż of each unit, before its ELU, from acts after ``outputs``."""
    at = 0
    for k in range(len(sizes) - 1):
        inputs, outs = sizes[k], sizes[k + 1]
        bias = at + inputs * outs
        for o in range(outs):
            dot = dots[k + 1, o]
            for b in range(LANES):
                dot[b] = along[bias + o]
            for i in range(inputs):
                weight, change = theta[at + o * inputs + i], along[at + o * inputs + i]
                value, moving = acts[k, i], dots[k, i]
                for b in range(LANES):
                    slope = 1.0 if value[b] > 0 else value[b] + 1.0
                    dot[b] += change * value[b] + weight * slope * (moving[b] if k > 0 else 0.0)
        at = bias + outs
