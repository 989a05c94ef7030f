"""The two stages, as the rounds go by: observe and invert, then train, then act."""

import math
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fedrobust.aggregators import Aggregator, Mean
from fedrobust.aggregators.rule import NoAnswerError
from fedrobust.attacks import beliefs
from fedrobust.attacks.attack import Truth
from fedrobust.attacks.learned import distribution
from fedrobust.attacks.learned.calculus import Calculus, calculus
from fedrobust.attacks.learned.encoding import Means, Sight
from fedrobust.attacks.learned.environment import Puppet, Task, before
from fedrobust.attacks.learned.inversion import invert
from fedrobust.attacks.learned.planning import best_constant
from fedrobust.attacks.learned.policy import Policy, Trained, train
from fedrobust.attacks.learned.simulation import Harm, Overheard, backend_for, simulated
from fedrobust.component import to_config
from fedrobust.data import Split
from fedrobust.federation import FederationState
from fedrobust.flat import Layout, read, write
from fedrobust.objectives import WassersteinDRO
from fedrobust.participation import All, Sample
from fedrobust.threat import View
from fedrobust.typing import Images, Updates, Vector

if TYPE_CHECKING:
    from fedrobust.attacks.learned.attack import Learned


PICTURES = 8
"""How many reconstructions a page shows."""


@dataclass
class Knowledge:
    """What the attacker carries from round to round; ``saved`` and ``of`` are its plain form.

    ``x`` and ``y`` are the examples reconstructed so far, ``distances`` those between consecutive
    pools, ``matching`` the gradient distances before and after each inversion, and ``unused`` the
    pool's on a gradient that it was not fitted to, before it was.
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
    trained: int = 0
    policy: dict[str, Tensor] | None = None
    sample: list[Tensor] | None = None
    start: Tensor | None = None
    returns: list[float] = field(default_factory=list)
    checks: list[list[float]] = field(default_factory=list)
    rounds: int = 0
    seconds: float = 0.0
    troubles: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, saved: dict[str, Any]) -> "Knowledge":
        """From its plain form."""
        return cls(**saved)

    def saved(self) -> dict[str, Any]:
        """Tensors, numbers and containers of these."""
        return dict(vars(self))

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
            "simulated_rounds": self.rounds,
            "seconds": round(self.seconds, 3),
            "acts": self.policy is not None,
            "troubles": self.troubles,
        }

    @property
    def pool(self) -> Split | None:
        """The reconstructed examples."""
        return None if self.x is None or self.y is None else Split(self.x, self.y)

    def trouble(self, text: str) -> None:
        """Note what went wrong, once."""
        if text not in self.troubles:
            self.troubles.append(text)


def compared(known: Knowledge, truth: Truth | None) -> dict[str, Any] | None:
    """How near what was reconstructed came to the federation's data, beside the own data.

    ``nearest`` is the median, over the reconstructions, of the ℓ2 distance to the nearest of all
    real examples, as a share of that one's norm: 0 where real examples were found.
    """
    if truth is None or known.pool is None:
        return None
    draw = torch.Generator().manual_seed(0)
    train, own = (_images(split, 2000, draw) for split in (truth.train, truth.own))
    found = distribution.compare(
        own,
        known.pool,
        train,
        classes=truth.classes,
        scale=distribution.spread(own),
        generator=draw,
    )
    real, distance = _nearest(known.pool.x, truth.train)
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


def pictures(known: Knowledge, truth: Truth) -> dict[str, Any] | None:
    """The last reconstructions that are images, and for each the nearest of all real examples."""
    pool = known.pool
    if pool is None or pool.x.dim() != 4:
        return None
    x, y = pool.x[-PICTURES:], pool.y[-PICTURES:]
    real, _ = _nearest(x, truth.train)
    return {"learned": x.numpy(), "nearest": real.numpy(), "labels": y.numpy()}


def own_data(view: View) -> Split:
    """The colluders' examples together, as floats."""
    parts = [
        Split(part.images(torch.arange(len(part))), part.y) for part in view.data() if len(part)
    ]
    return Split(torch.cat([p.x for p in parts]), torch.cat([p.y for p in parts]))


