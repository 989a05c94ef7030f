"""One federated round, and everything that it changes.

A round reads: who takes part → local updates → malicious rows → aggregate → apply. The trainer, a
simulating attacker and any distributed backend call :func:`run_round`; none has a copy of it.
"""

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import nn

from fedrobust.aggregators import Aggregator, Context
from fedrobust.aggregators.rule import apply
from fedrobust.attacks import Attack, Poisons
from fedrobust.attacks.attack import poisons, traits
from fedrobust.client import LocalTraining, Store
from fedrobust.errors import ConfigError
from fedrobust.flat import write
from fedrobust.participation import Participation
from fedrobust.server import Outcome, Server, aggregate, place
from fedrobust.streams import Streams
from fedrobust.threat import ThreatModel, View
from fedrobust.typing import Updates, Vector


@dataclass(frozen=True)
class Federation:
    """Everything about a federation that no round changes."""

    local: LocalTraining
    participation: Participation
    malicious: frozenset[int]
    attack: Attack | None
    threat: ThreatModel
    aggregator: Aggregator
    server: Server
    known: tuple[int, ...] = ()
    """The benign clients whose examples the adversary knows."""
    root: LocalTraining | None = None
    """The server's own training, as of its only client 0, where the server holds data."""

    @property
    def clients(self) -> int:
        """The number of clients."""
        return len(self.local.clients)

    def start(self, parameters: Vector) -> "FederationState":
        """The state before the first round."""
        attack = None
        if self.attack is not None:
            # Clients that do not collude keep a state each, by id, from when they first take part.
            attack = traits(self.attack).init() if self.threat.colluders else {}
        return FederationState(parameters, attack=attack)


@dataclass
class FederationState:
    """Everything that a round changes, in one place."""

    parameters: Vector
    round: int = 0
    store: Store = field(default_factory=dict)
    root: Store = field(default_factory=dict)
    attack: Any = None
    memory: object = None
    history: tuple[Vector, ...] = ()

    def clone(self) -> "FederationState":
        """An independent copy: rounds run on it leave this one alone."""
        return deepcopy(self)


@dataclass(frozen=True)
class RoundLog:
    """What happened in a round. Client ids are worked out only when they are asked for."""

    round: int
    participants: tuple[int, ...]
    malicious: tuple[int, ...]
    outcome: Outcome

    @property
    def kept(self) -> tuple[int, ...] | None:
        """The clients whose rows the rule selected; None for a rule that does not select."""
        if self.outcome.kept is None:
            return None
        return tuple(self.participants[i] for i in self.outcome.kept.tolist())

    @property
    def dropped(self) -> tuple[int, ...]:
        """The clients whose rows the server refused."""
        return tuple(self.participants[i] for i in self.outcome.dropped)


class Backend(Protocol):
    """Where local training runs. It replaces nothing else of the round."""

    def local_updates(
        self,
        federation: Federation,
        state: FederationState,
        clients: Sequence[int],
        rng: Streams,
        poison: dict[int, Poisons],
    ) -> Updates:
        """The honest updates of ``clients`` [n, d]; ``state.store`` is updated."""
        ...


class Local:
    """Local training in this process, on the federation's own device."""

    def local_updates(
        self,
        federation: Federation,
        state: FederationState,
        clients: Sequence[int],
        rng: Streams,
        poison: dict[int, Poisons],
    ) -> Updates:
        """One client after the other, their inner maximisations together."""
        return federation.local.updates(
            state.parameters, state.store, clients, rng, state.round + 1, poison
        )


LOCAL = Local()


def run_round(
    state: FederationState,
    federation: Federation,
    rng: Streams,
    *,
    backend: Backend = LOCAL,
    action: Updates | None = None,
) -> tuple[FederationState, RoundLog]:
    """Play one round and return the state after it, with what happened.

    ``state`` is consumed: use ``state.clone()`` to keep it. ``action``, where given, are the rows
    [m, d] that the round's malicious clients send instead of what the attack would craft.
    """
    number = state.round + 1
    draw = rng.generator("participation", number)
    participants = federation.participation.choose(federation.clients, draw)
    malicious = tuple(c for c in participants if c in federation.malicious)

    rows = _honest_rows(state, federation, participants, malicious, rng, backend)
    bad = [i for i, client in enumerate(participants) if client in federation.malicious]
    attack = state.attack
    refused: tuple[int, ...] = ()
    root = _root_update(state, federation, rng)
    if bad and action is not None:
        refused = place(rows, bad, action)
    elif bad:
        refused, attack = _attack(state, federation, rows, root, participants, bad, rng)

    counts = torch.tensor([len(federation.local.clients[c]) for c in participants])
    context = Context(
        counts=counts.to(rows.device),
        memory=state.memory,
        root=root,
        generator=rng.generator("aggregation", number),
    )
    outcome = aggregate(federation.aggregator, rows, context, refused)
    parameters, outcome = federation.server.step(state.parameters, outcome)

    keep = traits(federation.attack).memory if federation.attack is not None else 0
    history = (*state.history, state.parameters)[-keep:] if keep else ()
    memory = state.memory if outcome.vector is None else outcome.memory
    after = FederationState(parameters, number, state.store, state.root, attack, memory, history)
    return after, RoundLog(number, participants, malicious, outcome)


