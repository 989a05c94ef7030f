"""A grid in this process: it hands messages to functions, and their replies back."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity

from fedrobust.flower.words import ARRAYS, PARTITION, WHO

Node = Callable[[Message], Any]
"""What a node does with a message: it gives a reply, a list of them, or None for no reply."""


class Loopback(Grid):
    """The nodes by id. What a node raises comes out of ``pull_messages``."""

    def __init__(self, nodes: Mapping[int, Node]) -> None:
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
        self.nodes = dict(nodes)
        self.sent: list[Message] = []
        self.online = set(nodes)

    def set_run(self, run: Any) -> None:
        """It has one run."""

    @property
    def run(self) -> Any:
        raise NotImplementedError

    def create_message(self, *args: Any, **kwargs: Any) -> Message:
        raise NotImplementedError

    def get_node_ids(self) -> Iterable[int]:
        # In an order that says nothing about the clients.
        return sorted(self.online, key=lambda node: -node)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        ids = []
        for message in messages:
            name = f"message {len(self.sent)}"
            message.metadata.__dict__["_message_id"] = name
            self.sent.append(message)
            ids.append(name)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        (name,) = message_ids
        message = self.sent[int(name.removeprefix("message "))]
        found = self.nodes[message.metadata.dst_node_id](message)
        return found if isinstance(found, list) else [] if found is None else [found]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        ids = self.push_messages(messages)
        return [reply for name in ids for reply in self.pull_messages([name])]


def node_of(app: Any, client: int, node: int) -> Node:
    """Return a node that was started for ``client`` and runs a ``ClientApp``."""
    context = Context(1, node, {PARTITION: client}, RecordDict(), {})
    return lambda message: app(message, context)


def nodes_of(app: Any, clients: int) -> dict[int, Node]:
    """Return the nodes of a federation; the ids say nothing about the clients."""
    ids = [10_000 - 7 * (client * client % 11) - client for client in range(clients)]
    return {node: node_of(app, client, node) for client, node in enumerate(ids)}


def saying(client: int, answer: Callable[[Message], Any]) -> Node:
    """Return a node that says it is ``client``, and trains by ``answer``."""

    def node(message: Message) -> Any:
        if message.metadata.message_type == WHO:
            said = RecordDict({"config": ConfigRecord({PARTITION: client})})
            return Message(said, reply_to=message)
        return answer(message)

    return node


def moved(message: Message, by: float) -> ArrayRecord:
    """Return the parameters of a message, each moved by ``by``."""
    return ArrayRecord(
        {k: Array(v.numpy() + v.numpy().dtype.type(by)) for k, v in message.content[ARRAYS].items()}
    )
