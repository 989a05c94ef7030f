"""List each rule of fedrobust.aggregators, other implementations of it, and the right answers.

"plain" are the obvious lines of PyTorch. ByzFL and Flower take part if they can be imported, and
are called as their users would call them. Where their definition differs from ours, ``right`` has a
separate answer for them: ByzFL's Krum counts one more neighbour, and its mean around the median
keeps n − f values.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import psutil
import torch
from torch import Tensor

import fedrobust.aggregators as ours
from fedrobust.aggregators import Aggregator, Context
from right import Right

try:
    import byzfl
except (ImportError, RuntimeError):  # its torchvision may not match the installed torch
    byzfl = None
try:
    from flwr.server.strategy import aggregate as flower
except ImportError:
    flower = None

Call = Callable[[Tensor], Any]
RADIUS = 100.0
"""The clip length, in update units."""


@dataclass
class Case:
    """A rule, its other contestants, and the right answers by name; "" is for all other names.

    An answer is None where the definition leaves a choice, or the contestants draw at random.
    """

    rule: Aggregator
    others: dict[str, Call]
    right: dict[str, Callable[[], Tensor] | None] = field(default_factory=dict)
    context: Context = field(default_factory=Context)


def cases(updates: Tensor, right: Right) -> dict[str, Case]:
    """Return a case for each rule: f is as large as n allows, but 2 or 1 to search all sets."""
    n = len(updates)
    f, b, half = (n - 3) // 2, (n - 3) // 4, (-(-n // 2) - 1) // 2
    root = updates.mean(dim=0)
    made = [
        Case(
            ours.Mean(),
            {
                "plain": lambda x: x.mean(dim=0),
                **in_byzfl(lambda: byzfl.Average()),
                **in_flower(lambda r: flower.aggregate(r), updates),
            },
            {"": right.mean},
        ),
        Case(
            ours.Median(),
            {
                "plain": median,
                **in_byzfl(lambda: byzfl.Median()),
                **in_flower(lambda r: flower.aggregate_median(r), updates),
            },
            {"": lambda: right.middle((n - 1) // 2)},
        ),
        Case(
            ours.TrimmedMean(f),
            {
                "plain": lambda x: trimmed_mean(x, f),
                **in_byzfl(lambda: byzfl.TrMean(f)),
                # Half a row more than f of n, so that rounding cannot lose a whole row.
                **in_flower(lambda r: flower.aggregate_trimmed_avg(r, (f + 0.5) / n), updates),
            },
            {"": lambda: right.middle(f)},
        ),
        Case(
            ours.MeanAroundMedian(f),
            {"plain": lambda x: around(x, n - 2 * f), **in_byzfl(lambda: byzfl.Meamed(f))},
            {"": lambda: right.around(n - 2 * f), "byzfl": lambda: right.around(n - f)},
        ),
        Case(
            ours.Krum(f),
            {
                "plain": lambda x: x[krum_scores(torch.cdist(x, x) ** 2, n - f - 2).argmin()],
                **in_byzfl(lambda: byzfl.Krum(f)),
                **in_flower(lambda r: flower.aggregate_krum(r, f, 0), updates),
            },
            {"": lambda: right.krum(n - f - 2, 1), "byzfl": lambda: right.krum(n - f - 1, 1)},
        ),
        Case(
            ours.MultiKrum(f),
            {
                "plain": lambda x: multi_krum(x, n - f - 2),
                **in_byzfl(lambda: byzfl.MultiKrum(f)),
                **in_flower(lambda r: flower.aggregate_krum(r, f, n - f - 2), updates),
            },
            {
                "": lambda: right.krum(n - f - 2, n - f - 2),
                "byzfl": lambda: right.krum(n - f - 1, n - f),
            },
        ),
        Case(
            ours.Bulyan(b),
            {
                "plain": lambda x: bulyan(x, b),
                **in_flower(
                    lambda r: flower.aggregate_bulyan(list(r), b, flower.aggregate_krum, to_keep=0),
                    updates,
                ),
            },
            {"": lambda: right.bulyan(b)},
        ),
        *(new_rule(name, updates, right, f, half, root) for name in NEW if hasattr(ours, name)),
    ]
    return {type(case.rule).__name__: case for case in made}


NEW = [
    "GeometricMedian",
    "CenteredClipping",
    "NormBound",
    "FLTrust",
    "NearestNeighborMixing",
    "Bucketing",
    "MinimumDiameterAveraging",
    "SmallestMaximumEigenvalueAveraging",
]


def new_rule(name: str, updates: Tensor, right: Right, f: int, half: int, root: Tensor) -> Case:
    """Return the case of one of the rules in ``NEW``."""
    n = len(updates)
    make: Any = getattr(ours, name)
    if name == "GeometricMedian":
        others = {"plain": weiszfeld, **in_byzfl(lambda: byzfl.GeometricMedian())}
        return Case(make(), others, {"": right.geometric_median})
    if name == "CenteredClipping":
        others = {"plain": clipped, **in_byzfl(lambda: byzfl.CenteredClipping(tau=RADIUS))}
        return Case(make(radius=RADIUS), others, {"": lambda: right.clipped(RADIUS)})
    if name == "NormBound":
        return Case(make(bound=RADIUS), {"plain": clipped}, {"": lambda: right.clipped(RADIUS)})
    if name == "FLTrust":
        others = {"plain": lambda x: trusted(x, root)}
        return Case(make(), others, {"": lambda: right.trusted(root)}, Context(root=root))
    if name == "NearestNeighborMixing":
        others = {
            "plain": lambda x: trimmed_mean(mixed(x, n - f), f),
            **in_byzfl(lambda: lambda x: byzfl.TrMean(f)(byzfl_mixed(x, f))),
        }
        rule = make(f=f, rule=ours.TrimmedMean(f))
        return Case(rule, others, {"": lambda: right.mixed(n - f, f)})
    if name == "Bucketing":
        others = {
            "plain": lambda x: trimmed_mean(bucketed(x), half),
            **in_byzfl(lambda: lambda x: byzfl.TrMean(half)(byzfl.Bucketing(2)(x))),
        }
        return Case(make(s=2, rule=ours.TrimmedMean(half)), others, {"": None})
    if name == "MinimumDiameterAveraging":
        others = {"plain": lambda x: smallest(x, 2), **in_byzfl(lambda: byzfl.MDA(2))}
        return Case(make(f=2), others, {"": None})
    others = {"plain": lambda x: flattest(x), **in_byzfl(lambda: byzfl.SMEA(1))}
    return Case(make(f=1), others, {"": right.flattest})


def in_byzfl(make: Callable[[], Call]) -> dict[str, Call]:
    """Return a rule of ByzFL, made anew for each call, since some remember the call before."""
    return {} if byzfl is None else {"byzfl": lambda x: make()(x)}


def in_flower(call: Callable[[list[Any]], Any], updates: Tensor) -> dict[str, Call]:
    """Return a rule of Flower. It takes each client's list of layers and number of examples."""
    if flower is None:
        return {}
    results = [([row], 1) for row in updates.numpy()]
    return {"flower": lambda _: call(results)}


