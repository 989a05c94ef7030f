"""The text of a config to begin with: every key that matters, with a comment."""

import shlex
from dataclasses import dataclass, replace
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
    """What a user chooses. None takes what suits the data set. ``path`` is that of the config."""

    name: str
    path: str = "experiment.yaml"
    data: str = "digits"
    clients: int | None = None
    malicious: int | None = None
    rounds: int | None = None
    aggregator: str = "bulyan"
    attack: str = "a-little-is-enough"
    objective: str = "adversarial"


def starter(choices: Choices) -> str:
    """Return the YAML text of an experiment with these choices; it has been read back once.

    Where ``malicious`` is left out it is a fifth of the clients, or fewer if the rule or the attack
    takes no more; it is 0 for the attack "none".

    Raises: ``ConfigError`` for a name that is not known, and for choices that do not fit.
    """
    if choices.malicious is not None or choices.attack == "none":
        return _written(choices)
    setting = _chosen("data set", choices.data, SETTINGS)
    first: ConfigError | None = None
    for malicious in range(max(1, (choices.clients or setting.clients) // 5), 0, -1):
        try:
            return _written(replace(choices, malicious=malicious))
        except ConfigError as error:
            first = first or error  # fewer may do
    assert first is not None
    raise first


def _written(choices: Choices) -> str:
    from fedrobust.aggregators import AGGREGATORS
    from fedrobust.attacks import ATTACKS
    from fedrobust.objectives import OBJECTIVES

    setting = _chosen("data set", choices.data, SETTINGS)
    rule = _chosen("aggregator", choices.aggregator, {name_of(c): c for c in AGGREGATORS})
    _chosen("objective", choices.objective, {name_of(c): c for c in OBJECTIVES})
    attack = None
    if choices.attack != "none":
        attack = _chosen("attack", choices.attack, {name_of(c): c for c in ATTACKS})
    clients = choices.clients or setting.clients
    malicious = choices.malicious or 0
    if attack is None and malicious:
        raise ConfigError(f"malicious: {choices.malicious} clients need an attack: --attack NAME")
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
rounds: {choices.rounds or setting.rounds}
data: {{name: {choices.data}, validation: {setting.validation}}}  # held out; they choose the model
partition: {{name: iid, clients: {clients}}}  # or dirichlet, shards: fedrobust list partition
model: {model}
# What a client minimises: fedrobust list objective
objective: {loss}
# A client's work in a round, and its optimiser.
client: {{batch_size: {setting.batch}, batches: 1, optimizer: {optimizer}, keep_optimizer: {kept}}}
participation: {{name: all}}  # or {{name: sample, clients: 10}}
{_of_attack(attack, malicious)}\
# How the server merges the updates.
aggregator: {example(rule, malicious)}
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


def _of_attack(attack: type | None, malicious: int) -> str:
    from fedrobust.federation.attack import requirements
    from fedrobust.federation.threat import ThreatModel

    if attack is None:
        return "malicious: 0  # for an attack: fedrobust list attack\n"
    written = example(attack)
    built: Any = from_config(attack, read_yaml(written))
    threat, needs = ThreatModel(), requirements(built).knowledge
    granted = ", ".join(f"{what}: true" for what in sorted(needs) if not threat.knows(what))
    lines = [f"malicious: {malicious}  # of the clients", f"attack: {written}"]
    if granted:
        lines.append(f"threat: {{{granted}}}  # what malicious clients know beyond their own data")
    return "\n".join(lines) + "\n"


def _chosen(what: str, name: str, known: dict[str, Any]) -> Any:
    if name not in known:
        raise ConfigError(
            f"there is no {what} {quoted(name)} to begin with{suggestion(name, list(known))}; "
            f"there are: {', '.join(known)}"
        )
    return known[name]
