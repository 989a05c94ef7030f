"""The attacker's knowledge of the federation's data: a pool of examples that grows each round."""

from dataclasses import dataclass

import numpy as np
import torch

from fedrobust.data import Split
from fedrobust.errors import ConfigError
from fedrobust.typing import Indices

EXACT = 1000
"""The most points for which optimal transport is exact; above, Sinkhorn's algorithm is used."""
_REGULAR = 0.01
"""The entropic regularisation of Sinkhorn's algorithm, in units of the largest cost."""


def wasserstein_distance(
    a: Split, b: Split, *, scale: float = 1.0, label_cost: float = 1.0
) -> float:
    """Return W₁ of two samples, each example with the same weight.

    The ground cost is ‖x − x′‖₂ / (scale · √D) + label_cost · 1[y ≠ y′], with D the number of
    coordinates. With the standard deviation of the data as ``scale``, examples of one class are
    about √2 apart. The distance is exact up to ``EXACT`` points; above, it has an entropic
    regularisation of 0.01 of the largest cost. a and b hold float x [n, ...] and y [n].

    Raises: ``ValueError`` for an empty sample, ``ConfigError`` where POT is not installed.

    Reference: Flamary et al., "POT: Python Optimal Transport", JMLR 2021.
    """
    try:
        import ot
    except ImportError as error:
        raise ConfigError(
            "distances of distributions are computed by POT: pip install 'fedrobust[learned]'"
        ) from error
    if not len(a) or not len(b):
        raise ValueError("a sample is empty")
    left, right = (split.x.flatten(1).double() for split in (a, b))
    cost = torch.cdist(left, right, compute_mode="donot_use_mm_for_euclid_dist")
    cost = cost / (scale * left.shape[1] ** 0.5)
    cost = (cost + label_cost * (a.y[:, None] != b.y[None, :])).cpu().numpy()
    weights = [np.full(n, 1 / n) for n in cost.shape]
    if max(cost.shape) <= EXACT:
        return float(ot.emd2(*weights, cost))
    regular = _REGULAR * cost.max()
    return float(ot.sinkhorn2(*weights, cost, regular, method="sinkhorn_log"))


def growth(
    pool: Split, new: Split, generator: torch.Generator, *, scale: float = 1.0, most: int = EXACT
) -> float:
    """Return W₁ of a pool and the same pool with the examples ``new`` added.

    W₁(P, (1 − λ) P + λ Q) = λ W₁(P, Q) with λ = |new| / (|pool| + |new|), because W₁ depends on the
    difference of the two measures alone, and is a norm of it. So the transport problem has the new
    examples on one side, and not the whole pool twice. Of more than ``most`` examples on a side,
    so many are drawn.
    """
    share = len(new) / (len(pool) + len(new))
    few = (s if len(s) <= most else s.take(_some(len(s), most, generator)) for s in (pool, new))
    return share * wasserstein_distance(*few, scale=scale)


@dataclass(frozen=True)
class Comparison:
    """The distance of samples of equal size to the truth; ``floor`` is that of the truth itself.

    ``own`` is the distance of the attacker's own data, and ``learned`` that of what it has learned.
    ``labels`` are the shares of the classes in each of ``truth``, ``own`` and ``learned``.
    """

    own: float
    learned: float
    floor: float
    examples: int
    labels: dict[str, tuple[float, ...]]


def compare(
    own: Split,
    learned: Split,
    truth: Split,
    *,
    classes: int,
    most: int = 500,
    scale: float = 1.0,
    generator: torch.Generator,
) -> Comparison:
    """Return W₁ to the truth for equally many own, learned and further true examples.

    A pool seems to come nearer to the truth as it grows, whatever it contains. Therefore the
    samples have equal sizes, and the floor is measured too. This needs the truth, which the
    attacker does not have.
    """
    count = min(len(own), len(learned), len(truth) // 2, most)
    order = torch.randperm(len(truth), generator=generator)
    reference, further = truth.take(order[:count]), truth.take(order[count : 2 * count])
    parts = {
        "own": own.take(_some(len(own), count, generator)),
        "learned": learned.take(_some(len(learned), count, generator)),
        "floor": further,
    }
    found = {
        name: wasserstein_distance(part, reference, scale=scale) for name, part in parts.items()
    }
    samples = {"truth": truth, "own": own, "learned": learned}
    shares = {
        name: tuple((torch.bincount(s.y, minlength=classes).double() / len(s)).tolist())
        for name, s in samples.items()
    }
    return Comparison(found["own"], found["learned"], found["floor"], count, shares)


def spread(data: Split) -> float:
    """Return the root mean variance of the coordinates, the scale of a distance."""
    return float(data.x.flatten(1).double().var(dim=0, correction=0).mean().sqrt()) or 1.0


def joined(a: Split, b: Split) -> Split:
    """Return both samples, one after the other."""
    return Split(torch.cat([a.x, b.x]), torch.cat([a.y, b.y]))


def _some(total: int, wanted: int, generator: torch.Generator) -> Indices:
    return torch.randperm(total, generator=generator)[:wanted].sort().values
