"""One federated round, and everything that it changes.

A round reads: who takes part → local updates → malicious rows → aggregate → apply. The trainer, a
simulating attacker and any distributed backend call :func:`run_round`; none has a copy of it.
"""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor

from fedrobust.aggregators import Aggregator, Context
from fedrobust.attacks import Attack, Poisons
from fedrobust.attacks.attack import Traits, poisons, traits
from fedrobust.attacks.checks import tensor_of_rows
from fedrobust.clients.local_training import LocalTraining, Store
from fedrobust.compute.own_draws import own_draws
from fedrobust.compute.randomness import Streams
from fedrobust.config.arguments import told, unfit
from fedrobust.config.fingerprint import foreign
from fedrobust.errors import ConfigError
from fedrobust.federation.adversary import attacked, begun
from fedrobust.federation.participation import Participation
from fedrobust.federation.server import Outcome, Server, aggregate, place
from fedrobust.federation.threat import ThreatModel
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
    graph: bool = False
    """Whether rounds keep the autograd history of what they compute, to plan along gradients.

    Else it ends at the rows that come in and at the rule's vector: a tensor with a history would
    hold on to every round before it.
    """

    @property
    def clients(self) -> int:
        """The number of clients."""
        return len(self.local.clients)

    @cached_property
    def own_attack(self) -> bool:
        """Whether the attack, or one within it, is the user's own: it may draw from anywhere."""
        return foreign(self.attack)

    @cached_property
    def own_rule(self) -> bool:
        """Whether the rule, or one within it, is the user's own."""
        return foreign(self.aggregator)

    @cached_property
    def own_participation(self) -> bool:
        """Whether the participation is the user's own."""
        return foreign(self.participation)

    @cached_property
    def own_projection(self) -> bool:
        """Whether the server's projection is the user's own."""
        return foreign(self.server.projection)

    def start(self, parameters: Vector, rng: Streams | None = None) -> "FederationState":
        """The state before the first round.

        ``rng`` are the run's streams, from which a user's own attack draws what its ``init`` draws.
        """
        attack = None
        if self.attack is not None:
            # Clients that do not collude keep a state each, by id, from when they first take part.
            says, rng = traits(self.attack), rng or Streams(0)
            attack = begun(self, says, rng) if self.threat.colluders else {}
        return FederationState(parameters, attack=attack)

    def chosen(self, number: int, rng: Streams) -> tuple[int, ...]:
        """The clients of round ``number``, rising.

        Raises: ``ConfigError`` where a user's own participation names no such clients.
        """
        draw = rng.generator("participation", number)
        if not self.own_participation:
            return self.participation.choose(self.clients, draw)
        with own_draws(True, rng, "participation", number):
            chosen = self.participation.choose(self.clients, draw)
        try:
            found = tuple(int(client) for client in chosen if int(client) == client)
        except (TypeError, ValueError):
            found = ()
        whole = isinstance(chosen, Sequence) and len(found) == len(chosen) > 0
        if not whole or found != tuple(sorted(set(found) & set(range(self.clients)))):
            raise ConfigError(
                f"the participation {type(self.participation).__name__} must choose some of the "
                f"clients 0 to {self.clients - 1}, as a rising tuple; it chose {told(chosen)}"
            )
        return found


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

    Raises: ``ConfigError`` where a user's own rule, attack, participation or projection answers
    with what is none; ``ValueError`` for arguments of another kind.
    """
    _check(state, federation, rng)
    if action is not None:
        tensor_of_rows(action, "action, the malicious clients' rows,")
    if not federation.graph and state.parameters.requires_grad:
        state = replace(state, parameters=state.parameters.detach())
    number = state.round + 1
    participants = federation.chosen(number, rng)
    malicious = tuple(c for c in participants if c in federation.malicious)
    says = None if federation.attack is None else traits(federation.attack)

    rows = _honest_rows(state, federation, says, participants, malicious, rng, backend)
    bad = [i for i, client in enumerate(participants) if client in federation.malicious]
    attack = state.attack
    refused: tuple[int, ...] = ()
    root = _root_update(state, federation, rng)
    if bad and action is not None:
        refused = place(rows, bad, action, graph=federation.graph)
    elif bad and says is not None:
        refused, attack = attacked(state, federation, says, rows, root, participants, bad, rng)

    counts = torch.tensor([len(federation.local.clients[c]) for c in participants])
    context = Context(
        counts=counts.to(rows.device),
        # A user's own rule may write to its memory in a round that then makes no step.
        memory=deepcopy(state.memory) if federation.own_rule else state.memory,
        root=root,
        generator=rng.generator("aggregation", number),
    )
    with own_draws(federation.own_rule, rng, "rule", number):
        outcome = aggregate(federation.aggregator, rows, context, refused, graph=federation.graph)
    with own_draws(federation.own_projection, rng, "projection", number):
        parameters, outcome = federation.server.step(state.parameters, outcome)

    keep = says.memory if says is not None else 0
    history = (*state.history, state.parameters)[-keep:] if keep else ()
    memory = state.memory if outcome.vector is None else outcome.memory
    after = FederationState(parameters, number, state.store, state.root, attack, memory, history)
    return after, RoundLog(number, participants, malicious, outcome)


def _check(state: object, federation: object, rng: object) -> None:
    """Raises: ``ValueError`` for what is no state, federation or streams."""
    for name, value, kind in (
        ("state", state, FederationState),
        ("federation", federation, Federation),
        ("rng", rng, Streams),
    ):
        if not isinstance(value, kind):
            raise ValueError(f"{name} must be a {kind.__name__}; got {told(value)}")
    assert isinstance(state, FederationState)
    at = state.parameters
    if not isinstance(at, Tensor) or unfit(at) or at.ndim != 1 or not at.is_floating_point():
        raise ValueError(f"state.parameters must be one floating-point vector [d]; got {told(at)}")


def _honest_rows(
    state: FederationState,
    federation: Federation,
    says: Traits | None,
    participants: Sequence[int],
    malicious: Sequence[int],
    rng: Streams,
    backend: Backend,
) -> Updates:
    """Every participant's honest update [n, d]; rows that no attack looks at are left at zero."""
    poison: dict[int, Poisons] = {}
    if poisons(federation.attack):
        assert isinstance(federation.attack, Poisons)
        poison = dict.fromkeys(malicious, federation.attack)
    idle = set(malicious) if says is not None and not says.trains else set()
    working = [i for i, client in enumerate(participants) if client not in idle]
    trained = backend.local_updates(
        federation, state, [participants[i] for i in working], rng, poison
    )
    if not federation.graph:
        trained = trained.detach()
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
