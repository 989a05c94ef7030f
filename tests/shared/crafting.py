"""Views made by hand, and a federation small enough to play in milliseconds."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from fedrobust.aggregators import Aggregator
from fedrobust.clients.client import Client
from fedrobust.clients.optimizers import Sgd
from fedrobust.federation.attack import Attack, initial_state
from fedrobust.federation.projection import NoProjection
from fedrobust.federation.threat import View
from fedrobust.objectives import ERM


def float64(*rows: list[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


OWN = float64([1.0, 2.0, -4.0], [3.0, 2.0, 0.0], [8.0, 2.0, 1.0])
BENIGN = float64([0.0, 1.0, 5.0], [2.0, 3.0, 7.0])


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(n: int, d: int, seed: int = 0) -> Tensor:
    return torch.randn(n, d, generator=seeded(seed), dtype=torch.float64)


def view_of(own: Tensor, benign: Tensor | None = None, **more: Any) -> View:
    """What m colluders with the honest updates ``own`` [m, d] see."""
    d = own.shape[1]
    view = View(
        round=1,
        parameters=torch.zeros(d, dtype=own.dtype),
        history=(),
        model=lambda: nn.Linear(1, 1),
        objective=ERM(),
        client=Client(batches=1, optimizer=Sgd(0.1)),
        classes=2,
        server_lr=1.0,
        projection=NoProjection(),
        rows=len(own),
        data=lambda: (),
        own=own,
    )
    if benign is not None:
        names = tuple(range(len(own), len(own) + len(benign)))
        view = replace(view, benign=benign, benign_clients=names)
    return replace(view, **more)


VIEW = view_of(OWN)


def rows_of(attack: Attack, view: View = VIEW, seed: int = 0) -> Tensor:
    """What ``attack`` sends in its first round."""
    rows, _ = attack.craft(attack.init(), view, seeded(seed))
    assert rows.shape == (view.rows, len(view.parameters))
    assert rows.dtype == view.parameters.dtype
    return rows


class Quadratic:
    """Client i minimises ‖θ - wᵢ‖² / 2 by one noisy step a round; the best θ is the mean of the wᵢ.

    ``skew`` is how far apart the wᵢ are, ``noise`` how far a client's steps; m of n are malicious.
    """

    def __init__(
        self, n: int = 15, m: int = 3, d: int = 40, skew: float = 0.0, noise: float = 0.2
    ) -> None:
        self.n, self.m, self.noise = n, m, noise
        self.best = 1 + normal(1, d, seed=1)[0].abs()
        self.minima = self.best + skew * normal(n, d, seed=2)
        self.minima[m:] += self.best - self.minima[m:].mean(dim=0)

    def play(
        self,
        rule: Aggregator,
        attack: Attack | None,
        rounds: int = 30,
        watch: Callable[[Tensor, Tensor], object] = lambda rows, answer: None,
        knows: tuple[str, ...] = (),
    ) -> Tensor:
        """θ after ``rounds`` from 0 with rate 0.2; the malicious rows come first."""
        theta, draws, own = torch.zeros_like(self.best), seeded(3), seeded(4)
        state = None if attack is None else initial_state(attack)
        for number in range(1, rounds + 1):
            noise = torch.randn(self.n, len(theta), generator=draws, dtype=theta.dtype)
            rows = 0.2 * (self.minima - theta + self.noise * noise)
            if attack is not None:
                view = view_of(rows[: self.m].clone(), round=number, parameters=theta.clone())
                if "benign" in knows:
                    names = tuple(range(self.m, self.n))
                    view = replace(view, benign=rows[self.m :].clone(), benign_clients=names)
                if "rule" in knows:
                    view = replace(view, rule=rule)
                if "clients" in knows:
                    view = replace(view, clients=self.n)
                rows[: self.m], state = attack.craft(state, view, own)
            answer = rule(rows)
            watch(rows, answer)
            theta = theta + answer
        return theta

    def error(self, *args: Any, **kwargs: Any) -> float:
        """‖θ - best‖ / ‖best‖ in the end."""
        return float((self.play(*args, **kwargs) - self.best).norm() / self.best.norm())
