"""An attack as one call on the rows of a round, for anyone's own loop."""

from collections.abc import Callable
from typing import Any

import torch

from fedrobust.aggregators import AnyAggregator, Context
from fedrobust.aggregators.aggregator import apply, check, lowered
from fedrobust.aggregators.checks import finite_rows
from fedrobust.config import arguments
from fedrobust.config.component import read_as
from fedrobust.config.fingerprint import foreign
from fedrobust.config.kind import name_of
from fedrobust.federation.attack import AnyAttack, Attack, initial_state, poisons, requirements
from fedrobust.federation.malicious_rows import crafted
from fedrobust.federation.threat import View
from fedrobust.typing import Updates, Vector


def on_rows(
    attack: Attack,
    honest: Updates,
    *,
    malicious: int,
    rule: Any = None,
    seed: int = 0,
    **known: Any,
) -> Updates:
    """Return what the first ``malicious`` of n clients send instead of honest updates [m, d].

    honest: [n, d], the honest updates of all clients of a round, those of the malicious ones first.
    The attack knows all of them, and the server's ``rule`` where it is given. The server drops
    benign rows that are not finite, and its rule then tolerates so many less. ``known`` are further
    fields of :meth:`~fedrobust.federation.threat.View.of`: an attack that trains needs ``model``
    and ``data``, and one that works on the broadcast parameters, as ``Shrink`` does, needs
    ``parameters`` [d] or ``model``. All random draws come from ``seed``. An attack with a memory
    begins anew at each call: for several rounds, play it with ``run_round``.

    Raises: ``ValueError`` for rows or a number that do not fit, and for an attack that needs what
    was not given; ``ConfigError`` where the attack does not return rows.

    >>> from fedrobust.attacks import ALittleIsEnough
    >>> honest = torch.tensor([[2.0], [2.0], [1.0], [3.0]])  # benign: mean 2, deviation 1
    >>> ALittleIsEnough(k=-1.5)(honest, malicious=2)
    tensor([[0.5000],
            [0.5000]])
    """
    rows = arguments.tensor(honest, "honest")
    if rows.ndim != 2 or not rows.is_floating_point() or not rows.numel():
        raise ValueError(f"honest must be floating-point rows [n, d]; got {arguments.told(honest)}")
    arguments.whole("malicious", malicious)
    arguments.whole("seed", seed, 0)
    if malicious > len(rows):
        raise ValueError(f"malicious is {malicious}, but there are {len(rows)} rows")
    if foreign(attack):
        read_as(AnyAttack, attack, "attack")
    requires = requirements(attack)
    if poisons(attack):
        raise ValueError(
            f"attack {name_of(type(attack))} poisons the data that its clients train on, and rows "
            "are no data: play it with run_round, or an Experiment"
        )
    if "rule" in requires.knowledge and rule is None:
        raise ValueError(f"attack {name_of(type(attack))} needs the server's rule: pass rule=...")
    own, benign = rows[:malicious].clone(), rows[malicious:]
    fit = [i for i, finite in enumerate(finite_rows(benign)) if finite]
    names, lost = tuple(malicious + i for i in fit), len(benign) - len(fit)
    benign = benign[fit]
    view = View.of(
        own,
        benign=benign if len(benign) else None,
        benign_clients=names or None,
        rule=None if rule is None else _tried(rule, len(rows), lost),
        clients=len(rows),
        round=requires.first_round,
        **known,
    )
    generator = torch.Generator().manual_seed(seed)
    sent, _ = crafted(attack, initial_state(attack), view, generator)
    return sent


def _tried(rule: Any, n: int, lost: int) -> Callable[[Updates], Vector]:
    """Return ``rule`` as a function of rows, after the server has dropped ``lost`` of n rows.

    Raises: ``ValueError`` where it cannot take n rows.
    """
    if not callable(rule) and not hasattr(rule, "aggregate"):
        raise ValueError(f"rule must be an aggregation rule; got {arguments.told(rule)}")
    if foreign(rule):
        read_as(AnyAggregator, rule, "rule")
    check(rule, n)
    left = lowered(rule, lost) if lost else rule
    return lambda rows: apply(left, rows, Context()).vector
