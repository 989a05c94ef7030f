"""What the attacker remembers from round to round, and its report."""

import math
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from fedrobust.attacks.learned import distribution
from fedrobust.data import Split
from fedrobust.federation.attack import Truth
from fedrobust.federation.threat import View
from fedrobust.progress import UNWATCHED, Progress
from fedrobust.typing import Images, Vector

PICTURES = 8
"""The number of reconstructions that a page shows."""


@dataclass
class AttackerState:
    """The attacker's memory; ``saved`` converts it to plain data, and ``of`` converts it back.

    ``x`` and ``y`` are the examples reconstructed so far (the pool). ``distances`` are the
    distances between consecutive pools. ``matching`` holds the gradient distances of examples with
    labels before and after each inversion, ``reached`` what it minimised. ``unused`` holds the
    pool's distance to each new gradient, measured before the pool was fitted to it. ``met`` is the
    number of rounds in which the attacker took part, ``last`` the last one of them, ``own`` its
    update in that round, ``most`` the largest number of colluders seen, and ``rows`` their number
    in all rounds together. The attacker acts by a ``policy``, or by a ``plan`` [steps, k], from
    round ``trained`` on; ``tried`` is the round of its last attempt to train. ``value`` is the mean
    return of the policy or plan in simulated episodes that were not used to choose it. ``kept`` are
    the steps of the training after which it was this policy. ``source`` is the file of a policy
    that was trained before.
    """

    x: Tensor | None = None
    y: Tensor | None = None
    observed: int = 0
    over: bool = False
    distances: list[float] = field(default_factory=list)
    matching: list[list[float]] = field(default_factory=list)
    reached: list[float] = field(default_factory=list)
    unused: list[float] = field(default_factory=list)
    own: Tensor | None = None
    last: int = 0
    met: int = 0
    most: int = 0
    rows: int = 0
    trained: int = 0
    tried: int = 0
    policy: dict[str, Tensor] | None = None
    plan: Tensor | None = None
    sample: list[Tensor] | None = None
    start: Tensor | None = None
    action: Tensor | None = None
    held: int = 0
    returns: list[float] = field(default_factory=list)
    checks: list[list[float]] = field(default_factory=list)
    kept: int | None = None
    value: float | None = None
    rounds: int = 0
    seconds: float = 0.0
    troubles: list[str] = field(default_factory=list)
    source: str | None = None
    progress: Progress = UNWATCHED

    @classmethod
    def of(cls, saved: dict[str, Any], progress: Progress = UNWATCHED) -> "AttackerState":
        """Build the state from plain data; ``progress`` receives the troubles."""
        return cls(**saved, progress=progress)

    def saved(self) -> dict[str, Any]:
        """Return the state as plain data: tensors, numbers and containers of these."""
        return {name: value for name, value in vars(self).items() if name != "progress"}

    def report(self) -> dict[str, Any]:
        """Return what was observed, learned and spent, as JSON."""
        return {
            "observed_rounds": self.observed,
            "reconstructed": 0 if self.y is None else len(self.y),
            "labels": [] if self.y is None else torch.bincount(self.y).tolist(),
            "distances": self.distances,
            "matching": self.matching,
            "reached": self.reached,
            "unused": self.unused,
            "returns": self.returns,
            "checks": self.checks,
            "kept_step": self.kept,
            "value": self.value,
            "simulated_rounds": self.rounds,
            "seconds": round(self.seconds, 3),
            "acts": self.acts,
            "acts_from": self.trained if self.acts else None,
            "source": self.source,
            "troubles": self.troubles,
        }

    @property
    def acts(self) -> bool:
        """Whether it has a policy or a plan."""
        return self.policy is not None or self.plan is not None

    @property
    def pool(self) -> Split | None:
        """The reconstructed examples."""
        return None if self.x is None or self.y is None else Split(self.x, self.y)

    def waited(self, view: View) -> int:
        """Return how many rounds the attacker has missed since it last took part."""
        return view.round - self.last - 1

    def seen(self, view: View) -> tuple[Vector, ...]:
        """Return the earlier broadcasts; empty if the attacker did not receive the last one."""
        return () if self.waited(view) else view.history

    def trouble(self, text: str) -> None:
        """Record a problem once, and tell it to ``progress``."""
        if text not in self.troubles:
            self.troubles.append(text)
            self.progress.troubled(text)


