"""From the replies of clients to rows. A reply may hold anything, and is checked before a rule."""

from collections.abc import Mapping, Sequence

import torch
from flwr.app import Message

from fedrobust.federation.backends import Received
from fedrobust.flower.exchange import Replies, told
from fedrobust.flower.tensors import RefusedError, Tensors
from fedrobust.typing import Vector


def received(
    replies: Replies,
    clients: Sequence[int],
    nodes: Mapping[int, int],
    tensors: Tensors,
    parameters: Vector,
) -> Received:
    """Return the rows of ``clients``, in this order whatever the order of arrival.

    A row is the received minus the global ``parameters``. A client that did not send exactly one
    fit reply is refused: its row is NaN, and the reason is kept. How many examples a client claims
    to have, and all else that it sends, is not read. ``nodes`` are the nodes that were asked.
    """
    rows = parameters.new_full((len(clients), len(parameters)), torch.nan)
    refused: dict[int, str] = {}
    for place, client in enumerate(clients):
        mine = [reply.message for reply in replies if reply.client == client]
        try:
            if not mine:
                raise RefusedError("no reply")
            if len(mine) > 1:
                raise RefusedError(f"{len(mine)} replies to one message")
            rows[place] = _row(mine[0], nodes.get(client), tensors, parameters)
        except RefusedError as error:
            refused[client] = str(error)
    return Received(rows, refused)


def _row(reply: Message | str, node: int | None, tensors: Tensors, parameters: Vector) -> Vector:
    """Return the row [d] of one reply. Raises: ``RefusedError``."""
    if isinstance(reply, str):
        raise RefusedError(reply)
    if reply.has_error():
        raise RefusedError(f"an error reply: {told(reply.error.reason or 'without a reason')}")
    if node is not None and reply.metadata.src_node_id != node:
        raise RefusedError(f"a reply from another node, {reply.metadata.src_node_id}")
    if not reply.has_content():
        raise RefusedError("an empty reply")
    records = list(reply.content.array_records.values())
    if len(records) != 1:
        raise RefusedError(f"{len(records) or 'no'} records of arrays instead of one")
    vector = tensors.vector(records[0], parameters)
    row = vector - parameters
    if not bool(row.isfinite().all()):
        raise RefusedError("its parameters are not finite")
    return row
