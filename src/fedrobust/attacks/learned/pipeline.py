"""Stage two, as the rounds go by: train on a simulation, then act."""

import math
import time
from statistics import fmean
from typing import TYPE_CHECKING, Any

import torch

from fedrobust.aggregators import Aggregator, Mean
from fedrobust.aggregators.rule import NoAnswerError
from fedrobust.attacks import beliefs
from fedrobust.attacks.learned.encoding import Means, Sight, extremes
from fedrobust.attacks.learned.environment import FederationEnv, Puppet, Task, before
from fedrobust.attacks.learned.knowledge import Knowledge, material
from fedrobust.attacks.learned.planning import best_constant, fresh_episodes, search
from fedrobust.attacks.learned.policy import Policy, acting, played, train
from fedrobust.attacks.learned.simulation import (
    Harm,
    Overheard,
    answers,
    simulated,
    some_rows,
)
from fedrobust.backends import OneStep, takes_one_step
from fedrobust.calculus import Calculus, calculus
from fedrobust.component import to_config
from fedrobust.data import Split
from fedrobust.federation import LOCAL, FederationState
from fedrobust.flat import Layout
from fedrobust.objectives import WassersteinDRO
from fedrobust.participation import All, Sample
from fedrobust.threat import View
from fedrobust.typing import Updates

if TYPE_CHECKING:
    from fedrobust.attacks.learned.attack import Learned


def _rule(view: View, clients: int) -> Aggregator:
    """The server's rule where it is known, else the mean.

    Raises: ``ValueError`` where it refuses as many rows as the attacker believes in.
    """
    if view.rule is None:
        return Mean()
    try:
        view.rule(some_rows(view.parameters, clients))
    except NoAnswerError:
        pass
    except ValueError as error:
        raise ValueError(
            f"the rule refuses the {clients} rows that the attacker believes in ({error}): grant "
            "threat.clients: true, or a larger number"
        ) from error
    return Overheard(view.rule)


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
    elif about["attack"]["hold"] != attack.hold:
        known.trouble(
            f"{attack.policy} was trained with hold = {about['attack']['hold']}, and this attack "
            f"has {attack.hold}: honest updates were sent"
        )
    elif "harm" in getattr(attack.encoding, "directions", ()) and (
        lacking := _lacking(attack, view)
    ):
        known.trouble(f"{lacking}: honest updates were sent")
    elif policy.sizes != (wanted := _sizes(attack, view)):
        known.trouble(
            f"{attack.policy} sees {policy.sizes[0]} numbers and gives {policy.sizes[1]}; for this "
            f"model it takes {wanted[0]} and {wanted[1]}: honest updates were sent"
        )
    else:
        known.policy, known.trained = policy.tensors(), view.round
        if _other_rule(about.get("rule"), view):
            known.trouble(
                f"{attack.policy} was trained against another rule than the server's; it was used "
                "all the same"
            )


def _other_rule(trained: dict[str, Any] | None, view: View) -> bool:
    """Whether the server's rule, where it is known, is not the one that a policy was trained on."""
    clients = beliefs.clients(view)
    if not trained or view.rule is None or clients is None or clients != trained["clients"]:
        return False
    found = answers(view.rule, view.parameters, clients)
    if len(found) != len(trained["answers"]):
        return True
    return not torch.allclose(torch.tensor(found), torch.tensor(trained["answers"]), atol=1e-5)


def _sizes(attack: "Learned", view: View) -> tuple[int, int]:
    layout = Layout.of(view.model())
    return attack.encoding.seen(layout), attack.encoding.actions(layout)


