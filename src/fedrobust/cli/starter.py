"""The text of a config to begin with: every key that matters, with a comment."""

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from fedrobust.config.component import from_config
from fedrobust.config.docstring import example
from fedrobust.config.kind import name_of
from fedrobust.config.text import quoted, suggestion
from fedrobust.config.yaml import read_yaml
from fedrobust.errors import ConfigError
from fedrobust.experiment import Experiment


@dataclass(frozen=True)
class Setting:
    """What suits a data set. ``trained`` and ``judged`` are PGD's (steps, step size)."""

    model: str
    eps: float
    trained: tuple[int, float]
    judged: tuple[int, float]
    clients: int
    rounds: int
    batch: int
    rate: float
    validation: int
    every: int


SETTINGS = {
    "digits": Setting(
        "{name: digits-cnn}", 0.15, (10, 0.03), (10, 0.03), 11, 100, 32, 3e-3, 300, 10
    ),
    "mnist": Setting(
        "{name: mnist-cnn-small, init: pytorch}",
        *(0.3, (4, 0.12), (40, 0.01), 51, 500, 64, 5e-3, 5000, 25),
    ),
    "fashion-mnist": Setting(
        "{name: mnist-cnn-small, init: pytorch}",
        *(0.15, (4, 0.06), (15, 0.01), 51, 500, 64, 5e-3, 5000, 25),
    ),
    "cifar10": Setting(
        "{name: cifar-cnn, width: 16}",
        *(0.0314, (4, 0.0118), (10, 0.0078), 51, 1000, 64, 1e-3, 1000, 50),
    ),
}
"""Radii and the judging PGD are the literature's; training takes fewer and longer steps."""


@dataclass(frozen=True)
class Choices:
    """What a user chooses. None takes what suits the rest. ``path`` is that of the config."""

    name: str
    path: str = "experiment.yaml"
    data: str = "digits"
    clients: int | None = None
    malicious: int | None = None
    rounds: int | None = None
    aggregator: str | None = None
    attack: str | None = None
    objective: str = "adversarial"


RULES = ("bulyan", "krum", "median")
"""The rules to begin with: the first that the number of clients allows."""
ATTACKS = ("a-little-is-enough", "sign-flip")
"""The attacks to begin with: the first that the number of malicious clients allows."""