def median(x: Tensor) -> Tensor:
    """Return the median. PyTorch's own median takes the lower of two middle values."""
    if len(x) % 2:
        return x.median(dim=0).values
    return x.sort(dim=0).values[len(x) // 2 - 1 : len(x) // 2 + 1].mean(dim=0)


def trimmed_mean(x: Tensor, f: int) -> Tensor:
    return x.sort(dim=0).values[f : len(x) - f].mean(dim=0)


def around(x: Tensor, keep: int) -> Tensor:
    ordered = x.sort(dim=0).values
    closest = (ordered - median(ordered)).abs().argsort(dim=0, stable=True)[:keep]
    return ordered.gather(0, closest).mean(dim=0)


def krum_scores(squared: Tensor, neighbours: int) -> Tensor:
    return squared.sort(dim=1).values[:, 1 : neighbours + 1].sum(dim=1)


def multi_krum(x: Tensor, m: int) -> Tensor:
    return x[krum_scores(torch.cdist(x, x) ** 2, m).argsort()[:m]].mean(dim=0)


def bulyan(x: Tensor, f: int) -> Tensor:
    squared, rows = torch.cdist(x, x) ** 2, torch.arange(len(x))
    kept = []
    while len(kept) < len(x) - 2 * f:
        near = max(1, len(rows) - f - 2)
        place = krum_scores(squared[rows][:, rows], near).argmin()
        kept.append(int(rows[place]))
        rows = rows[rows != rows[place]]
    return around(x[kept], len(kept) - 2 * f)


def weiszfeld(x: Tensor) -> Tensor:
    centre = x.mean(dim=0)
    for _ in range(100):
        weights = 1 / (x - centre).norm(dim=1).clamp(min=1e-12)
        last, centre = centre, weights @ x / weights.sum()
        if (centre - last).norm() <= 1e-6 * (x - centre).norm(dim=1).mean():
            break
    return centre


def clipped(x: Tensor) -> Tensor:
    return (x * (RADIUS / x.norm(dim=1)).clamp(max=1)[:, None]).mean(dim=0)


def trusted(x: Tensor, root: Tensor) -> Tensor:
    trust = torch.cosine_similarity(x, root[None], dim=1).clamp(min=0)
    return (trust * root.norm() / x.norm(dim=1)) @ x / trust.sum()


def mixed(x: Tensor, keep: int) -> Tensor:
    nearest = torch.cdist(x, x).topk(keep, largest=False).indices
    return torch.stack([x[rows].mean(dim=0) for rows in nearest])


def byzfl_mixed(x: Tensor, f: int) -> Tensor:
    needed = 2 * len(x) * (len(x) - f) * x.shape[1] * x.element_size()
    if needed > psutil.virtual_memory().available:
        raise MemoryError(f"it needs about {needed / 2**30:.0f} GiB")
    mix: Tensor = byzfl.NNM(f)(x)
    return mix


def bucketed(x: Tensor) -> Tensor:
    return torch.stack([part.mean(dim=0) for part in x[torch.randperm(len(x))].split(2)])


def smallest(x: Tensor, f: int) -> Tensor:
    distances = torch.cdist(x, x)
    sets = [torch.tensor(rows) for rows in combinations(range(len(x)), len(x) - f)]
    return x[min(sets, key=lambda rows: float(distances[rows][:, rows].max()))].mean(dim=0)


def flattest(x: Tensor) -> Tensor:
    def spread(rows: Tensor) -> float:
        centred = x[rows] - x[rows].mean(dim=0)
        return float(torch.linalg.eigvalsh(centred @ centred.T)[-1])

    sets = [torch.tensor(rows) for rows in combinations(range(len(x)), len(x) - 1)]
    return x[min(sets, key=spread)].mean(dim=0)
