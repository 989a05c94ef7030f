"""Stage one: learn from the steps that the server has made."""

import math
import time

import torch
from torch import Tensor

from fedrobust.attacks import estimates
from fedrobust.attacks.learned import distribution
from fedrobust.attacks.learned.attacker_state import AttackerState, real_data
from fedrobust.attacks.learned.inversion import Inversion, invert
from fedrobust.attacks.learned.settings import Settings
from fedrobust.attacks.learned.simulation import some_rows
from fedrobust.clients.gradients import gradient_engine
from fedrobust.clients.optimizers import Sgd
from fedrobust.compute.parameters import read, write
from fedrobust.data import Split
from fedrobust.federation.server_optimizer import Plain
from fedrobust.federation.threat import View
from fedrobust.objectives import Objective, own_loss
from fedrobust.typing import Vector

_NEAR = 1e-4
"""A parameter this near to the edge of Θ, in relative terms, counts as on the edge."""
_SAME = 1e-3
"""A step within this relative distance of a row counts as this row: θ rounds the step."""


def observe(known: AttackerState, attack: Settings, view: View, rng: torch.Generator) -> bool:
    """Learn from the step that the server has just revealed; return whether stage one is over.

    The step Δ̄ = (θ^t − θ^{t−1}) / server lr is taken as −η times the mean gradient of the round's
    clients. This is exact under the mean with one plain SGD step of clients of equal size. Where
    the attacker knows the number of clients, it first subtracts the colluders' own part. Under
    another rule the step is one client's gradient, or a mix of clients' gradients by coordinate,
    and is matched as if it were a mean. A round is not used where Θ was active, or where the step
    was the attacker's own update.
    """
    _look(known, attack, view, rng)
    near = bool(known.distances) and known.distances[-1] < attack.threshold
    over = near or known.observed >= _most(attack, view)
    known.observed += not over  # in the round in which stage one is over, the attacker already acts
    return over


def observe_again(
    known: AttackerState, attack: Settings, view: View, rng: torch.Generator, due: int
) -> bool:
    """Learn from the last step, ``due`` rounds before a new training; return whether to act.

    The pool grows. Where :func:`separable`, the attack goes on in these rounds: the step without
    its own part is the mean of the others, whatever it sent. Under another rule its own row changes
    which rows or values are taken, so that the step would say little about the others' data. There
    it sends honest updates, as in stage one. The first round only begins what the next ones see.
    """
    if due < attack.observe_again:
        _look(known, attack, view, rng)
    known.own = view.own.clone()
    known.observed += due > 0  # in the round of the training, the attacker already acts
    return due <= 0 or separable(view)


def separable(view: View) -> bool:
    """Whether a step without the colluders' part is known to be the mean of the other clients.

    That takes the mean as the rule, and the number of clients. An unknown rule may be another one.
    Clients are taken to be of equal size: where they are not, the mean weighs them otherwise, and
    a part of what the colluders sent is left.
    """
    clients = estimates.clients(view)
    exactly = view.clients_exactly or estimates.sees_benign(view)
    return view.rule is not None and clients is not None and exactly and _averages(view, clients)


def _look(known: AttackerState, attack: Settings, view: View, rng: torch.Generator) -> None:
    """Reconstruct examples from the last step where it can be used, and keep the honest rows."""
    began = time.monotonic()
    revealed = None if attack.inversion is None else _revealed(known, view)
    if revealed is not None and attack.inversion is not None:
        try:
            _reconstruct(known, attack.inversion, view, real_data(view), revealed, rng)
        except ValueError as error:
            known.trouble(f"a step was not inverted: {error}")
    known.own = view.own.clone()
    known.seconds += time.monotonic() - began