def starter(choices: Choices) -> tuple[Choices, str]:
    """Return all choices, and the YAML text of an experiment with them, which was read back once.

    What is left out is chosen so that it fits the rest: the first of ``RULES``, the first of
    ``ATTACKS``, and a fifth of the clients as malicious, or the nearest number that the rule and
    the attack take. ``malicious`` is 0 for the attack "none", which suits one or two clients.

    Raises: ``ConfigError`` for a name that is not known, and for choices that do not fit.
    """
    setting = _chosen("data set", choices.data, SETTINGS)
    clients = choices.clients or setting.clients
    chosen = replace(choices, clients=clients, rounds=choices.rounds or setting.rounds)
    rules = RULES if choices.aggregator is None else (choices.aggregator,)
    attacks = ATTACKS if choices.attack is None else (choices.attack,)
    given = choices.malicious
    if given and 2 * given >= clients and choices.aggregator is None:
        raise ConfigError(
            f"{given} of {clients} clients are malicious: no rule tolerates half of the clients; "
            "to play it all the same, name a rule: --aggregator median"
        )
    if choices.attack is None and (given == 0 or (given is None and clients < 3)):
        attacks = ("none",)
    numbers: Sequence[int] = (given or 0,)
    if given is None and attacks != ("none",):
        fifth = max(1, clients // 5)
        numbers = (*range(fifth, 0, -1), *range(fifth + 1, (clients + 1) // 2))
    first: ConfigError | None = None
    for rule, malicious, attack in product(rules, numbers, attacks):
        each = replace(chosen, aggregator=rule, attack=attack, malicious=malicious)
        try:
            return each, _written(each, setting)
        except ConfigError as error:
            # Another choice may do. The last rule and the last attack ask for the least, if they
            # are not those that were named: no other error is of what was said.
            if (rule, attack) == (rules[-1], attacks[-1]):
                first = first or error
    assert first is not None
    raise first


def _written(choices: Choices, setting: Setting) -> str:
    from fedrobust import aggregators, attacks, objectives

    clients, malicious, rounds = choices.clients or 0, choices.malicious or 0, choices.rounds or 0
    rule = _chosen("aggregator", choices.aggregator or "", _named(aggregators.AGGREGATORS))
    _chosen("objective", choices.objective, _named(objectives.OBJECTIVES))
    attack = _chosen("attack", choices.attack or "", {"none": None, **_named(attacks.ATTACKS)})
    if malicious and attack is None:
        raise ConfigError(f"malicious: {malicious} clients need an attack: --attack NAME")
    loss, model = f"{{name: {choices.objective}}}", setting.model
    if choices.objective == "adversarial":
        loss = f"{{name: adversarial, ratio: 0.5, attack: {_pgd(setting, setting.trained)}}}"
    elif choices.objective == "wasserstein-dro":
        loss = "{name: wasserstein-dro, gamma: 2.0}"
        if "mnist" in choices.data:
            model = "{name: elu-cnn, width: 16}"  # the paper's, which is smooth
    optimizer, kept = f"{{name: adam, lr: {setting.rate}}}", "true"
    if choices.attack == "learned":  # it simulates plain steps
        optimizer, kept = "{name: sgd, lr: 0.1}", "false"
    audit = "{budget: quick, samples: 100, test_samples: 300, every: 1000}"
    text = f"""\
# Written by `fedrobust init`. Play it: fedrobust run {shlex.quote(choices.path)}
# The choices of a key, such as aggregator: fedrobust list aggregator
name: "{choices.name}"  # the run goes to runs/{choices.name}
seed: 0  # every random draw of the run follows from it
rounds: {rounds}
data: {{name: {choices.data}, validation: {setting.validation}}}  # held out; they choose the model
partition: {{name: iid, clients: {clients}}}  # or dirichlet, shards: fedrobust list partition
model: {model}
# What a client minimises: fedrobust list objective
objective: {loss}
# A client's work in a round, and its optimiser.
client: {{batch_size: {setting.batch}, batches: 1, optimizer: {optimizer}, keep_optimizer: {kept}}}
participation: {{name: all}}  # or {{name: sample, clients: 10}}
{_of_attack(attack, malicious, rounds)}\
# How the server merges the updates.
aggregator: {example(rule, f=malicious)}
{_ROOT if choices.aggregator == "fl-trust" else ""}\
# Every {setting.every} rounds the model is evaluated on 300 held-out examples: its accuracy,
# and its accuracy under this attack.
evaluation:
  every: {setting.every}
  samples: 300
  attack: {_pgd(setting, setting.judged)}
  # An audit tries whether the robust accuracy is real. The `every` of an audit counts evaluations,
  # not rounds. A run of fewer than 1000 evaluations is therefore audited only at its end. To audit
  # at each evaluation, write `every: 1`; this takes longer.
  audit: {audit}
"""
    experiment = from_config(Experiment, read_yaml(text))
    try:
        experiment.require_clients(clients)
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return text


_ROOT = "server: {root: 100}  # examples that the server holds, for the update that it trusts\n"


def _pgd(setting: Setting, how: tuple[int, float]) -> str:
    steps, size = how
    return f"{{name: pgd, norm: linf, eps: {setting.eps}, step_size: {size}, steps: {steps}}}"


def _of_attack(attack: type | None, malicious: int, rounds: int) -> str:
    from fedrobust.federation.attack import requirements
    from fedrobust.federation.threat import ThreatModel

    if attack is None:
        return "malicious: 0  # for an attack: fedrobust list attack\n"
    # One that begins later, or that observes first, has half of the rounds or more to act in.
    observe = min(20, rounds // 4)
    horizon = max(10, min(300, rounds - observe))  # an action is held for 10 rounds
    written = example(attack, start=rounds // 2 + 1, observe=observe, horizon=horizon)
    built: Any = from_config(attack, read_yaml(written))
    threat, needs = ThreatModel(), requirements(built).knowledge
    granted = ", ".join(f"{what}: true" for what in sorted(needs) if not threat.knows(what))
    lines = [f"malicious: {malicious}  # of the clients", f"attack: {written}"]
    if granted:
        lines.append(f"threat: {{{granted}}}  # what malicious clients know beyond their own data")
    return "\n".join(lines) + "\n"


def _named(members: Iterable[type]) -> dict[str, Any]:
    return {name_of(member): member for member in members}


def _chosen(what: str, name: str, known: dict[str, Any]) -> Any:
    if name not in known:
        raise ConfigError(
            f"there is no {what} {quoted(name)} to begin with{suggestion(name, list(known))}; "
            f"there are: {', '.join(known)}"
        )
    return known[name]
