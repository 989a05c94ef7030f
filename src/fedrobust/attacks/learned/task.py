"""The attacker's task: its simulation of the federation, and the harm to maximise there."""

import math

import torch

from fedrobust.aggregators import Aggregator, Mean
from fedrobust.aggregators.aggregator import NoAnswerError
from fedrobust.attacks import estimates
from fedrobust.attacks.learned.attacker_state import AttackerState, Material, material
from fedrobust.attacks.learned.encoding import ActionContext, extremes
from fedrobust.attacks.learned.environment import PolicyAttack, Task, before
from fedrobust.attacks.learned.settings import Settings
from fedrobust.attacks.learned.simulation import PLAIN, CallableRule, Harm, simulated, some_rows
from fedrobust.clients.gradients import GradientEngine
from fedrobust.config.kind import name_of
from fedrobust.data import Split
from fedrobust.federation.backends import LOCAL
from fedrobust.federation.one_step import OneStep, takes_one_step
from fedrobust.federation.participation import All, Sample
from fedrobust.federation.server_optimizer import Plain, Slots
from fedrobust.federation.state import FederationState
from fedrobust.federation.threat import View
from fedrobust.objectives import Objective, WassersteinDRO
from fedrobust.typing import Indices


def task_for(
    known: AttackerState,
    attack: Settings,
    view: View,
    sample: Split,
    tools: GradientEngine,
    rng: torch.Generator,
) -> Task:
    """Return stage two's task: the simulated federation, from the real one's current state.

    The number of attackers is the largest that was ever seen together, and that of all clients
    follows from how many take part on average. The malicious clients of
    this round hold their own examples; further malicious clients hold a draw of these. Benign
    clients hold a draw of what was learned, as many examples as a colluder holds on average.
    Clients whose data are known hold these data.
    """
    has = material(known, attack.data, view)
    clients, total, malicious = _imagined(known, view)
    parts = _parts(has, view.rows, total - malicious, malicious, rng)
    _require_scale(attack, view, sample, tools)
    harm = harm_of(attack, view, tools, sample)
    history = known.seen(view)[-1:]
    pool = has.data.take(has.theirs) if fresh(attack) else None
    means = ActionContext(tools, sample, harm, before(view.parameters, history), pool)
    federation = simulated(
        view,
        has.data,
        PolicyAttack(attack.encoding, means),
        parts=parts,
        malicious=malicious,
        participation=Sample(clients) if total > clients else All(),
        rule=_rule(view, clients),
        precision=attack.precision,
    )
    begin = abs(harm(view.parameters))
    if not math.isfinite(begin) or not view.parameters.isfinite().all():
        raise ValueError("the model has already blown up")
    unit = _unit(attack, begin, view.classes)
    return Task(
        federation=federation,
        start=FederationState(
            view.parameters.clone(),
            round=view.round - 1,
            history=history,
            server=_slots(known, view),
        ),
        encoding=attack.encoding,
        means=means,
        harm=harm,
        horizon=_horizon(attack, view),
        ends=attack.horizon == "rest",
        hold=attack.hold,
        scale=unit if attack.reward_unit == "start" else 1.0,
        unit=unit,
        waited=known.waited(view),
        backend=OneStep(tools, replacement=True) if takes_one_step(federation.local) else LOCAL,
    )


def _horizon(attack: Settings, view: View) -> int:
    """Return the rounds of an episode. Raises: ``ValueError`` where nobody knows how many."""
    if attack.horizon != "rest":
        return attack.horizon
    if view.rounds is None:
        raise ValueError(
            "horizon: rest needs the number of rounds, which the server has not announced: set "
            "horizon to a number"
        )
    return max(1, view.rounds - view.round + 1)


def _unit(attack: Settings, begin: float, classes: int) -> float:
    """Return what a harm is multiplied by: one over the harm at the start, or 1 for the error.

    Errors are shares already. A model without mistakes would make one of them worth the limit. A
    loss counts as a tenth of ln C, that of a guess, or more: were it smaller, models that are
    destroyed more or less would all be worth the limit.
    """
    if attack.reward == "error":
        return 1.0
    least = 0.0 if attack.reward == "robustness" else 0.1 * math.log(classes)
    return 1 / max(begin, least, 1e-3)


