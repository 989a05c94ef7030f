"""Stage two: train on a simulation, then act."""

import time
from collections.abc import Iterator
from dataclasses import replace
from statistics import fmean
from typing import Any

import torch

from fedrobust.attacks import estimates
from fedrobust.attacks.learned.attacker_state import AttackerState, material
from fedrobust.attacks.learned.encoding import ActionContext
from fedrobust.attacks.learned.environment import FederationEnv, Task, before
from fedrobust.attacks.learned.episodes import fresh_episodes, of_the_start
from fedrobust.attacks.learned.evolution import evolve
from fedrobust.attacks.learned.observation import Observation
from fedrobust.attacks.learned.planning import best_constant, search
from fedrobust.attacks.learned.policy import Policy, acting, played, train
from fedrobust.attacks.learned.policy_files import load_policy
from fedrobust.attacks.learned.rollout_cache import journal
from fedrobust.attacks.learned.settings import Settings
from fedrobust.attacks.learned.simulation import PLAIN, answers
from fedrobust.attacks.learned.task import fresh, harm_of, lacking, price, sampled, task_for
from fedrobust.clients.gradients import gradient_engine
from fedrobust.compute.parameters import Layout
from fedrobust.config.component import to_config
from fedrobust.data import Split
from fedrobust.errors import ConfigError
from fedrobust.federation.server_optimizer import Plain
from fedrobust.federation.threat import View
from fedrobust.typing import Updates

_GAINED = {"sees": "change", "layer": "output"}
"""Fields that encodings have gained, with the values that older policies were trained with."""


def adopt(known: AttackerState, attack: Settings, view: View) -> None:
    """Use a policy from a file, if it was trained for this network and encoding."""
    assert attack.policy is not None
    try:
        policy, about = load_policy(attack.policy)
    except ConfigError as error:  # the file was intact when the run began
        known.trouble(f"{error}: honest updates were sent")
        return
    why = _unfit(attack, view, policy, about)
    if why:
        known.trouble(f"{why}: honest updates were sent")
        return
    known.policy, known.trained, known.tried = policy.tensors(), view.round, view.round
    known.source, known.value = attack.policy, about["report"]["value"]
    if more := _beyond(about["threat"], view):
        known.trouble(
            f"{attack.policy} was trained by an attacker that knew {' and '.join(more)}, which "
            "this one does not know; it was used anyway"
        )
    if _other_rule(about.get("rule"), view):
        known.trouble(
            f"{attack.policy} was trained against another rule than the server's; it was used "
            "anyway"
        )


def _unfit(attack: Settings, view: View, policy: Policy, about: dict[str, Any]) -> str:
    """Return why a policy from a file does not fit this attack and model; empty if it does."""
    file, trained, now = attack.policy, about["attack"], to_config(attack)
    if about["parameters"] != (size := len(view.parameters)):
        return (
            f"{file} was trained for {about['parameters']:,} parameters, and this model has "
            f"{size:,}"
        )
    if isinstance(trained["encoding"], dict):
        gained = {name: value for name, value in _GAINED.items() if name in now["encoding"]}
        trained["encoding"] = gained | trained["encoding"]
    means = ["encoding", "hold"]
    trained["gamma"], now["gamma"] = about["gamma"], price(attack, view.objective)
    if "harm" in getattr(attack.encoding, "directions", ()):
        if why := lacking(attack, view):
            return why
        means += ["reward"]  # the direction in which the harm grows depends on these
        means += ["gamma", "ascent"] * (attack.reward not in PLAIN)
    for name in means:
        if trained[name] != now[name]:
            return (
                f"{file} was trained with {name} = {trained[name]}, and this attack has {now[name]}"
            )
    if policy.sizes != (wanted := _sizes(attack, view)):
        return (
            f"{file} sees {policy.sizes[0]} numbers and gives {policy.sizes[1]}; for this model it "
            f"takes {wanted[0]} and {wanted[1]}"
        )
    return ""


def _beyond(trained: dict[str, Any], view: View) -> list[str]:
    """Return what the attacker knew under the threat model ``trained``, but does not know here."""
    found = []
    if trained["rule"] and view.rule is None:
        found.append("the rule")
    if trained["clients"] is True and not (view.clients_exactly or estimates.sees_benign(view)):
        found.append("the number of clients")
    if trained["data"] > len(view.others()):
        found.append(f"the data of {trained['data']} benign clients")
    return found


def _other_rule(trained: dict[str, Any] | None, view: View) -> bool:
    """Whether the server's rule, where known, is not the one that a policy was trained on."""
    clients = estimates.clients(view)
    if not trained or view.rule is None or clients is None or clients != trained["clients"]:
        return False
    found = answers(view.rule, view.parameters, clients)
    if len(found) != len(trained["answers"]):
        return True
    return not torch.allclose(torch.tensor(found), torch.tensor(trained["answers"]), atol=1e-5)


def _sizes(attack: Settings, view: View) -> tuple[int, int]:
    layout = Layout.of(view.model())
    return attack.encoding.seen(layout), attack.encoding.actions(layout)


