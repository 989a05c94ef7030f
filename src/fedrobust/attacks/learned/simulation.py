"""The attacker's simulation of the federation: the real round, on examples that it has learned."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fedrobust.aggregators import Aggregator
from fedrobust.aggregators.aggregator import Aggregation, Context, NoAnswerError
from fedrobust.clients.gradients import GradientEngine
from fedrobust.clients.local_training import LocalTraining
from fedrobust.compute.precision import Precision
from fedrobust.data import Split
from fedrobust.federation.attack import Attack
from fedrobust.federation.participation import Participation
from fedrobust.federation.server import Server
from fedrobust.federation.state import Federation
from fedrobust.federation.threat import ThreatModel, View
from fedrobust.perturb.wasserstein import Ascent
from fedrobust.typing import Indices, Updates, Vector


@dataclass(frozen=True)
class CallableRule:
    """A rule of which only the function is known: the server's rule, as a view gives it.

    Its memory and the server's own update stay as they were when the view was made. Where it
    refuses the remaining rows of a round, the simulated server makes no step. A rule whose answer
    depends on the order of the rows (``ordered``) is a rule that draws: in each round it gets the
    rows in a new random order.
    """

    rule: Callable[[Updates], Vector]
    ordered: bool = False

    def __call__(self, updates: Updates, context: Context = Context()) -> Vector:
        """Return the function's answer."""
        return self.rule(updates)

    def aggregate(self, updates: Updates, context: Context) -> Aggregation:
        """Return the function's answer; the kept rows are not known."""
        if self.ordered:
            order = torch.randperm(len(updates), generator=context.generator)
            updates = updates[order.to(updates.device)]
        try:
            return Aggregation(self.rule(updates))
        except NoAnswerError:
            raise
        except ValueError as error:
            raise NoAnswerError(str(error)) from error

    def check(self, n: int) -> None:
        """Do nothing: the function itself refuses invalid rows."""

    def tolerating(self, dropped: int) -> "CallableRule":
        """Return the rule unchanged."""
        return self


def simulated(
    view: View,
    data: Split,
    attack: Attack,
    *,
    parts: Sequence[Indices],
    malicious: int,
    participation: Participation,
    rule: Aggregator,
    precision: Precision = "float32",
) -> Federation:
    """Return a federation whose last ``malicious`` clients send what ``attack`` crafts.

    ``parts`` are the examples of each client, as indices into ``data``. ``rule`` is the server's
    rule in a white-box attack, and the mean in a black-box one. Every client knows the server's Θ
    and learning rate, the objective and how clients train.
    """
    clients = len(parts)
    local = LocalTraining(
        model=view.model(),
        data=data,
        classes=view.classes,
        clients=parts,
        objective=view.objective,
        config=view.client,
        batch=1024,
        device=view.parameters.device,
        precision=precision,
    )
    return Federation(
        local=local,
        participation=participation,
        malicious=frozenset(range(clients - malicious, clients)),
        attack=attack,
        threat=ThreatModel(clients=clients),
        aggregator=rule,
        server=Server(
            lr=view.server_lr, optimizer=view.server_optimizer, projection=view.projection
        ),
    )


PLAIN = ("loss", "error")
"""The kinds of harm that need no price γ: they are taken at the examples themselves."""
_NEARBY = 0.1
"""The distance of the two prices whose gradients are subtracted, relative to γ."""


@dataclass(frozen=True)
class Harm:
    """The harm done to the model, on a fixed sample of the learned examples.

    ``robustness`` is −ρ̂(θ), so that the reward is ρ̂(θ^{t−1}) − ρ̂(θ^t) as in DRFL.
    ``worst-case-loss`` is E l(θ; T_γ(Z)), ``loss`` is E l(θ; Z), and ``error`` is the share of
    wrong answers. A model that has blown up, so that these are not finite, has an infinite ρ̂ and an
    infinite loss, and each of its answers is wrong.
    """

    kind: str
    engine: GradientEngine
    sample: Split
    gamma: float
    ascent: Ascent

    def __call__(self, parameters: Vector) -> float:
        """Return the harm at θ; larger is better for the attacker."""
        value = float(self.value(parameters).detach())
        if math.isfinite(value):
            return value
        return -math.inf if self.kind == "robustness" else math.inf

    def value(self, parameters: Vector) -> Tensor:
        """Return the harm at θ as a tensor, which has a gradient where the engine gives one."""
        x, y = self.sample.x, self.sample.y
        if self.kind == "loss":
            return self.engine.losses(parameters, x, y).double().mean()
        if self.kind == "error":
            return self.engine.mistakes(parameters, x, y).double().mean()
        moved = self.engine.moved(parameters, x, y, self.gamma, self.ascent)
        if self.kind == "robustness":
            return -(moved - x).flatten(1).square().sum(dim=1).double().mean()
        return self.engine.losses(parameters, moved, y).double().mean()

    def gradient(self, parameters: Vector) -> Vector:
        """Return ∇_θ of the harm [d], for exact maximisers; 0 where it is not finite.

        φ(γ) = E[l(θ; T_γ(Z)) − γ c(T_γ(Z), Z)] is a maximum. So ∇_θ φ = g(γ), the gradient at the
        maximisers held fixed, and ∂φ/∂γ = −ρ̂. Hence ∇_θ ρ̂ = −∂g/∂γ, computed as a difference of
        gradients at prices ``_NEARBY`` apart. The gradient of the worst-case loss φ + γρ̂ is g − γ
        ∂g/∂γ. The error has no gradient where it does not jump. In its place stands that of the
        loss, the surrogate by which classifiers are trained.
        """
        x, y = self.sample.x, self.sample.y

        def at(gamma: float) -> Vector:
            moved = self.engine.moved(parameters, x, y, gamma, self.ascent)
            return self.engine.gradients(parameters, moved, y, 1)[0]

        if self.kind in PLAIN:
            found = self.engine.gradients(parameters, x, y, 1)[0]
        else:
            low, high = at(self.gamma * (1 - _NEARBY)), at(self.gamma * (1 + _NEARBY))
            slope = (high - low) / (2 * _NEARBY * self.gamma)
            robustness = self.kind == "robustness"
            found = slope if robustness else (high + low) / 2 - self.gamma * slope
        return found if torch.isfinite(found).all() else torch.zeros_like(found)


def some_rows(like: Vector, clients: int) -> Updates:
    """Return as many rows as a round has [clients, d], the same each time, to try a rule on."""
    draw = torch.Generator().manual_seed(0)
    return torch.randn(clients, len(like), generator=draw).to(like)


def answers(rule: Callable[[Updates], Vector], like: Vector, clients: int) -> list[float]:
    """Return the head of a rule's answer to ``some_rows``, to identify it; [] for no answer."""
    try:
        return [float(value) for value in rule(some_rows(like, clients))[:16]]
    except ValueError:
        return []
