"""What the attacker carries from round to round, and what came of it."""

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
"""How many reconstructions a page shows."""


@dataclass
class AttackerState:
    """What the attacker carries from round to round; ``saved`` and ``of`` are its plain form.

    ``x`` and ``y`` are the examples reconstructed so far, ``distances`` those between consecutive
    pools, ``matching`` the gradient distances before and after each inversion, and ``unused`` the
    pool's on a gradient that it was not fitted to, before it was. It has ``met`` so many rounds, in
    the ``last`` of which it sent ``own``, with at ``most`` so many colluders. It acts by a
    ``policy``, or by a ``plan`` [steps, k] from round ``trained`` on; it last ``tried`` to train in
    round ``tried``. ``value`` is the mean return of either in episodes of the simulation that had
    no part in choosing it; ``source`` is the file of a policy that was trained before.
    """

    x: Tensor | None = None
    y: Tensor | None = None
    observed: int = 0
    over: bool = False
    distances: list[float] = field(default_factory=list)
    matching: list[list[float]] = field(default_factory=list)
    unused: list[float] = field(default_factory=list)
    own: Tensor | None = None
    last: int = 0
    met: int = 0
    most: int = 0
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
    value: float | None = None
    rounds: int = 0
    seconds: float = 0.0
    troubles: list[str] = field(default_factory=list)
    source: str | None = None
    progress: Progress = UNWATCHED

    @classmethod
    def of(cls, saved: dict[str, Any], progress: Progress = UNWATCHED) -> "AttackerState":
        """From its plain form; ``progress`` is told of troubles."""
        return cls(**saved, progress=progress)

    def saved(self) -> dict[str, Any]:
        """Tensors, numbers and containers of these."""
        return {name: value for name, value in vars(self).items() if name != "progress"}

    def report(self) -> dict[str, Any]:
        """What was observed, learned and spent, as JSON."""
        return {
            "observed_rounds": self.observed,
            "reconstructed": 0 if self.y is None else len(self.y),
            "labels": [] if self.y is None else torch.bincount(self.y).tolist(),
            "distances": self.distances,
            "matching": self.matching,
            "unused": self.unused,
            "returns": self.returns,
            "checks": self.checks,
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
        """How many rounds have passed since it last took part; 0 for none."""
        return view.round - self.last - 1

    def seen(self, view: View) -> tuple[Vector, ...]:
        """The broadcasts before this one, up to the last that it was there to receive."""
        return () if self.waited(view) else view.history

    def trouble(self, text: str) -> None:
        """Note what went wrong, once, and tell whoever watches."""
        if text not in self.troubles:
            self.troubles.append(text)
            self.progress.troubled(text)


def compared(known: AttackerState, truth: Truth | None) -> dict[str, Any] | None:
    """How near what was reconstructed came to the federation's data, beside the own data.

    ``nearest`` is the median, over the reconstructions, of the ℓ2 distance to the nearest of all
    real examples, as a share of that one's norm: 0 where real examples were found.
    """
    if truth is None or known.pool is None:
        return None
    pool = Split(known.pool.x.cpu().float(), known.pool.y.cpu())
    draw = torch.Generator().manual_seed(0)
    train, own = (_images(split, 2000, draw) for split in (truth.train, truth.own))
    found = distribution.compare(
        own,
        pool,
        train,
        classes=truth.classes,
        scale=distribution.spread(own),
        generator=draw,
    )
    real, distance = _nearest(pool.x, truth.train)
    share = distance / real.flatten(1).norm(dim=1).clamp(min=1e-12)
    return asdict(found) | {"nearest": float(share.median())}


def _images(split: Split, most: int, draw: torch.Generator) -> Split:
    index = torch.randperm(len(split), generator=draw)[:most]
    return Split(split.images(index), split.y[index])


def _nearest(x: Images, real: Split) -> tuple[Images, Tensor]:
    """For each of x [b, ...] the nearest of all real examples, and its ℓ2 distance [b]."""
    nearest, least = x.clone(), torch.full((len(x),), math.inf)
    for part in torch.split(torch.arange(len(real)), 5000):
        there = real.images(part)
        distance, index = torch.cdist(x.flatten(1), there.flatten(1)).min(dim=1)
        closer = distance < least
        nearest[closer], least[closer] = there[index[closer]], distance[closer]
    return nearest, least


def pictures(known: AttackerState, truth: Truth) -> dict[str, Any] | None:
    """The last reconstructions that are images, and for each the nearest of all real examples."""
    pool = known.pool
    if pool is None or pool.x.dim() != 4:
        return None
    x, y = pool.x[-PICTURES:].cpu().float(), pool.y[-PICTURES:].cpu()
    real, _ = _nearest(x, truth.train)
    return {"learned": x.numpy(), "nearest": real.numpy(), "labels": y.numpy()}


def real_data(view: View) -> Split:
    """The real examples that the attacker has, as floats: its own, then known clients'."""
    held = [*view.data(), *view.others()]
    parts = [(part.images(torch.arange(len(part))), part.y) for part in held if len(part)]
    x, y = (torch.cat(column) for column in zip(*parts, strict=True))
    return Split(x.to(view.parameters), y.to(view.parameters.device))


@dataclass(frozen=True)
class Material:
    """What a simulation is made of: examples, and as indices into them who holds which.

    ``mine`` are those of each malicious client, ``known`` those of each benign client whose data
    are known, and other benign clients draw theirs from ``theirs``.
    """

    data: Split
    mine: tuple[Tensor, ...]
    known: tuple[Tensor, ...]
    theirs: Tensor


def material(known: AttackerState, data: Literal["learned", "own", "both"], view: View) -> Material:
    """All that the attacker has; known clients' data count among both the own and the learned."""
    real, pool = real_data(view), known.pool
    own = [len(part) for part in view.data()]
    everything = real if pool is None else distribution.joined(real, pool)
    parts = torch.split(torch.arange(len(real)), [*own, *map(len, view.others())])
    first = 0 if pool is None or data != "learned" else sum(own)
    last = len(real) if data == "own" else len(everything)
    return Material(everything, parts[: len(own)], parts[len(own) :], torch.arange(first, last))