def observe(known: Knowledge, attack: "Learned", view: View, rng: torch.Generator) -> bool:
    """Stage one: learn from the step that the server has just revealed; whether it is over.

    The step Δ̄ = (θ^t − θ^{t−1}) / server lr is taken for −η times the mean gradient of the round's
    clients, which it is under the mean with one plain SGD step; where the attacker knows how many
    clients there are, the colluders' own part is then taken out first. Under another rule it is
    some client's gradient, or a mix of theirs by coordinate, and is matched as if it were a mean. A
    round tells nothing where Θ was active.
    """
    began = time.monotonic()
    own = own_data(view)
    revealed = _revealed(known, view)
    if revealed is not None and attack.inversion is not None:
        before = view.model()
        write(before, view.history[-1])
        size = view.client.batch_size
        chosen = own.take(torch.randperm(len(own), generator=rng)[:size])
        if known.pool is not None:
            known.unused.append(_mismatch(before, revealed, known.pool.take(_last(known, size))))
        found = invert(
            before,
            revealed,
            chosen.x,
            chosen.y,
            attack.inversion,
            objective=view.objective,
            round=view.round - 1,
            generator=rng,
        )
        new = Split(found.x, found.y)
        known.matching.append([found.before, found.after])
        pool = known.pool
        if pool is not None:
            grown = distribution.joined(pool, new)
            pair = distribution.paired(pool, grown, distribution.EXACT, rng)
            scale = distribution.spread(own)
            known.distances.append(distribution.wasserstein_distance(*pair, scale=scale))
            new = grown
        known.x, known.y = new.x, new.y
    known.own, known.last = view.own.clone(), view.round
    known.observed += 1
    known.seconds += time.monotonic() - began
    near = bool(known.distances) and known.distances[-1] < attack.threshold
    return near or known.observed > attack.observe


def _revealed(known: Knowledge, view: View) -> Vector | None:
    """The mean gradient that the last step shows, without the colluders' part; None for none."""
    if not view.history or known.last != view.round - 1 or known.own is None:
        return None
    before = view.history[-1]
    on_edge = view.parameters * (1 + 1e-4)
    if not torch.equal(view.projection.project(on_edge), on_edge):
        known.trouble("rounds in which the server's projection may have been active were not used")
        return None
    step = (view.parameters - before) / view.server_lr
    if not step.any():
        known.trouble("rounds in which the model did not move were not used")
        return None
    clients = beliefs.clients(view)
    exactly = view.clients_exactly or beliefs.sees_benign(view)
    if clients is not None and exactly and clients > len(known.own) and _averages(view, clients):
        step = (clients * step - known.own.sum(dim=0)) / (clients - len(known.own))
    steps = view.client.batches or 1
    return -step / (view.client.optimizer.lr * steps)


def _averages(view: View, clients: int) -> bool:
    """Whether the rule is the mean, as far as the attacker knows: unknown, it is taken for it."""
    if view.rule is None:
        return True
    rows = _some_rows(view, clients)
    try:
        return torch.allclose(view.rule(rows), rows.mean(dim=0), atol=1e-5)
    except ValueError:  # it takes no so few rows, or has no answer
        return False


def _some_rows(view: View, clients: int) -> Updates:
    draw = torch.Generator().manual_seed(0)
    return torch.randn(clients, len(view.parameters), generator=draw).to(view.parameters)


def _rule(view: View, clients: int) -> Aggregator:
    """The server's rule where it is known, else the mean.

    Raises: ``ValueError`` where it refuses as many rows as the attacker believes in.
    """
    if view.rule is None:
        return Mean()
    try:
        view.rule(_some_rows(view, clients))
    except NoAnswerError:
        pass
    except ValueError as error:
        raise ValueError(
            f"the rule refuses the {clients} rows that the attacker believes in ({error}): grant "
            "threat.clients: true, or a larger number"
        ) from error
    return Overheard(view.rule)


def _last(known: Knowledge, size: int) -> Tensor:
    assert known.y is not None
    return torch.arange(max(0, len(known.y) - size), len(known.y))


def _mismatch(model: torch.nn.Module, gradient: Vector, sample: Split) -> float:
    found = calculus(model).gradients(read(model), sample.x, sample.y, 1)[0].double()
    given = gradient.double()
    return float((found - given).square().sum() / given.square().sum())


def adopt(
    known: Knowledge, attack: "Learned", view: View, policy: Policy, about: dict[str, Any]
) -> None:
    """Use a policy that was trained elsewhere, if it was trained for this network and encoding."""
    size, encoding = len(view.parameters), to_config(attack.encoding)
    there = about["attack"]["encoding"]
    if about["parameters"] != size:
        known.trouble(
            f"{attack.policy} was trained for {about['parameters']:,} parameters, and this model "
            f"has {size:,}: honest updates were sent"
        )
    elif there != encoding:
        known.trouble(
            f"{attack.policy} was trained with the encoding {there}, and this attack has "
            f"{encoding}: honest updates were sent"
        )
    else:
        known.policy = policy.tensors()