def _imagined(known: AttackerState, view: View) -> tuple[int, int, int]:
    """How many clients take part in a round, how many there are, and how many are malicious.

    Raises: ``ValueError`` where the attacker does not know, or where there is no benign client.
    """
    clients = estimates.clients(view)
    if clients is None:
        raise ValueError("the attacker does not know how many clients there are")
    malicious = max(known.most, view.rows)
    # Each round has at least one row; earlier versions did not count them.
    rows = known.rows if known.rows >= known.met else malicious * known.met
    total = population(clients, malicious, max(rows, 1) / view.round)
    if total <= malicious:
        raise ValueError(
            f"{malicious} malicious of {total} clients leave nobody to simulate: set "
            "threat.clients to the number of clients, or a larger lower bound"
        )
    return clients, total, malicious


def _slots(known: AttackerState, view: View) -> Slots:
    """Return the state of the server's optimiser; where it is not known, that before a step."""
    if view.server_slots is None and not isinstance(view.server_optimizer, Plain):
        known.trouble(
            f"the state of the server's {name_of(type(view.server_optimizer))} is not known: the "
            "simulated server begins without one (threat.rule grants it)"
        )
    return view.server_slots or ()


def _parts(
    has: Material, rows: int, benign: int, malicious: int, rng: torch.Generator
) -> list[Indices]:
    """The examples of each simulated client, the ``benign`` ones first."""
    mine = torch.cat(has.mine)
    size = max(1, len(mine) // rows)

    def draw(examples: Indices, clients: int) -> list[Indices]:
        picks = [torch.randint(len(examples), (size,), generator=rng) for _ in range(clients)]
        return [examples[pick] for pick in picks]

    others = list(has.known[:benign])
    others += draw(has.theirs, benign - len(others))
    present = [part for part in has.mine if len(part)]
    return [*others, *present, *draw(mine, malicious - len(present))]


def _require_scale(attack: Settings, view: View, sample: Split, tools: GradientEngine) -> None:
    """Refuse the scale ``zeta`` where all actions would mean the same. Raises: ``ValueError``."""
    if getattr(attack.encoding, "scale", "norm") == "zeta":
        low, high = extremes(view, tools, sample)
        if not high > low:
            raise ValueError(
                f"no gradient of a learned example differs from {float(low):g} in any coordinate, "
                "so that all actions mean the same: give the encoding the scale norm"
            )


def population(clients: int, malicious: int, mean: float) -> int:
    """Return the number of clients N with c · m / N = ``mean``, that of malicious clients a round.

    c ``clients`` take part in each round, and m of all are ``malicious``. So the simulation has the
    share of malicious rows that was seen, whatever m is.
    """
    return max(clients, round(clients * malicious / mean))


def _rule(view: View, clients: int) -> Aggregator:
    """Return the server's rule where it is known, else the mean.

    Raises: ``ValueError`` where it refuses the number of rows that the attacker expects.
    """
    if view.rule is None:
        return CallableRule(Mean())
    rows = some_rows(view.parameters, clients)
    try:
        ordered = not torch.allclose(view.rule(rows), view.rule(rows.flip(0)), atol=1e-5)
    except NoAnswerError:
        ordered = False
    except ValueError as error:
        raise ValueError(
            f"the rule refuses the {clients} rows that the attacker expects ({error}): grant "
            "threat.clients: true, or a larger number"
        ) from error
    return CallableRule(view.rule, ordered)


def sampled(known: AttackerState, attack: Settings, view: View, rng: torch.Generator) -> Split:
    """Return the fixed examples of the reward: at most half where actions use fresh examples."""
    has = material(known, attack.data, view)
    order = has.theirs[torch.randperm(len(has.theirs), generator=rng)]
    most = max(1, len(order) // 2) if fresh(attack) else len(order)
    return has.data.take(order[: min(attack.samples, most)])


def fresh(attack: Settings) -> bool:
    """Whether an action is computed on fresh examples, and not on those of the reward."""
    return getattr(attack.encoding, "draws", "fixed") == "fresh"


def harm_of(attack: Settings, view: View, tools: GradientEngine, sample: Split) -> Harm:
    """Return the harm that the reward counts. Raises: ``ValueError`` where it has no γ."""
    if why := lacking(attack, view):
        raise ValueError(why)
    return Harm(attack.reward, tools, sample, price(attack, view.objective), attack.ascent)


def lacking(attack: Settings, view: View) -> str:
    """Return why there is no γ for the harm; empty where there is one, or none is needed."""
    if attack.reward in PLAIN or math.isfinite(price(attack, view.objective)):
        return ""
    return (
        f"the reward {attack.reward} needs a finite gamma, which this objective does not have: "
        "set attack.gamma, or attack.reward: loss or error"
    )


def price(attack: Settings, objective: Objective) -> float:
    """Return γ of the harm: the attack's own, else the objective's; infinite if there is none."""
    if attack.gamma is not None:
        return attack.gamma
    return objective.price if isinstance(objective, WassersteinDRO) else math.inf