def compared(known: AttackerState, truth: Truth | None) -> dict[str, Any] | None:
    """Compare the reconstructions, and the own data, with the data that the attacker lacks.

    ``nearest`` is the median, over the reconstructions, of the ℓ2 distance to the nearest real
    example, as a share of this example's norm: 0 where real examples were found. Examples that the
    attacker has are no reference: reconstructions start at them.
    """
    if truth is None or known.pool is None or not len(truth.others):
        return None
    pool = Split(known.pool.x.cpu().float(), known.pool.y.cpu())
    draw = torch.Generator().manual_seed(0)
    others, own = (_images(split, 2000, draw) for split in (truth.others, truth.own))
    found = distribution.compare(
        own,
        pool,
        others,
        classes=truth.classes,
        scale=distribution.spread(own),
        generator=draw,
    )
    real, distance = _nearest(pool.x, truth.others)
    share = distance / real.flatten(1).norm(dim=1).clamp(min=1e-12)
    return asdict(found) | {"nearest": float(share.median())}


def _images(split: Split, most: int, draw: torch.Generator) -> Split:
    index = torch.randperm(len(split), generator=draw)[:most]
    return Split(split.images(index), split.y[index])


def _nearest(x: Images, real: Split) -> tuple[Images, Tensor]:
    """Return, for each of x [b, ...], the nearest real example, and its ℓ2 distance [b]."""
    nearest, least = x.clone(), torch.full((len(x),), math.inf)
    for part in torch.split(torch.arange(len(real)), 5000):
        there = real.images(part)
        # By a product of matrices, float32 would find no distance between points that are near.
        index = torch.cdist(x.flatten(1).double(), there.flatten(1).double()).argmin(dim=1)
        distance = (x - there[index]).flatten(1).norm(dim=1)
        closer = distance < least
        nearest[closer], least[closer] = there[index[closer]], distance[closer]
    return nearest, least


def pictures(known: AttackerState, truth: Truth) -> dict[str, Any] | None:
    """Return the last reconstructed images, and for each the nearest real example."""
    pool = known.pool
    if pool is None or pool.x.dim() != 4 or not len(truth.others):
        return None
    x, y = pool.x[-PICTURES:].cpu().float(), pool.y[-PICTURES:].cpu()
    real, _ = _nearest(x, truth.others)
    return {"learned": x.numpy(), "nearest": real.numpy(), "labels": y.numpy()}


def real_data(view: View) -> Split:
    """Return the attacker's real examples, as floats: its own, then those of known clients."""
    held = [*view.data(), *view.others()]
    parts = [(part.images(torch.arange(len(part))), part.y) for part in held if len(part)]
    x, y = (torch.cat(column) for column in zip(*parts, strict=True))
    return Split(x.to(view.parameters), y.to(view.parameters.device))


@dataclass(frozen=True)
class Material:
    """The data of a simulation: examples, and who holds which of them, as indices.

    ``mine`` are the examples of each malicious client, and ``known`` those of each benign client
    whose data are known. The other benign clients draw their examples from ``theirs``.
    """

    data: Split
    mine: tuple[Tensor, ...]
    known: tuple[Tensor, ...]
    theirs: Tensor


def material(known: AttackerState, data: Literal["learned", "own", "both"], view: View) -> Material:
    """Return all data of the attacker; known clients' data count as both own and learned."""
    real, pool = real_data(view), known.pool
    own = [len(part) for part in view.data()]
    everything = real if pool is None else distribution.joined(real, pool)
    parts = torch.split(torch.arange(len(real)), [*own, *map(len, view.others())])
    first = 0 if pool is None or data != "learned" else sum(own)
    last = len(real) if data == "own" else len(everything)
    return Material(everything, parts[: len(own)], parts[len(own) :], torch.arange(first, last))
