"""The local model poisoning attacks of Fang et al."""

from typing import Annotated, Literal

import torch
from annotated_types import Gt
from pydantic import AllowInfNan, Strict
from torch import Tensor

from fedrobust.aggregators.aggregator import NoAnswerError
from fedrobust.aggregators.checks import finite_rows
from fedrobust.aggregators.kernels.dispatch import squared_distances
from fedrobust.attacks import estimates
from fedrobust.attacks.checks import broadcast, validate
from fedrobust.attacks.moments import mean, moments
from fedrobust.config.component import component
from fedrobust.config.scalars import Positive
from fedrobust.federation.attack import Requirements
from fedrobust.federation.one_call import on_rows
from fedrobust.federation.threat import View
from fedrobust.typing import Updates, Vector

Stretch = Annotated[float, Strict(), AllowInfNan(False), Gt(1)]


@component
class LocalModelPoisoning:
    """A directed deviation: against s, the signs of the step that the model would take unattacked.

    s = sign(mean of the honest updates). These are the benign updates where they are granted (full
    knowledge), else the colluders' own (partial knowledge). θ are the broadcast parameters, and
    w = θ + Δ.

    ``against: krum``: all m colluders send Δ = -λs, with the largest λ found that Krum selects. λ
    starts at minᵢ Σₗ ‖wᵢ - wₗ‖ / ((n - 2m - 1)√d) + maxᵢ ‖wᵢ - θ‖ / √d, where the sum is over the
    n - m - 2 honest rows nearest to i. λ is halved until the row is selected, or is below
    ``threshold``. Where the rule is granted, "selected" means first that the rule's own answer is
    the crafted row. Where that is so for no λ, as under a mean, which never answers with a single
    row, and where the rule is not granted, the adversary computes Krum with f = m. If Krum selects
    no row either, the colluders send their honest updates. With partial
    knowledge the colluders' honest rows play the benign ones, against 1, 2, … m - 2 crafted rows,
    until a λ is found. More crafted rows would have only each other as neighbours, and would always
    be selected. Where the rule and the number of clients are known as well, the missing benign rows
    are simulated. A rule that refuses so few rows is replaced by Krum.

    ``against: trimmed-mean`` and ``median``: each coordinate of each row is drawn uniformly beyond
    the honest values. With full knowledge, with their least value wmin and their greatest wmax:

    - sⱼ = -1: from [wmax, b·wmax], or [wmax, wmax/b] where wmax <= 0;
    - sⱼ = +1: from [wmin/b, wmin], or [b·wmin, wmin] where wmin <= 0.

    With partial knowledge, with their mean μ and their deviation σ (divisor m): from
    [μ + 3σ, μ + 4σ] for sⱼ = -1, else from [μ - 4σ, μ - 3σ]. Where sⱼ = 0, Δⱼ = 0.

    Reference: Fang et al., "Local model poisoning attacks to Byzantine-robust federated learning",
    USENIX Security 2020. Differences from the paper: the vector s is the sign of the mean also
    where the rule is known; √d is ‖s‖; Krum sums squared distances, as Blanchard et al. define it,
    so the bound on λ, which is proved for sums of distances, is only a starting point; the rows
    against Krum are equal, and ``Jittered`` can separate them by the paper's ε.

    Cost: O(h²·d) against krum, and one aggregation for each λ tried where the rule is known;
    otherwise O(h·d).

    Example: ``{name: local-model-poisoning, against: krum}``
    """

    against: Literal["krum", "trimmed-mean", "median"]
    b: Stretch = 2.0
    threshold: Positive = 1e-5
    name: Literal["local-model-poisoning"] = "local-model-poisoning"
    __call__ = on_rows

    @property
    def requires(self) -> Requirements:
        """Two colluders, whose rows have a deviation; against Krum three, which have neighbours."""
        colluders = 3 if self.against == "krum" else 2
        return Requirements(knowledge={"colluders"}, min_colluders=colluders)

    def init(self) -> None:
        """Return None: the attack keeps no state."""

    def craft(self, state: None, view: View, rng: torch.Generator) -> tuple[Updates, None]:
        """Return the rows [m, d]: equal rows against Krum, else each drawn separately."""
        validate(self, view, rng)
        known = estimates.honest(view)
        few = not estimates.sees_benign(view) and len(known) < self.requires.min_colluders
        if few or not all(finite_rows(known)):
            return view.own, None
        if self.against == "krum":
            return self._selected(view, rng), None
        return self._beyond(view, rng), None

    def _selected(self, view: View, rng: torch.Generator) -> Updates:
        others = estimates.honest(view)
        signs = mean(others).sign()
        total, crafted = estimates.clients(view), range(1, max(2, view.rows - 1))
        if estimates.sees_benign(view):
            crafted = range(view.rows, view.rows + 1)
        elif view.rule is not None and total is not None:
            others = estimates.expected_benign(view, total, rng)
            crafted = range(view.rows, view.rows + 1)
        trial = _KrumTrial(others, signs)
        # The rule itself is asked first: no row alone is the answer of a mean.
        for asked in (view, None) if view.rule is not None else (None,):
            for count in crafted:
                size = trial.bound(count)
                while size >= self.threshold:
                    if trial.selects(size, count, asked):
                        return (-size * signs).expand(view.rows, -1)
                    size /= 2
        return view.own

    def _beyond(self, view: View, rng: torch.Generator) -> Updates:
        honest = estimates.honest(view)
        deviation, middle = moments(honest)
        signs = middle.sign()
        draws = torch.rand(view.rows, len(middle), generator=rng, dtype=middle.dtype).to(middle)
        if not estimates.sees_benign(view):
            return middle - signs * (3 + draws) * deviation
        low, high = torch.aminmax(honest, dim=0)
        edge = torch.where(signs < 0, high, torch.where(signs > 0, low, middle))
        # Computed in updates, not parameters: rounding of w - θ cannot move a draw inside the edge.
        w = broadcast(self, view) + edge
        outwards = (w > 0) == (signs < 0)
        width = w.abs() * torch.where(outwards, self.b - 1, 1 - 1 / self.b)
        return edge - signs * draws * width


