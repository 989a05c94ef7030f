"""The adversary's part of a round: what malicious clients see, and what they send."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from fedrobust.aggregators import Context
from fedrobust.aggregators.aggregator import apply, lowered
from fedrobust.aggregators.checks import finite_rows
from fedrobust.compute.own_draws import own_draws
from fedrobust.compute.parameters import write
from fedrobust.compute.randomness import Streams
from fedrobust.config.arguments import unfit
from fedrobust.config.kind import name_of
from fedrobust.errors import ConfigError
from fedrobust.federation.malicious_rows import crafted
from fedrobust.federation.server import detached, place
from fedrobust.federation.state import Federation, FederationState
from fedrobust.federation.threat import View
from fedrobust.progress import ALONE, Host
from fedrobust.typing import Updates, Vector


def attacked(
    state: FederationState,
    federation: Federation,
    rows: Updates,
    root: Vector | None,
    participants: Sequence[int],
    bad: list[int],
    rng: Streams,
    host: Host,
    taking_part: int | None = None,
) -> tuple[dict[int, str], Any, bool | None]:
    """Replace the malicious ``rows`` by the attack's; return why which are refused, and its state.

    The third answer is whether the attack acted, see
    :class:`~fedrobust.federation.round_log.RoundLog`.

    ``rows`` are those of the ``participants``, of which ``bad`` are malicious. Where they are only
    some of the round's clients, ``taking_part`` is the number of all.

    Colluders act as one group; malicious clients that do not collude act one by one. All of them
    see the honest updates of this round, even where an earlier one has already sent something else.
    """
    attack, threat = federation.attack, federation.threat
    assert attack is not None
    assert federation.requires is not None
    trains = federation.requires.uses_honest_updates
    groups = [bad] if threat.colluders else [[i] for i in bad]
    benign, names = _benign(rows, participants, bad) if threat.benign else (None, None)
    # The server lowers its rule's f by the benign rows that it drops, and the attacker sees that.
    lost = 0 if benign is None else len(rows) - len(bad) - len(benign)
    rule = rule_of(state, federation, root, rng, lost) if threat.rule else None
    refused: dict[int, str] = {}
    memory, number = state.attack, state.round + 1
    compared = trains and not federation.poisons and not federation.graph
    acted = False if compared else None
    for group in groups:
        ids = [participants[i] for i in group]
        if threat.colluders:
            mine = memory
        else:
            mine = memory[ids[0]] if ids[0] in memory else federation.initial_attack(rng, ids[0])
        view = view_of(
            state,
            federation,
            clients=ids,
            own=rows[group] if trains else rows[:0],
            participants=len(participants) if taking_part is None else taking_part,
            benign=None if benign is None else benign.clone(),
            benign_clients=names,
            rule=rule,
            host=host,
        )
        draw = rng.generator("attack", number, ids[0])
        with own_draws(federation.own_attack, rng, "attack", number, ids[0]):
            sent, mine = crafted(attack, mine, view, draw)
        mine = mine if federation.graph else detached(mine)
        memory = mine if threat.colluders else {**memory, ids[0]: mine}
        if compared:
            acted = acted or _differ(sent, rows, group)
        if why := place(rows, group, sent, graph=federation.graph):
            refused |= dict.fromkeys(group, f"the attack sent {why}")
            if federation.own_attack:
                host.progress.troubled(f"the server refused what it sent: {why}")
    return refused, memory, acted


def _differ(sent: Tensor, rows: Updates, at: Sequence[int]) -> bool:
    """Whether what an attack sends is other than the honest ``rows`` ``at`` its places."""
    if unfit(sent) or sent.shape != (len(at), rows.shape[1]):
        return True
    # Row by row, since a copy of the malicious rows may be large.
    return not all(torch.equal(row.to(rows), rows[i]) for row, i in zip(sent, at, strict=True))


def _benign(
    rows: Updates, participants: Sequence[int], bad: list[int]
) -> tuple[Updates, tuple[int, ...]]:
    """Return the finite benign rows, and the clients that they belong to.

    The server drops the other rows. They are left out here because every result of a row with NaN
    is NaN too: one client whose training blows up would disarm the attack.
    """
    others = sorted(set(range(len(rows))) - set(bad))
    benign = rows[others]
    fit = finite_rows(benign)
    if not all(fit):
        others = [i for i, finite in zip(others, fit, strict=True) if finite]
        benign = rows[others]
    return benign, tuple(participants[i] for i in others)


def view_of(
    state: FederationState,
    federation: Federation,
    *,
    clients: list[int],
    own: Updates,
    participants: int,
    benign: Updates | None,
    benign_clients: tuple[int, ...] | None,
    rule: Callable[[Updates], Vector] | None,
    host: Host = ALONE,
) -> View:
    """Return the view of ``clients``: copies, and functions that give access to nothing else."""
    local, threat = federation.local, federation.threat
    parameters, network, data = state.parameters.clone(), local.model, local.data
    examples = [local.clients[client] for client in clients]
    known_examples = [local.clients[client] for client in federation.known]

    def model() -> nn.Module:
        if local.own is not None:
            raise ConfigError(
                f"the attack {name_of(type(federation.attack))} asks for the model, but each "
                "client has a model of its own (batch_norm: local)"
            )
        copy = deepcopy(network)
        write(copy, parameters)
        return copy

    return View(
        round=state.round + 1,
        parameters=parameters,
        history=tuple(vector.clone() for vector in state.history),
        model=model,
        objective=local.objective,
        client=local.config,
        classes=local.classes,
        server_lr=federation.server.lr,
        projection=federation.server.projection,
        server_optimizer=federation.server.optimizer,
        server_slots=None if rule is None else tuple(slot.clone() for slot in state.server),
        rows=len(clients),
        data=lambda: tuple(data.take(index) for index in examples),
        others=lambda: tuple(data.take(index) for index in known_examples),
        own=own,
        benign=benign,
        benign_clients=benign_clients,
        rule=rule,
        clients=participants if threat.clients is True else threat.clients or None,
        clients_exactly=threat.clients is True,
        host=host,
        rounds=federation.rounds,
    )


def rule_of(
    state: FederationState,
    federation: Federation,
    root: Vector | None,
    rng: Streams,
    dropped: int = 0,
) -> Callable[[Updates], Vector]:
    """Return the server's rule as it stands in this round, with equal weights for all rows.

    It tolerates ``dropped`` rows less, as many as the server has dropped.

    A user's own rule that draws does so in the same way at each trial, in every round, as
    ``Bucketing`` does. So an attacker that tries it learns how the rule works, but not what it will
    draw.
    """
    rule = lowered(federation.aggregator, dropped) if dropped else federation.aggregator
    memory, own = deepcopy(state.memory), federation.own_rule
    trusted, graph = None if root is None else root.clone(), federation.graph

    def tried(rows: Updates) -> Vector:
        with own_draws(own, rng, "rule, as it is tried"):
            # A user's own rule may work in place, and the same rows may be tried again.
            given, kept, root = (
                deepcopy((rows.detach(), memory, trusted)) if own else (rows, memory, trusted)
            )
            answer = apply(rule, given, Context(memory=kept, root=root)).vector
        return answer if graph else answer.detach()

    return tried
