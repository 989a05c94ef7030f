"""The backend of a real federation: its local updates come from Flower's clients."""

from collections.abc import Mapping, Sequence

from flwr.app import ConfigRecord, Message, MessageType, RecordDict
from flwr.serverapp import Grid

from fedrobust.clients.poisoning import Poisons
from fedrobust.compute.randomness import Streams
from fedrobust.federation.backends import Received
from fedrobust.federation.state import Federation, FederationState
from fedrobust.flower.answers import received
from fedrobust.flower.exchange import Replies, Reply, exchanged
from fedrobust.flower.nodes import Nodes
from fedrobust.flower.tensors import Tensors, fixed
from fedrobust.flower.words import ARRAYS, CLASSES, CLIENT, CONFIG, FIXED, ROUND, SEED


class FlowerClients:
    """Asks the clients of a Flower federation for their updates; it is a ``Backend``.

    ``known`` is the table of the clients' nodes, if there is one. ``least`` clients, all for None,
    must be connected before the first round, for which it waits ``wait`` seconds at most. Each
    round waits ``timeout`` seconds for replies. ``more`` goes to the clients as it is. The
    optimisers' states are at the clients, so ``state.store`` stays empty.
    """

    def __init__(
        self,
        grid: Grid,
        *,
        known: Mapping[int, int] | None,
        least: int | None,
        wait: float,
        timeout: float,
        more: Mapping[str, object],
    ) -> None:
        self._grid, self._known, self._more = grid, known, more
        self._least, self._wait, self._timeout = least, wait, timeout
        self._nodes: Nodes | None = None

    def local_updates(
        self,
        federation: Federation,
        state: FederationState,
        clients: Sequence[int],
        rng: Streams,
        poison: dict[int, Poisons],
    ) -> Received:
        """Return the rows [n, d] that ``clients`` sent, and why some of them were refused."""
        if self._nodes is None:
            self._nodes = Nodes(federation.clients, self._known)
            least = min(self._least or federation.clients, federation.clients)
            self._nodes.await_clients(self._grid, least, self._wait, self._timeout)
        online = self._nodes.connected(self._grid, self._timeout)
        there = {client: online[client] for client in clients if client in online}
        messages = training(federation, state, there, rng.seed, self._timeout, self._more)
        replies: Replies = exchanged(self._grid, messages, self._timeout)
        for client in clients:
            if client not in there:
                replies.append(Reply(client, self._nodes.doubts.get(client, "not connected")))
        tensors = Tensors.of(federation.local.model)
        return received(replies, clients, there, tensors, state.parameters)


def training(
    federation: Federation,
    state: FederationState,
    nodes: Mapping[int, int],
    seed: int,
    timeout: float | None,
    more: Mapping[str, object],
) -> dict[int, Message]:
    """Return the message to the node of each client that asks it to train in the next round."""
    number, model = state.round + 1, federation.local.model
    arrays = Tensors.of(model).record(state.parameters)
    shared = {
        **more,
        ROUND: number,
        SEED: seed,
        CLASSES: federation.local.classes,
        FIXED: fixed(model),
    }
    return {
        client: Message(
            RecordDict({ARRAYS: arrays, CONFIG: ConfigRecord({**shared, CLIENT: client})}),
            node,
            MessageType.TRAIN,
            ttl=timeout,
            group_id=str(number),
        )
        for client, node in nodes.items()
    }