class _KrumTrial:
    """Checks whether one of ``count`` rows -λ s would be selected among the ``honest`` rows."""

    def __init__(self, honest: Updates, signs: Vector) -> None:
        self.honest, self.signs = honest, signs
        self.squared = squared_distances(honest)
        # n - f - 2 with n = honest + crafted rows and f = crafted ones.
        self.neighbours = max(1, len(honest) - 2)
        lengths = torch.linalg.vector_norm(honest, dim=1, dtype=torch.float64)
        # ‖x + λs‖² from its three terms: the cost of a trial does not grow with d.
        self.lengths, self.along = lengths**2, (honest @ signs).double()
        self.norm = float(torch.linalg.vector_norm(signs, dtype=torch.float64))

    def bound(self, count: int) -> float:
        """Return the λ above which the paper's Krum cannot select the row; 0 where s = 0."""
        if self.norm == 0:
            return 0.0
        others = self.squared.sqrt().sort(dim=1).values[:, 1 : self.neighbours + 1]
        share = max(1, len(self.honest) - count - 1)
        closest, furthest = float(others.sum(dim=1).min()), float(self.lengths.max().sqrt())
        return (closest / share + furthest) / self.norm

    def selects(self, size: float, count: int, asked: View | None) -> bool:
        """Ask the rule of the view where there is one, if it takes so few rows; else Krum."""
        if asked is None:
            return self._krum_selects(size, count)
        row = -size * self.signs
        try:
            answer = estimates.answer(asked, torch.cat([row.expand(count, -1), self.honest]))
        except NoAnswerError:
            return False
        except ValueError:
            return self._krum_selects(size, count)
        apart, length = (answer.double() - row.double()).norm(), row.double().norm()
        return bool(apart <= 1e-5 * length)

    def _krum_selects(self, size: float, count: int) -> bool:
        gap = (self.lengths + 2 * size * self.along + size**2 * self.norm**2).clamp(min=0)
        # count - 1 of its neighbours are equal rows at distance 0.
        mine = gap.sort().values[: max(0, self.neighbours - count + 1)].sum()
        return bool(mine <= self._scores(gap, count).min())

    def _scores(self, gap: Tensor, count: int) -> Tensor:
        distances = torch.cat([self.squared, gap[:, None].expand(-1, count)], dim=1)
        return distances.sort(dim=1).values[:, 1 : self.neighbours + 1].sum(dim=1)