def task_for(
    known: Knowledge,
    attack: "Learned",
    view: View,
    sample: Split,
    tools: Calculus,
    rng: torch.Generator,
) -> Task:
    """Stage two's task: the federation as the attacker imagines it, from where it now stands.

    Every simulated client holds as many examples as a colluder does: benign ones a draw of what was
    learned, malicious ones their own. Clients whose data are known hold these.
    """
    has = material(known, attack.data, view)
    clients = beliefs.clients(view)
    if clients is None:
        raise ValueError("the attacker does not know how many clients there are")
    total = population(clients, view.rows, known.met / view.round)
    size = max(1, len(has.mine) // view.rows)
    known_parts = has.known[: total - view.rows]
    drawn = [
        has.theirs[torch.randint(len(has.theirs), (size,), generator=rng)]
        for _ in range(total - view.rows - len(known_parts))
    ]
    if getattr(attack.encoding, "scale", "norm") == "zeta":
        low, high = extremes(view, tools, sample)
        if not high > low:
            raise ValueError(
                f"no gradient of a learned example differs from {float(low):g} in any coordinate, "
                "so that all actions mean the same: give the encoding the scale norm"
            )
    harm = harm_of(attack, view, tools, sample)
    previous = before(view.parameters, view.history)
    pool = has.data.take(has.theirs) if _fresh(attack) else None
    means = Means(tools, sample, harm, previous, pool)
    federation = simulated(
        view,
        has.data,
        Puppet(attack.encoding, means),
        parts=[*known_parts, *drawn, *has.mine.tensor_split(view.rows)],
        participation=Sample(clients) if total > clients else All(),
        rule=_rule(view, clients),
        low_precision=attack.precision == "bfloat16",
    )
    begin = abs(harm(view.parameters))
    if not math.isfinite(begin):
        raise ValueError("the model has already blown up")
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
        scale=1 / max(begin, 1e-3),
        backend=OneStep(tools, replacement=True) if takes_one_step(federation.local) else LOCAL,
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


def _sampled(known: Knowledge, attack: "Learned", view: View, rng: torch.Generator) -> Split:
    """The fixed examples on which harm is measured and actions are worked out."""
    has = material(known, attack.data, view)
    order = has.theirs[torch.randperm(len(has.theirs), generator=rng)]
    found = has.data.take(order[: attack.samples])
    known.sample = [found.x, found.y]
    return found


def _fresh(attack: "Learned") -> bool:
    """Whether an action is worked out on examples of its own, and not on the reward's."""
    return getattr(attack.encoding, "draws", "fixed") == "fresh"


def harm_of(attack: "Learned", view: View, tools: Calculus, sample: Split) -> Harm:
    """The harm that the reward counts. Raises: ``ValueError`` where there is no γ for it."""
    if lacking := _lacking(attack, view):
        raise ValueError(lacking)
    return Harm(attack.reward, tools, sample, _price(attack, view), attack.ascent)


def _lacking(attack: "Learned", view: View) -> str:
    """Why there is no γ for the harm; empty where there is one, or none is needed."""
    if attack.reward == "loss" or math.isfinite(_price(attack, view)):
        return ""
    return (
        f"the reward {attack.reward} needs a finite gamma, which this objective has not: "
        "set attack.gamma, or attack.reward: loss"
    )


def _price(attack: "Learned", view: View) -> float:
    objective = view.objective
    if attack.gamma is not None:
        return attack.gamma
    return objective.price if isinstance(objective, WassersteinDRO) else math.inf


def learn(known: Knowledge, attack: "Learned", view: View, rng: torch.Generator) -> None:
    """Stage two: find a policy, or a plan, on the simulation, and keep it in ``known``."""
    if attack.inversion is not None and known.pool is None:
        known.trouble("no usable gradient was observed: the simulation has the attacker's own data")
    sample = _sampled(known, attack, view, rng)
    tools = calculus(view.model(), attack.precision)
    seed = int(torch.randint(2**31, (1,), generator=rng))
    began = time.monotonic()
    try:
        task = task_for(known, attack, view, sample, tools, rng)
        if attack.training.learns:
            start = None
            if attack.training.start == "constant":
                steps = attack.training.steps // 4
                # Far from the episodes on which the policy is judged in the end.
                plan = best_constant(task, steps=steps, seed=seed + 5000, episodes=1)
                start, known.rounds = plan.actions[0], known.rounds + plan.rounds
            trained = train(task, attack.training, seed, start)
            known.policy, known.rounds = trained.policy.tensors(), known.rounds + trained.rounds
            known.returns = list(trained.returns)
            known.checks = [[float(step), value] for step, value in trained.checks]
            env, actor = FederationEnv(task), acting(trained.policy)
            known.value = fmean(played(env, actor, episode) for episode in fresh_episodes(seed))
            known.rounds += env.rounds
        else:
            _planned(known, attack, task, seed)
    except ValueError as error:
        known.trouble(f"no policy was trained: {error}")
        return
    known.start, known.action, known.trained = view.parameters.clone(), None, view.round
    known.seconds += time.monotonic() - began


def _planned(known: Knowledge, attack: "Learned", task: Task, seed: int) -> None:
    plan = search(task, attack.training, seed)
    known.rounds, known.value = known.rounds + plan.rounds, plan.value
    known.returns, known.checks = list(plan.course), [[float(attack.training.steps), plan.value]]
    if len(plan.actions) == 1:
        seen = attack.encoding.seen(task.layout)
        known.policy = Policy.constant(plan.actions[0], seen).tensors()
    else:
        known.plan, known.taken = torch.from_numpy(plan.actions), 0


def act(known: Knowledge, attack: "Learned", view: View, rng: torch.Generator) -> Updates:
    """The updates [m, d] that the policy or plan sends; an action is held as in its training."""
    model = view.model()
    start = view.parameters.clone() if known.start is None else known.start
    previous = before(view.parameters, view.history)
    if known.action is None or known.held >= attack.hold:
        if known.plan is not None:
            known.action = known.plan[min(known.taken, len(known.plan) - 1)]
            known.taken += 1
        else:
            assert known.policy is not None
            waited = max(0, view.round - known.last - 1) if known.last else 0
            sight = Sight(Layout.of(model), view.parameters, previous, start, waited)
            policy = Policy.of({name: tensor.cpu() for name, tensor in known.policy.items()})
            known.action = policy(attack.encoding.observe(sight))
        known.held = 0
    if known.sample is None:
        _sampled(known, attack, view, rng)
    assert known.sample is not None
    sample, tools = Split(*known.sample), calculus(model, attack.precision)
    harm = None if _lacking(attack, view) else harm_of(attack, view, tools, sample)
    pool = None
    if _fresh(attack):
        has = material(known, attack.data, view)
        pool = has.data.take(has.theirs)
    means = Means(tools, sample, harm, previous, pool).drawn(rng)
    rows = attack.encoding.rows(known.action.to(view.parameters), view, means)
    known.start, known.last, known.held = start, view.round, known.held + 1
    return rows
