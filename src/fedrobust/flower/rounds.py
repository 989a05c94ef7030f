"""Single rounds of an experiment, for a loop that Flower or a strategy around ours plays."""

from collections.abc import Callable, Mapping, Sequence

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid

from fedrobust.clients.poisoning import Poisons
from fedrobust.compute.randomness import Streams
from fedrobust.errors import ConfigError
from fedrobust.experiment import Experiment
from fedrobust.federation.backends import Received
from fedrobust.federation.round import run_round
from fedrobust.federation.round_log import RoundLog
from fedrobust.federation.state import Federation, FederationState
from fedrobust.flower.answers import received
from fedrobust.flower.backend import training
from fedrobust.flower.exchange import Replies, Reply
from fedrobust.flower.nodes import Nodes
from fedrobust.flower.tensors import RefusedError, Tensors
from fedrobust.runs.prepare import prepare


class Replied:
    """A backend whose replies have arrived already."""

    def __init__(self) -> None:
        self.nodes: Mapping[int, int] = {}
        self.replies: Replies = []

    def local_updates(
        self,
        federation: Federation,
        state: FederationState,
        clients: Sequence[int],
        rng: Streams,
        poison: dict[int, Poisons],
    ) -> Received:
        """Return the rows [n, d] of ``clients`` that were sent, and why some were refused."""
        tensors = Tensors.of(federation.local.model)
        return received(self.replies, clients, self.nodes, tensors, state.parameters)


class Rounds:
    """The rounds of ``experiment``, one after another. Its state is in memory only."""

    def __init__(self, experiment: Experiment, known: Mapping[int, int] | None) -> None:
        self._replied = Replied()
        self._run = prepare(experiment, elsewhere=self._replied)
        federation = self._run.federation
        self._nodes = Nodes(federation.clients, known)
        self._tensors = Tensors.of(federation.local.model)
        self._state = federation.start(self._run.start, self._run.streams)
        self._sent: dict[int, Message] = {}

    def messages(
        self, number: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid, timeout: float
    ) -> list[Message]:
        """Return the messages of round ``number`` from the parameters ``arrays``.

        Raises: ``ConfigError`` for rounds out of order, or parameters of another model.
        """
        run, state = self._run, self._state
        if number != state.round + 1:
            raise ConfigError(f"round {number} cannot follow round {state.round}")
        try:
            state.parameters = self._tensors.vector(arrays, state.parameters)
        except RefusedError as error:
            raise ConfigError(f"the global parameters do not fit the model: {error}") from error
        nodes = self._nodes.connected(grid, timeout)
        chosen = run.federation.chosen(number, run.streams)
        there = {client: nodes[client] for client in chosen if client in nodes}
        self._replied.nodes = there
        self._replied.replies = [
            Reply(c, self._nodes.doubts.get(c, "not connected")) for c in chosen if c not in there
        ]
        seed = run.streams.seed
        self._sent = training(run.federation, state, there, seed, None, dict(config))
        return list(self._sent.values())

    def aggregated(
        self, number: int, replies: Sequence[Message], told: Callable[[RoundLog], None]
    ) -> tuple[ArrayRecord | None, MetricRecord]:
        """Return the parameters after round ``number``, and what happened in it."""
        run = self._run
        if number != self._state.round + 1:
            raise ConfigError(f"round {number} cannot follow round {self._state.round}")
        asked = {m.metadata.message_id: c for c, m in self._sent.items() if m.metadata.message_id}
        by_node = {node: client for client, node in self._replied.nodes.items()}
        for reply in replies:
            about = reply.metadata
            # Where messages have ids, a reply to an older one is not of this round.
            client = (
                asked.get(about.reply_to_message_id) if asked else by_node.get(about.src_node_id)
            )
            if client is not None:
                self._replied.replies.append(Reply(client, reply))
        with run.plan.active():
            self._state, log = run_round(
                self._state, run.federation, run.streams, backend=self._replied
            )
        told(log)
        applied = log.outcome.vector is not None
        metrics = MetricRecord({"applied": int(applied), "refused": len(log.dropped)})
        arrays = self._tensors.record(self._state.parameters) if applied else None
        return arrays, metrics
