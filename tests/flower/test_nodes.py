"""Which node is which client: by what the nodes say, or by the server's own table."""

from typing import Any

import pytest

pytest.importorskip("flwr")

from flwr.app import ConfigRecord, Error, Message, RecordDict
from loopback import Loopback, saying

from fedrobust.errors import ConfigError
from fedrobust.flower.nodes import Nodes

pytestmark = pytest.mark.flower


def nothing(message: Message) -> Message:
    raise AssertionError("nobody trains here")


def said(value: Any) -> Any:
    record = ConfigRecord({} if value is None else {"partition-id": value})
    return lambda message: Message(RecordDict({"config": record}), reply_to=message)


def test_nodes_are_clients_by_the_number_that_they_were_started_with() -> None:
    grid = Loopback({7: saying(2, nothing), 8: saying(0, nothing), 9: saying(1, nothing)})
    nodes = Nodes(3)
    assert nodes.connected(grid, 1) == {0: 8, 1: 9, 2: 7}
    assert len(grid.sent) == 3
    assert nodes.connected(grid, 1) == {0: 8, 1: 9, 2: 7}
    assert len(grid.sent) == 3  # nobody is asked twice
    grid.online.remove(9)
    assert nodes.connected(grid, 1) == {0: 8, 2: 7}
    grid.nodes[5] = saying(1, nothing)  # the client is started again, as another node
    grid.online.add(5)
    assert nodes.connected(grid, 1) == {0: 8, 1: 5, 2: 7}


def test_two_nodes_that_say_the_same_are_not_believed() -> None:
    grid = Loopback({7: saying(0, nothing), 8: saying(1, nothing), 9: saying(1, nothing)})
    nodes = Nodes(2)
    assert nodes.connected(grid, 1) == {0: 7}
    assert nodes.doubts == {1: "the nodes 8 and 9 both say that they are this client"}
    grid.online.remove(9)
    assert nodes.connected(grid, 1) == {0: 7, 1: 8}
    assert nodes.doubts == {}


@pytest.mark.parametrize(
    "answer",
    [
        said(3),
        said(-1),
        said("1"),
        said(1.0),
        said(True),
        said(None),
        lambda m: None,
        lambda m: Message(Error(0), reply_to=m),
        lambda m: Message(RecordDict(), reply_to=m),
    ],
)
def test_a_node_that_says_no_number_is_asked_three_times_and_then_left_alone(answer: Any) -> None:
    grid = Loopback({7: saying(0, nothing), 8: answer})
    nodes = Nodes(3)
    for _ in range(5):
        assert nodes.connected(grid, 0.01) == {0: 7}
    assert len(grid.sent) == 4


def test_the_servers_own_table_asks_nobody() -> None:
    grid = Loopback({7: nothing, 8: nothing})
    nodes = Nodes(3, {0: 8, 1: 7, 2: 6})
    assert nodes.connected(grid, 1) == {0: 8, 1: 7}
    assert grid.sent == []


@pytest.mark.parametrize("table", [{0: 1}, {0: 1, 1: 2, 3: 4}, {1: 1, 2: 2, 3: 3}])
def test_a_table_that_is_not_of_these_clients_is_refused(table: dict[int, int]) -> None:
    with pytest.raises(ConfigError, match="nodes must name the node of each client from 0 to 2"):
        Nodes(3, table)
    with pytest.raises(ConfigError, match="two clients have the same node"):
        Nodes(2, {0: 5, 1: 5})


def test_too_few_clients_are_told_with_what_is_known_of_them() -> None:
    grid = Loopback({7: saying(0, nothing), 8: saying(1, nothing), 9: saying(1, nothing)})
    with pytest.raises(ConfigError, match=r"1 of 3 .* 3 are needed. Missing: \[1, 2\] \(client 1:"):
        Nodes(3).await_clients(grid, 3, 0.0, 1)
    Nodes(3).await_clients(grid, 1, 0.0, 1)
