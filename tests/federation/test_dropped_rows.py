"""In a round whose benign rows the server drops in part, an attacker tries the rule that is left.

The server lowers f by the rows that it drops. An attacker that sees the benign rows sees that.
"""

from typing import Any

import pytest
import torch
from torch import nn

from fedrobust import Streams, run_round
from fedrobust.aggregators import Krum, MeanAroundMedian, MultiKrum, TrimmedMean
from fedrobust.attacks import InnerProduct, Optimized, SignFlip
from fedrobust.clients.client import Client
from fedrobust.clients.optimizers import Sgd
from fedrobust.federation.attack import Requirements
from fedrobust.federation.backends import LOCAL, Received
from fedrobust.federation.one_call import on_rows
from fedrobust.federation.state import Federation
from fedrobust.federation.threat import View


class Trying:
    """Asks the rule for its answer on the rows of the round, and sends honest updates."""

    requires = Requirements(knowledge={"benign", "rule"})

    def __init__(self) -> None:
        self.answer = torch.empty(0)

    def craft(self, state: Any, view: View, rng: torch.Generator) -> tuple[torch.Tensor, Any]:
        assert view.benign is not None
        assert view.rule is not None
        self.answer = view.rule(torch.cat([view.own, view.benign]))
        return view.own, state


def federation(rule: Any, attack: Any, clients: int, blown: int = 1) -> Federation:
    """The training of the last ``blown`` clients blows up."""
    draw = torch.Generator().manual_seed(0)
    parts = [(torch.rand(8, 4, generator=draw), torch.arange(8) % 2) for _ in range(clients)]
    parts[-blown:] = [(x * 3e38, y) for x, y in parts[-blown:]]
    torch.manual_seed(0)
    return Federation.of(
        nn.Linear(4, 2),
        parts,
        aggregator=rule,
        attack=attack,
        malicious=1,
        threat={"benign": True, "rule": True},
        client=Client(batches=1, optimizer=Sgd(lr=1e3)),
    )


@pytest.mark.parametrize(
    "rule", [TrimmedMean(f=2), MeanAroundMedian(f=2), MultiKrum(f=1), Krum(f=1)], ids=repr
)
def test_the_rule_that_is_tried_is_the_one_that_is_applied(rule: Any) -> None:
    attack = Trying()
    ready = federation(rule, attack, 8)
    _, log = run_round(ready.start(), ready, Streams(0))
    assert log.dropped == (7,)
    assert log.outcome.vector is not None
    assert torch.equal(attack.answer, log.outcome.vector)


def test_a_search_goes_on_where_the_server_does() -> None:
    """Krum takes four rows with f = 0, not with f = 1."""
    ready = federation(Krum(f=1), Optimized(attack=InnerProduct(epsilon=1.0)), 5)
    _, log = run_round(ready.start(), ready, Streams(0))
    assert log.dropped == (4,)
    assert log.outcome.vector is not None


def test_a_search_gives_up_where_the_server_makes_no_step() -> None:
    """Two rows are left, which are too few for any Krum. The run goes on."""
    ready = federation(Krum(f=0), Optimized(attack=InnerProduct(epsilon=1.0)), 5, blown=3)
    _, log = run_round(ready.start(), ready, Streams(0))
    assert log.dropped == (2, 3, 4)
    assert log.outcome.vector is None


class Away:
    """A backend to which two clients are not connected: a malicious one and a benign one."""

    def local_updates(
        self, federation: Any, state: Any, clients: Any, rng: Any, poison: Any
    ) -> Received:
        rows = LOCAL.local_updates(federation, state, clients, rng, poison)
        rows[[clients.index(0), clients.index(5)]] = torch.nan
        return Received(rows, dict.fromkeys((0, 5), "not connected"))


@pytest.mark.parametrize(
    ("attack", "refused"), [(InnerProduct(epsilon=1.0), (5,)), (SignFlip(scale=1.0), (0, 5))]
)
def test_a_client_for_which_an_attack_sends_a_row_is_not_told_as_refused(
    attack: Any, refused: tuple[int, ...]
) -> None:
    """One reverses what the benign clients send, the other what its own client would send."""
    ready = federation(TrimmedMean(f=2), attack, 8)
    _, log = run_round(ready.start(), ready, Streams(0), backend=Away())
    assert log.dropped == (*refused, 7)  # the training of client 7 blows up
    assert log.refused == dict.fromkeys(refused, "not connected")
    assert log.reasons == {**log.refused, 7: "its row is not finite"}


def test_one_call_drops_the_rows_that_a_server_would_drop() -> None:
    rows = torch.randn(8, 40, generator=torch.Generator().manual_seed(0))
    rows[7, 3] = torch.nan
    attack = Trying()
    on_rows(attack, rows, malicious=2, rule=TrimmedMean(f=2))
    assert torch.equal(attack.answer, TrimmedMean(f=1)(rows[:7]))
