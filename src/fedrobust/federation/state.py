"""A federation, and the state that a round changes."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from torch import nn

from fedrobust.aggregators import Aggregator, AnyAggregator, Mean
from fedrobust.clients.client import Client
from fedrobust.clients.local_training import LocalTraining
from fedrobust.clients.turn import Store
from fedrobust.compute.own_draws import own_draws
from fedrobust.compute.parameters import read, write
from fedrobust.compute.randomness import Streams
from fedrobust.config.arguments import told
from fedrobust.config.component import read_as
from fedrobust.config.fingerprint import foreign
from fedrobust.config.kind import name_of
from fedrobust.config.scalars import Count, Size
from fedrobust.errors import ConfigError
from fedrobust.federation.attack import (
    AnyAttack,
    Attack,
    Requirements,
    initial_state,
    poisons,
    requirements,
)
from fedrobust.federation.fitting import require_clients, require_one_model, require_parts
from fedrobust.federation.participation import All, AnyParticipation, Participation
from fedrobust.federation.server import Server
from fedrobust.federation.server_optimizer import Slots
from fedrobust.federation.threat import ThreatModel
from fedrobust.models import BatchNorm
from fedrobust.objectives import ERM, AnyObjective, Objective
from fedrobust.typing import Vector


@dataclass(frozen=True, repr=False)
class Federation:
    """Everything about a federation that rounds do not change."""

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
    """The server's own training, with the server as the only client 0, where it holds data."""
    graph: bool = False
    """Whether rounds keep the autograd history of what they compute, to plan along gradients.

    Otherwise the history ends at the rows that come in and at the rule's vector: a tensor with a
    history would keep every earlier round in memory.
    """
    rounds: int | None = None
    """T, the number of rounds that the server announces; None where it announces none."""
    initial: Vector | None = None
    """The parameters that the model came with, where :meth:`of` was given one: training overwrites
    the copy in ``local``.
    """

    @classmethod
    def of(
        cls,
        model: nn.Module,
        clients: Sequence[Any],
        *,
        aggregator: Aggregator | str | Mapping[str, Any] | None = None,
        attack: Attack | str | Mapping[str, Any] | None = None,
        malicious: int | None = None,
        objective: Objective | str | Mapping[str, Any] | None = None,
        client: Client | Mapping[str, Any] | None = None,
        participation: Participation | str | Mapping[str, Any] | None = None,
        threat: ThreatModel | Mapping[str, Any] | None = None,
        server: Server | Mapping[str, Any] | None = None,
        batch: int = 256,
        batch_norm: BatchNorm = "refuse",
    ) -> "Federation":
        """Return a federation of ``clients`` that train ``model``, for a loop over ``run_round``.

        ``clients`` are pairs (x, y) of tensors, or PyTorch data sets, one for each client; the
        first ``malicious`` of them attack. With an ``attack`` this number must be given; 0 plays
        the same rounds without the attack, for comparison. Left out, the rule is the mean, the
        objective ERM, and local training one batch of 64 by SGD at rate 0.1; all take part in each
        round. ``batch`` is the number of examples that an inner maximisation moves at a time.
        Training runs where the model's parameters lie. The model is copied, and its BatchNorm
        layers are treated as ``batch_norm`` says (:func:`~fedrobust.models.batch_norm.treated`). A
        part may also be given as in a config: ``aggregator={"name": "krum", "f": 2}``.

        Raises: ``ConfigError`` for parts that do not fit each other, ``DataError`` for the data.

        >>> import torch
        >>> from fedrobust import Streams, run_round
        >>> clients = [(torch.rand(8, 4), torch.arange(8) % 2) for _ in range(5)]
        >>> krum = {"name": "krum", "f": 1}
        >>> federation = Federation.of(nn.Linear(4, 2), clients, aggregator=krum)
        >>> state, log = run_round(federation.start(), federation, Streams(seed=0))
        >>> state.round, len(log.kept)
        (1, 1)
        """
        attacks = None if attack is None else read_as(AnyAttack, attack, "attack")
        if attacks is not None and malicious is None:
            raise ConfigError(
                f"attack is {name_of(type(attacks))}, but no client would play it: say how many of "
                "the clients are malicious, as malicious=1 for the first (malicious=0 plays the "
                "rounds without an attack)"
            )
        bad = 0 if malicious is None else read_as(Size, malicious, "malicious")
        local = LocalTraining.of(
            model,
            clients,
            read_as(AnyObjective, objective or ERM(), "objective"),
            read_as(Client, client or Client(batches=1), "client"),
            read_as(Count, batch, "batch"),
            read_as(BatchNorm, batch_norm, "batch_norm"),
        )
        found = cls(
            local=local,
            participation=read_as(AnyParticipation, participation or All(), "participation"),
            malicious=frozenset(range(bad)),
            attack=attacks if bad else None,
            threat=read_as(ThreatModel, threat or ThreatModel(), "threat"),
            aggregator=read_as(AnyAggregator, aggregator or Mean(), "aggregator"),
            server=read_as(Server, server or Server(), "server"),
            initial=read(local.model),
        )
        known = found.threat
        if found.server.root is not None or known.data or known.classes is not None:
            raise ConfigError(
                "server.root, threat.data and threat.classes draw examples from a data set: play "
                "an Experiment, or give the clients such data yourself"
            )
        try:
            require_one_model(batch_norm, attacks, bad)
            require_parts(attacks, bad, known, found.aggregator, found.server)
            require_clients(found.clients, bad, known, found.participation, found.aggregator)
        except ValueError as error:
            raise ConfigError(str(error)) from error
        return found

    def __repr__(self) -> str:
        attack = "" if self.attack is None else f", {len(self.malicious)} of them {self.attack!r}"
        return f"<Federation: {self.clients} clients{attack}; {self.aggregator!r}>"

    @property
    def clients(self) -> int:
        """The number of clients."""
        return len(self.local.clients)

    @cached_property
    def own_attack(self) -> bool:
        """Whether the attack, or one inside it, is the user's own, which may draw from anywhere."""
        return foreign(self.attack)

    @cached_property
    def own_rule(self) -> bool:
        """Whether the rule, or one inside it, is the user's own."""
        return foreign(self.aggregator)

    @cached_property
    def own_participation(self) -> bool:
        """Whether the participation is the user's own."""
        return foreign(self.participation)

    @cached_property
    def own_server(self) -> bool:
        """Whether the server's projection or its optimiser is the user's own."""
        return foreign(self.server.projection) or foreign(self.server.optimizer)

    @cached_property
    def poisons(self) -> bool:
        """Whether the attack changes the data of malicious clients."""
        return poisons(self.attack)

    @cached_property
    def requires(self) -> Requirements | None:
        """What the attack requires; None where there is no attack."""
        return None if self.attack is None else requirements(self.attack)

    def initial_attack(self, rng: Streams, *client: int) -> Any:
        """Return the attack's state before its first round; of one ``client`` without collusion."""
        with own_draws(self.own_attack, rng, "attack's start", *client):
            return initial_state(self.attack)

    def start(
        self, parameters: Vector | None = None, rng: Streams | None = None
    ) -> "FederationState":
        """Return the state before the first round; at the parameters that the model came with.

        ``rng`` are the run's streams, which a user's own attack uses for the draws of its ``init``.
        """
        if parameters is None:
            found = read(self.local.model) if self.initial is None else self.initial.clone()
            parameters = self.server.inside(found)
        attack = None
        if self.attack is not None:
            # Clients that do not collude each have a state, by id, from their first round on.
            attack = self.initial_attack(rng or Streams(0)) if self.threat.colluders else {}
        return FederationState(parameters, attack=attack)

    def model(self, state: "FederationState", client: int | None = None) -> nn.Module:
        """Return a copy of the network, as it was treated, with the parameters of ``state``.

        Where BatchNorm stays with each client, it is the model of this ``client``; one that has not
        taken part has the initial BatchNorm. The copy is in evaluation mode.

        Raises: ``ConfigError`` where there is no such model.
        """
        own = self.local.own
        if own is None and client is not None:
            raise ConfigError("all clients have the same model: leave client out")
        if own is not None and (client is None or client not in range(self.clients)):
            raise ConfigError(
                "each client has a model of its own (batch_norm: local): name one of the clients "
                f"0 to {self.clients - 1}"
            )
        copy = deepcopy(self.local.model)
        write(copy, state.parameters)
        if own is not None and client is not None:
            own.load(copy, state.store.get(client))
        return copy.eval()

    def chosen(self, number: int, rng: Streams) -> tuple[int, ...]:
        """Return the clients of round ``number``, in ascending order.

        Raises: ``ConfigError`` where a user's own participation does not give such clients.
        """
        if type(self.participation) is All:  # it draws nothing
            return tuple(range(self.clients))
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


@dataclass(repr=False)
class FederationState:
    """The state of a federation: everything that a round changes."""

    parameters: Vector
    round: int = 0
    store: Store = field(default_factory=dict)
    root: Store = field(default_factory=dict)
    attack: Any = None
    memory: object = None
    history: tuple[Vector, ...] = ()
    server: Slots = ()
    """What the server's optimiser keeps."""
    played: bool | None = False
    """Whether a round was played from it, which may have changed what it holds; None where a round
    from it did not end. It is not kept in checkpoints: the state that a run goes on from is a new
    one.
    """

    def __repr__(self) -> str:
        return f"<FederationState after round {self.round}: {len(self.parameters):,} parameters>"

    def clone(self) -> "FederationState":
        """Return an independent copy: rounds that run on it leave this state unchanged."""
        return deepcopy(self)
