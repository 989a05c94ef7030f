"""The convergence attack of FAT."""

from statistics import NormalDist
from typing import Literal

import torch

from fedrobust.attacks import estimates
from fedrobust.attacks.checks import validate
from fedrobust.attacks.moments import moments
from fedrobust.config.component import component
from fedrobust.config.scalars import Real
from fedrobust.federation.attack import Requirements
from fedrobust.federation.one_call import on_rows
from fedrobust.federation.threat import Knowledge, View, not_granted
from fedrobust.typing import Updates


@component
class ALittleIsEnough:
    """Every malicious client sends Δⱼ = μⱼ + k σⱼ, coordinate by coordinate; or Δⱼ = μⱼ - k σⱼ.

    With ``of: updates`` it is +: k counts deviations of the updates, local minus global weights.
    With ``of: gradients`` it is -: k counts deviations of the gradients, which point the other way.
    The latter is also what k means where updates are global minus local weights. The sign decides
    the outcome: with k = -1.5, ``updates`` holds every coordinate back, and ``gradients`` drives it
    on.

    μ and σ (with divisor n) are taken over the colluders' own honest updates, or over the benign
    ones where the threat model grants them. FAT §3.1 uses k = -1.5 against MeanAroundMedian and
    k = -1 against Bulyan. One update alone has no deviation. So without benign updates two
    malicious clients are needed; in a round with only one, it sends its honest update.

    ``k: max`` is -z. z is the largest deviation at which the attack is still nearer to the mean
    than the s = ⌊n/2 + 1⌋ - m benign clients that m colluders need for a majority of n:

    - ``max``: z = Φ⁻¹((n - m - s) / (n - m)), the share among the benign clients, as published;
    - ``max-of-all``: z = Φ⁻¹((n - s) / n), the share among all clients; larger, and also in use.

    n is the number of clients, or a lower bound where the threat model grants only that. Colluders
    that already have the majority get s = 1. z is 0 where not even one benign client would remain.
    z is negative where one colluder of an even number would need half of the benign clients.

    Reference: Baruch et al., "A little is enough: circumventing defenses for distributed learning",
    NeurIPS 2019. Differences from the paper: the paper's adversary never sees benign updates; k may
    be given; σ has divisor n, as FAT's values of k assume. The paper's text and its published code
    act on gradients; FAT, whose clients send weights, does not say what its k acts on.

    Cost: O(h·d).

    Example: ``{name: a-little-is-enough, k: -1.0}``
    """

    k: Real | Literal["max", "max-of-all"]
    of: Literal["updates", "gradients"] = "updates"
    name: Literal["a-little-is-enough"] = "a-little-is-enough"
    __call__ = on_rows

    @property
    def requires(self) -> Requirements:
        """The colluders' updates, and the number of clients where k depends on it."""
        counts: set[Knowledge] = {"clients"} if isinstance(self.k, str) else set()
        return Requirements(knowledge=frozenset[Knowledge]({"colluders"}) | counts, min_colluders=2)

    def init(self) -> None:
        """Return None: the attack keeps no state."""

    def craft(self, state: None, view: View, rng: torch.Generator) -> tuple[Updates, None]:
        """Return one vector, repeated for all malicious clients [m, d]."""
        validate(self, view, rng)
        k = -self._furthest(view) if isinstance(self.k, str) else self.k
        k = -k if self.of == "gradients" else k
        deviation, mean = moments(estimates.honest(view))
        return (mean + k * deviation).expand(view.rows, -1), None

    def _furthest(self, view: View) -> float:
        n, m = estimates.clients(view), view.rows
        if n is None:
            raise not_granted(self, "clients")
        supporters = max(1, n // 2 + 1 - m)
        among = n - m if self.k == "max" else n
        if among <= supporters:
            return 0.0
        return NormalDist().inv_cdf((among - supporters) / among)
