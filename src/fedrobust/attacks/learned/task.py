"""The attacker's task: the federation as it imagines it, and the harm that it wants to do there."""

import math

import torch

from fedrobust.aggregators import Aggregator, Mean
from fedrobust.aggregators.aggregator import NoAnswerError
from fedrobust.attacks import estimates
from fedrobust.attacks.learned.attacker_state import AttackerState, Material, material
from fedrobust.attacks.learned.encoding import ActionContext, extremes
from fedrobust.attacks.learned.environment import PolicyAttack, Task, before
from fedrobust.attacks.learned.settings import Settings
from fedrobust.attacks.learned.simulation import CallableRule, Harm, simulated, some_rows
from fedrobust.clients.gradients import GradientEngine
from fedrobust.data import Split
from fedrobust.federation.backends import LOCAL
from fedrobust.federation.one_step import OneStep, takes_one_step
from fedrobust.federation.participation import All, Sample
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
    """Stage two's task: the federation as the attacker imagines it, from where it now stands.

    As many clients attack as were ever seen together. Those that are there now hold their own
    examples, others of them a draw of these, and benign ones a draw of what was learned, as many as
    a colluder holds on average. Clients whose data are known hold these.
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
        low_precision=attack.precision == "bfloat16",
    )
    begin = abs(harm(view.parameters))
    if not math.isfinite(begin):
        raise ValueError("the model has already blown up")
    return Task(
        federation=federation,
        start=FederationState(view.parameters.clone(), round=view.round - 1, history=history),
        encoding=attack.encoding,
        means=means,
        harm=harm,
        horizon=attack.horizon,
        hold=attack.hold,
        scale=1 / max(begin, 1e-3),
        waited=known.waited(view),
        backend=OneStep(tools, replacement=True) if takes_one_step(federation.local) else LOCAL,
    )


def _imagined(known: AttackerState, view: View) -> tuple[int, int, int]:
    """How many clients take part in a round, how many there are, and how many are malicious.

    Raises: ``ValueError`` where the attacker does not know, or where there is no benign client.
    """
    clients = estimates.clients(view)
    if clients is None:
        raise ValueError("the attacker does not know how many clients there are")
    malicious = max(known.most, view.rows)
    total = population(clients, malicious, known.met / view.round)
    if total <= malicious:
        raise ValueError(
            f"{malicious} malicious of {total} clients leave nobody to simulate: set "
            "threat.clients to the number of clients, or a larger lower bound"
        )
    return clients, total, malicious


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


def population(clients: int, malicious: int, share: float) -> int:
    """How many clients there are, if ``clients`` a round hold a malicious one in this ``share``.

    The least N with 1 − C(N − m, c) / C(N, c) ≤ share; c itself from a share of 0.95 on.
    """
    if share >= 0.95:
        return clients
    total = clients
    while 1 - math.comb(total - malicious, clients) / math.comb(total, clients) > share:
        total += 1
    return total


def _rule(view: View, clients: int) -> Aggregator:
    """The server's rule where it is known, else the mean.

    Raises: ``ValueError`` where it refuses as many rows as the attacker believes in.
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
            f"the rule refuses the {clients} rows that the attacker believes in ({error}): grant "
            "threat.clients: true, or a larger number"
        ) from error
    return CallableRule(view.rule, ordered)


def sampled(known: AttackerState, attack: Settings, view: View, rng: torch.Generator) -> Split:
    """The fixed examples on which harm is measured: at most half of what fresh ones come from."""
    has = material(known, attack.data, view)
    order = has.theirs[torch.randperm(len(has.theirs), generator=rng)]
    most = max(1, len(order) // 2) if fresh(attack) else len(order)
    return has.data.take(order[: min(attack.samples, most)])


def fresh(attack: Settings) -> bool:
    """Whether an action is worked out on examples of its own, and not on the reward's."""
    return getattr(attack.encoding, "draws", "fixed") == "fresh"


def harm_of(attack: Settings, view: View, tools: GradientEngine, sample: Split) -> Harm:
    """The harm that the reward counts. Raises: ``ValueError`` where there is no γ for it."""
    if why := lacking(attack, view):
        raise ValueError(why)
    return Harm(attack.reward, tools, sample, price(attack, view.objective), attack.ascent)


def lacking(attack: Settings, view: View) -> str:
    """Why there is no γ for the harm; empty where there is one, or none is needed."""
    if attack.reward == "loss" or math.isfinite(price(attack, view.objective)):
        return ""
    return (
        f"the reward {attack.reward} needs a finite gamma, which this objective has not: "
        "set attack.gamma, or attack.reward: loss"
    )


def price(attack: Settings, objective: Objective) -> float:
    """γ of the harm: the attack's own, else the objective's; infinite where there is none."""
    if attack.gamma is not None:
        return attack.gamma
    return objective.price if isinstance(objective, WassersteinDRO) else math.inf