def learned_data(known: Knowledge, attack: "Learned", view: View) -> tuple[Split, Tensor, Tensor]:
    """All that the attacker has, own examples first, and which of it benign clients and it hold."""
    own, pool = own_data(view), known.pool
    mine = torch.arange(len(own))
    if pool is None:
        return own, mine, mine
    both = torch.arange(len(own) + len(pool))
    theirs = {"own": mine, "learned": both[len(own) :], "both": both}[attack.data]
    return distribution.joined(own, pool), theirs, mine


def task_for(
    known: Knowledge, attack: "Learned", view: View, sample: Split, tools: Calculus
) -> Task:
    """Stage two's task: the federation as the attacker imagines it, from where it now stands."""
    data, theirs, mine = learned_data(known, attack, view)
    clients = beliefs.clients(view)
    if clients is None:
        raise ValueError("the attacker does not know how many clients there are")
    absent = known.met < 0.95 * view.round
    total = round(clients * view.round / known.met) if absent else clients
    means = Means(tools, sample, before(view.parameters, view.history))
    federation = simulated(
        view,
        data,
        Puppet(attack.encoding, means),
        parts=[theirs] * (total - view.rows) + [mine] * view.rows,
        participation=Sample(clients) if absent else All(),
        rule=_rule(view, clients),
    )
    harm = harm_of(attack, view, tools, sample)
    return Task(
        federation=federation,
        start=FederationState(
            view.parameters.clone(), round=view.round - 1, history=view.history[-1:]
        ),
        encoding=attack.encoding,
        means=means,
        harm=harm,
        horizon=attack.horizon,
        hold=attack.hold,
        scale=1 / max(abs(harm(view.parameters)), 1e-3),
        backend=backend_for(federation.local),
    )


def _sampled(known: Knowledge, attack: "Learned", view: View, rng: torch.Generator) -> Split:
    """The fixed examples on which harm is measured and actions are worked out."""
    data, theirs, _ = learned_data(known, attack, view)
    order = theirs[torch.randperm(len(theirs), generator=rng)]
    found = data.take(order[: attack.samples])
    known.sample = [found.x, found.y]
    return found


def harm_of(attack: "Learned", view: View, tools: Calculus, sample: Split) -> Harm:
    """The harm that the reward counts. Raises: ``ValueError`` where there is no γ for it."""
    gamma, objective = attack.gamma, view.objective
    if gamma is None:
        gamma = objective.price if isinstance(objective, WassersteinDRO) else math.inf
    if attack.reward != "loss" and math.isinf(gamma):
        raise ValueError(
            f"the reward {attack.reward} needs a finite gamma, which this objective has not: "
            "set attack.gamma, or attack.reward: loss"
        )
    return Harm(attack.reward, tools, sample, gamma, attack.ascent)


def learn(known: Knowledge, attack: "Learned", view: View, rng: torch.Generator) -> Trained | None:
    """Stage two: train a policy on the simulation, and keep it in ``known``."""
    if attack.inversion is not None and known.pool is None:
        known.trouble("no usable gradient was observed: the simulation has the attacker's own data")
    sample = _sampled(known, attack, view, rng)
    tools = calculus(view.model())
    seed = int(torch.randint(2**31, (1,), generator=rng))
    began = time.monotonic()
    try:
        task = task_for(known, attack, view, sample, tools)
    except ValueError as error:
        known.trouble(f"no policy was trained: {error}")
        return None
    if attack.training.algorithm == "constant":
        trained = best_constant(task, seed=seed).trained(task)
    else:
        trained = train(task, attack.training, seed)
    known.policy, known.trained = trained.policy.tensors(), view.round
    known.start = view.parameters.clone()
    known.returns, known.rounds = list(trained.returns), known.rounds + trained.rounds
    known.checks = [[float(step), value] for step, value in trained.checks]
    known.seconds += time.monotonic() - began
    return trained


def act(known: Knowledge, attack: "Learned", view: View, rng: torch.Generator) -> Updates:
    """The updates [m, d] that the policy sends."""
    assert known.policy is not None
    model = view.model()
    layout, policy = Layout.of(model), Policy.of(known.policy)
    start = view.parameters.clone() if known.start is None else known.start
    previous = before(view.parameters, view.history)
    waited = max(0, view.round - known.last - 1) if known.last else 0
    sight = Sight(layout, view.parameters, previous, start, waited)
    action = policy(attack.encoding.observe(sight)).to(view.parameters)
    if known.sample is None:
        _sampled(known, attack, view, rng)
    assert known.sample is not None
    means = Means(calculus(model), Split(*known.sample), previous)
    rows = attack.encoding.rows(action, view, means)
    known.start, known.last = start, view.round
    return rows