def learn(known: AttackerState, attack: Settings, view: View, rng: torch.Generator) -> None:
    """Find a policy, or a plan, on the simulation, and store it in ``known``."""
    if attack.inversion is not None and known.pool is None:
        known.trouble("no usable gradient was observed: the simulation has the attacker's own data")
    sample = sampled(known, attack, view, rng)
    tools = gradient_engine(view.model(), attack.precision)
    seed = int(torch.randint(2**31, (1,), generator=rng))
    began, known.tried = time.monotonic(), view.round
    try:
        task = task_for(known, attack, view, sample, tools, rng)
        host, told = view.host, [seed, *_told(attack, view, task)]
        with journal(host.folder, view.round, told) as kept:
            _found(known, attack, replace(task, journal=kept, progress=host.progress), seed)
        known.seconds += kept.earlier if kept is not None else 0.0
    except ValueError as error:
        again = ", and it acts as before" if known.acts else ""
        known.trouble(f"no policy was trained{again}: {error}")
    else:
        known.start, known.action, known.trained = view.parameters.clone(), None, view.round
        known.sample, known.source = [sample.x, sample.y], None
    known.seconds += time.monotonic() - began


def _told(attack: Settings, view: View, task: Task) -> Iterator[object]:
    """Yield everything that a simulation's answers depend on, except the network of the run."""
    federation, start = task.federation, task.start
    yield from (to_config(attack), task.scale, task.waited, start.round)
    yield from (start.parameters, *start.history)
    local = federation.local
    yield from (local.data.x, local.data.y, *local.clients, task.means.sample.x)
    yield from (to_config(view.objective), to_config(view.client), to_config(view.projection))
    if attack.horizon == "rest":
        yield task.horizon
    if not isinstance(view.server_optimizer, Plain):
        yield to_config(view.server_optimizer)
    yield from (view.server_lr, sorted(federation.malicious), repr(federation.participation))
    yield answers(federation.aggregator, view.parameters, federation.clients)


def _found(known: AttackerState, attack: Settings, task: Task, seed: int) -> None:
    training = attack.training
    if training.algorithm != "evolution" and not training.learns:
        _planned(known, attack, task, seed)
        return
    if training.algorithm == "evolution":
        trained = evolve(task, training, seed)
    else:
        start = None
        if training.start == "constant":
            steps = training.steps // 4
            # Other episodes than those in which the policy is judged at the end.
            plan = best_constant(task, steps=steps, seed=of_the_start(seed), episodes=1)
            start, known.rounds = plan.actions[0], known.rounds + plan.rounds
        trained = train(task, training, seed, start)
    known.policy, known.rounds = trained.policy.tensors(), known.rounds + trained.rounds
    known.returns = [task.told(value) for value in trained.returns]
    known.checks = [[float(step), task.told(value)] for step, value in trained.checks]
    known.kept = trained.kept
    env, actor = FederationEnv(task), acting(trained.policy)
    known.value = task.told(fmean(played(env, actor, episode) for episode in fresh_episodes(seed)))
    known.rounds += env.rounds


def _planned(known: AttackerState, attack: Settings, task: Task, seed: int) -> None:
    plan = search(task, attack.training, seed)
    known.rounds, known.value = known.rounds + plan.rounds, task.told(plan.value)
    known.returns = [task.told(value) for value in plan.course]
    known.checks = [[float(attack.training.steps), known.value]]
    if len(plan.actions) == 1:
        seen = attack.encoding.seen(task.layout)
        known.policy, known.plan = Policy.constant(plan.actions[0], seen).tensors(), None
    else:
        known.policy, known.plan = None, torch.from_numpy(plan.actions)


def act(known: AttackerState, attack: Settings, view: View, rng: torch.Generator) -> Updates:
    """Return the updates [m, d] of the policy or plan; actions are held as in the training."""
    model = view.model()
    start = view.parameters.clone() if known.start is None else known.start
    previous = before(view.parameters, known.seen(view))
    if known.action is None or known.held >= attack.hold:
        if known.plan is not None:
            step = (view.round - known.trained) // attack.hold
            known.action = known.plan[min(step, len(known.plan) - 1)]
        else:
            assert known.policy is not None
            waited, layout = known.waited(view), Layout.of(model)
            sight = Observation(layout, view.parameters, previous, start, waited)
            policy = Policy.of({name: tensor.cpu() for name, tensor in known.policy.items()})
            known.action = policy(attack.encoding.observe(sight))
        known.held = 0
    if known.sample is None:
        drawn = sampled(known, attack, view, rng)
        known.sample = [drawn.x, drawn.y]
    sample, tools = Split(*known.sample), gradient_engine(model, attack.precision)
    harm = None if lacking(attack, view) else harm_of(attack, view, tools, sample)
    pool = None
    if fresh(attack):
        has = material(known, attack.data, view)
        pool = has.data.take(has.theirs)
    means = ActionContext(tools, sample, harm, previous, pool).drawn(rng)
    rows = attack.encoding.rows(known.action.to(view.parameters), view, means)
    known.start, known.held = start, known.held + 1
    return rows
