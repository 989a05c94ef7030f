"""Which node is which client."""

import logging
import time
from collections.abc import Mapping

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from fedrobust.errors import ConfigError
from fedrobust.flower.exchange import exchanged, told
from fedrobust.flower.words import CONFIG, PARTITION, WHO

LOG = logging.getLogger("flwr")
_ASKED = 3
"""How often a node is asked for its number before it is left alone."""
_PATIENCE = 60.0
"""The most seconds to wait for the numbers, which take no computation."""


class Nodes:
    """The nodes of the clients 0 to ``clients`` - 1.

    Each node is asked once for the number with which it was started. Where two nodes give the same
    number, none of them is believed. Who cannot trust the nodes to say it gives the table
    ``known``, from clients to nodes; then nobody is asked.
    """

    def __init__(self, clients: int, known: Mapping[int, int] | None = None) -> None:
        if known is not None and sorted(known) != list(range(clients)):
            raise ConfigError(
                f"nodes must name the node of each client from 0 to {clients - 1}, and no other"
            )
        if known is not None and len(set(known.values())) < clients:
            raise ConfigError("nodes: two clients have the same node; each needs one of its own")
        self._clients, self._known = clients, known
        self._said: dict[int, int] = {}
        self._asked: dict[int, int] = {}
        self.doubts: dict[int, str] = {}
        """Why a client has no node at the moment, where more is known than that it is absent."""

    def connected(self, grid: Grid, timeout: float) -> dict[int, int]:
        """Return the node of each client that is connected now."""
        online = set(grid.get_node_ids())
        self.doubts = {}
        if self._known is not None:
            return {client: node for client, node in self._known.items() if node in online}
        unknown = [n for n in online - self._said.keys() if self._asked.get(n, 0) < _ASKED]
        self._ask(grid, sorted(unknown), min(timeout, _PATIENCE))
        found: dict[int, list[int]] = {}
        for node in sorted(online & self._said.keys()):
            found.setdefault(self._said[node], []).append(node)
        for client, nodes in found.items():
            if len(nodes) > 1:
                listed = " and ".join(map(str, nodes))
                self.doubts[client] = f"the nodes {listed} both say that they are this client"
        return {client: nodes[0] for client, nodes in found.items() if len(nodes) == 1}

    def await_clients(self, grid: Grid, least: int, wait: float, timeout: float) -> None:
        """Wait until ``least`` clients are connected, for ``wait`` seconds at most.

        Raises: ``ConfigError`` where there are fewer then.
        """
        end, told_of = time.monotonic() + wait, -1
        while len(found := self.connected(grid, timeout)) < least:
            if time.monotonic() > end:
                missing = [c for c in range(self._clients) if c not in found]
                doubts = "; ".join(f"client {c}: {why}" for c, why in self.doubts.items())
                raise ConfigError(
                    f"{len(found)} of {self._clients} clients are connected after {wait:g} "
                    f"seconds, and {least} are needed. Missing: {missing[:10]}"
                    f"{f' ({doubts})' if doubts else ''}. Start their SuperNodes with "
                    "--node-config 'partition-id=N', or lower minimum"
                )
            if len(found) != told_of:
                LOG.info("waiting for clients: %d connected, %d needed", len(found), least)
                told_of = len(found)
            time.sleep(1)

    def _ask(self, grid: Grid, nodes: list[int], timeout: float) -> None:
        """Ask ``nodes`` for their numbers, and keep what fits."""
        question = RecordDict({CONFIG: ConfigRecord()})
        messages = {node: Message(question, node, WHO, ttl=timeout) for node in nodes}
        for node, reply in exchanged(grid, messages, timeout):
            self._asked[node] = self._asked.get(node, 0) + 1
            if isinstance(reply, str) or reply.has_error():
                why = reply if isinstance(reply, str) else reply.error.reason
                LOG.warning("node %d does not say which client it is: %s", node, told(why))
                continue
            said = [r.get(PARTITION) for r in reply.content.config_records.values()]
            if len(said) == 1 and type(said[0]) is int and 0 <= said[0] < self._clients:
                self._said[node] = said[0]
                LOG.info("node %d is client %d", node, said[0])
            else:
                LOG.warning(
                    "node %d says that it is client %s, and there are clients 0 to %d",
                    node,
                    told(said),
                    self._clients - 1,
                )