def _most(attack: Settings, view: View) -> int:
    """Return the most rounds to observe; epochs are those of the attacker's own data."""
    if isinstance(attack.observe, int):
        return attack.observe
    examples, client = max(len(part) for part in view.data()), view.client
    if client.epochs is not None:
        return attack.observe.rounds(examples, client.epochs * examples)
    # A pass ends with the batch that is left of it.
    whole, rest = divmod(client.batches or 1, -(-examples // client.batch_size))
    each = whole * examples + min(rest * client.batch_size, examples)
    return attack.observe.rounds(examples, each)


def _reconstruct(
    known: AttackerState,
    inversion: Inversion,
    view: View,
    own: Split,
    revealed: Vector,
    rng: torch.Generator,
) -> None:
    """Add a batch to the pool; the inversion starts from real data that the attacker has."""
    if own_loss(view.objective):
        name = type(view.objective).__name__
        raise ValueError(
            f"the objective {name} has a loss of its own, and gradient matching knows the mean "
            "cross-entropy alone"
        )
    model, size, pool = view.model(), view.client.batch_size, known.pool
    write(model, view.history[-1])
    chosen = own.take(torch.randperm(len(own), generator=rng)[:size])
    found = invert(
        model,
        revealed,
        chosen.x,
        chosen.y,
        inversion,
        objective=view.objective,
        round=view.round - 1,
        generator=rng,
        box=bool((own.x >= 0).all() and (own.x <= 1).all()),
    )
    figures = (found.before, found.after, found.reached)
    if not torch.isfinite(found.x).all() or not math.isfinite(sum(figures)):
        raise ValueError("the result is not finite")
    known.matching.append([found.before, found.after])
    known.reached.append(found.reached)
    new = Split(found.x, found.y)
    if pool is not None:
        newest = pool.take(_last(known, size))
        missed = _mismatch(model, revealed, newest, view.objective, view.round - 1)
        if math.isfinite(missed):
            known.unused.append(missed)
        scale = distribution.spread(own)
        known.distances.append(distribution.growth(pool, new, rng, scale=scale))
        new = distribution.joined(pool, new)
    known.x, known.y = new.x, new.y


def _revealed(known: AttackerState, view: View) -> Vector | None:
    """Return the mean gradient of the last step without the colluders' part, or None."""
    if not known.seen(view) or known.own is None:
        return None
    before = view.history[-1]
    if not isinstance(view.server_optimizer, Plain):
        known.trouble(
            "the server's optimiser mixes the rounds, so that its "
            "step is no gradient: no step was used"
        )
        return None
    if _on_edge(view):
        known.trouble("rounds in which the server's projection may have been active were not used")
        return None
    step = (view.parameters - before) / view.server_lr
    if not step.any():
        known.trouble("rounds in which the model did not move were not used")
        return None
    if any((step - row).norm() <= _SAME * row.norm() for row in known.own):
        known.trouble("rounds whose step was the attacker's own update were not used")
        return None
    clients = estimates.clients(view)
    exactly = view.clients_exactly or estimates.sees_benign(view)
    whole = clients is not None and clients > len(known.own) and torch.isfinite(known.own).all()
    if clients is not None and whole and exactly and _averages(view, clients):
        step = (clients * step - known.own.sum(dim=0)) / (clients - len(known.own))
    config = view.client
    if config.batches != 1 or config.optimizer != Sgd(config.optimizer.lr):
        known.trouble(
            "clients do more than one plain SGD step: their updates were still taken as −η times "
            "a gradient"
        )
    return -step / (view.client.rate(view.round - 1) * _steps(view))


def _steps(view: View) -> int:
    """Return how many steps a client makes, if all hold as much as a colluder does on average."""
    if view.client.epochs is None:
        return view.client.batches or 1
    held = [len(part) for part in view.data()]
    examples = max(1, round(sum(held) / max(1, len(held))))
    return view.client.epochs * -(-examples // view.client.batch_size)


def _on_edge(view: View) -> bool:
    """Whether θ lies on the edge of Θ, or so near that the projection may have put it there."""
    theta = view.parameters
    nudge = _NEAR * theta.abs().clamp(min=1)
    tried = (theta * (1 + _NEAR), theta + nudge, theta - nudge)
    return any(not torch.equal(view.projection.project(point), point) for point in tried)


def _averages(view: View, clients: int) -> bool:
    """Whether the rule is the mean, as far as known; an unknown rule counts as the mean."""
    if view.rule is None:
        return True
    rows = some_rows(view.parameters, clients)
    try:
        return torch.allclose(view.rule(rows), rows.mean(dim=0), atol=1e-5)
    except ValueError:  # it refuses so few rows, or has no answer
        return False


def _last(known: AttackerState, size: int) -> Tensor:
    assert known.y is not None
    return torch.arange(max(0, len(known.y) - size), len(known.y))


def _mismatch(
    model: torch.nn.Module, gradient: Vector, sample: Split, objective: Objective, round: int
) -> float:
    """Return ‖∇ − g‖² / ‖g‖² of the sample's gradient, at its client's perturbed points."""
    tools, theta = gradient_engine(model), read(model)
    x = tools.perturbed(theta, sample.x, sample.y, objective, round)
    found = tools.gradients(theta, x, sample.y, 1)[0].double()
    given = gradient.double()
    return float((found - given).square().sum() / given.square().sum())