def _honest_rows(
    state: FederationState,
    federation: Federation,
    participants: Sequence[int],
    malicious: Sequence[int],
    rng: Streams,
    backend: Backend,
) -> Updates:
    """Every participant's honest update [n, d]; rows that no attack looks at are left at zero."""
    attack = federation.attack
    poison: dict[int, Poisons] = {}
    if poisons(attack):
        assert isinstance(attack, Poisons)
        poison = dict.fromkeys(malicious, attack)
    idle = set(malicious) if attack is not None and not traits(attack).trains else set()
    working = [i for i, client in enumerate(participants) if client not in idle]
    trained = backend.local_updates(
        federation, state, [participants[i] for i in working], rng, poison
    )
    if not idle:
        return trained
    rows = trained.new_zeros(len(participants), trained.shape[1])
    rows[working] = trained
    return rows


def _root_update(state: FederationState, federation: Federation, rng: Streams) -> Vector | None:
    """The update that the server trains on its own data [d]; None where it holds none."""
    if federation.root is None:
        return None
    own = rng.child("root")
    return federation.root.updates(state.parameters, state.root, [0], own, state.round + 1)[0]


def _attack(
    state: FederationState,
    federation: Federation,
    rows: Updates,
    root: Vector | None,
    participants: Sequence[int],
    bad: list[int],
    rng: Streams,
) -> tuple[tuple[int, ...], Any]:
    """Replace the malicious rows by what the attack sends; the rows refused, and its next state.

    Colluders act as one group; malicious clients that do not collude act one by one. All of them
    see the honest updates of this round, whatever those before them have sent.
    """
    attack, threat = federation.attack, federation.threat
    assert attack is not None
    groups = [bad] if threat.colluders else [[i] for i in bad]
    others = sorted(set(range(len(rows))) - set(bad))
    benign = rows[others]
    names = tuple(participants[i] for i in others)
    refused: tuple[int, ...] = ()
    memory = state.attack
    for group in groups:
        ids = [participants[i] for i in group]
        mine = memory if threat.colluders else memory.get(ids[0], traits(attack).init())
        own = rows[group] if traits(attack).trains else rows[:0]
        view = _view(state, federation, ids, own, len(participants))
        if threat.benign:
            view = replace(view, benign=benign.clone(), benign_clients=names)
        if threat.rule:
            view = replace(view, rule=_rule(state, federation, root))
        draw = rng.generator("attack", view.round, ids[0])
        answer = attack.craft(mine, view, draw)
        if not isinstance(answer, tuple) or len(answer) != 2:
            raise ConfigError(
                f"the attack {type(attack).__name__} must return (rows, state) from craft; "
                f"it returned a {type(answer).__name__}"
            )
        sent, mine = answer
        memory = mine if threat.colluders else {**memory, ids[0]: mine}
        refused += place(rows, group, sent)
    return refused, memory


def _view(
    state: FederationState,
    federation: Federation,
    clients: list[int],
    own: Updates,
    participants: int,
) -> View:
    """What ``clients`` see: copies, and functions that reach nothing beyond what they return."""
    local, threat = federation.local, federation.threat
    parameters, network, data = state.parameters.clone(), local.model, local.data
    examples = [local.clients[client] for client in clients]
    known_examples = [local.clients[client] for client in federation.known]
    known = participants if threat.clients is True else threat.clients or None

    def model() -> nn.Module:
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
        rows=len(clients),
        data=lambda: tuple(data.take(index) for index in examples),
        others=lambda: tuple(data.take(index) for index in known_examples),
        own=own,
        clients=known,
        clients_exactly=threat.clients is True,
    )


def _rule(
    state: FederationState, federation: Federation, root: Vector | None
) -> Callable[[Updates], Vector]:
    """The server's rule as it stands in this round; every row weighs the same."""
    rule, memory = federation.aggregator, deepcopy(state.memory)
    trusted = None if root is None else root.clone()
    return lambda rows: apply(rule, rows, Context(memory=memory, root=trusted)).vector
