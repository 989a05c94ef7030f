"""What a run says of its own figures, and what hostile rows cannot do to it."""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from fedrobust import run
from fedrobust.aggregators import Aggregation, Context, SmallestMaximumEigenvalueAveraging
from fedrobust.aggregators.aggregator import NoAnswerError
from fedrobust.attacks import InnerProduct, Optimized
from fedrobust.errors import ConfigError
from fedrobust.experiment import Experiment
from fedrobust.federation.round import run_round
from fedrobust.federation.server import aggregate
from fedrobust.runs.prepare import prepare
from fedrobust.runs.summary import certificate_warnings
from fedrobust.runs.tally import Tally

SOUND: dict[str, Any] = {"gamma": 2.0, "rho": 0.04, "curvature": 3.0, "residual": 1e-4}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"curvature": 4.6}, r"gamma = 2 is too small .* up to 4.6 > 2·gamma"),
        ({"residual": 0.3}, r"left a residual of 0.3"),
        ({"rho": None}, r"not finite"),
    ],
)
def test_a_doubtful_certificate_is_said(changes: dict[str, Any], message: str) -> None:
    (trouble,) = certificate_warnings(SOUND | changes)
    assert re.search(message, trouble)
    assert certificate_warnings(SOUND) == certificate_warnings(None) == []


def test_one_huge_entry_does_not_end_smea() -> None:
    rows = torch.randn(7, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rows[2, 1] = 9e153
    outcome = aggregate(SmallestMaximumEigenvalueAveraging(1), rows, Context())
    assert outcome.kept is not None
    assert outcome.kept.tolist() == [0, 1, 3, 4, 5, 6]


def test_a_search_goes_on_where_the_rule_has_no_answer(tiny: Callable[..., Experiment]) -> None:
    class Silent:
        def aggregate(self, updates: torch.Tensor, context: Context) -> Aggregation:
            raise NoAnswerError("too many sets nearly win")

    attack = Optimized(attack=InnerProduct(epsilon=1.0), grid=3, refine=0)
    threat = {"benign": True, "rule": True, "clients": True}
    ready = prepare(tiny(attack=attack, threat=threat, aggregator=Silent()))
    _, log = run_round(ready.federation.start(ready.start), ready.federation, ready.streams)
    assert log.outcome.reason == "too many sets nearly win"


def test_a_step_that_overflows_leaves_the_rules_memory_alone(
    tiny: Callable[..., Experiment],
) -> None:
    class Overflowing:
        def aggregate(self, updates: torch.Tensor, context: Context) -> Aggregation:
            return Aggregation(torch.full_like(updates[0], 3e38), memory=torch.ones(1))

    ready = prepare(tiny(aggregator=Overflowing(), server={"lr": 10.0}))
    state = replace(ready.federation.start(ready.start), memory=torch.zeros(1))
    after, log = run_round(state, ready.federation, ready.streams)
    assert log.outcome.vector is None
    assert torch.equal(after.memory, torch.zeros(1))  # type: ignore[call-overload]


def test_labels_that_the_data_do_not_have_are_the_users_mistake(
    tiny: Callable[..., Experiment],
) -> None:
    with pytest.raises(ConfigError, match="labels go from 0 to 9"):
        run(tiny(attack={"name": "label-flip", "source": 11, "target": 0}))


def line(round: int, dropped: list[int], reason: str | None = None) -> dict[str, Any]:
    return {
        "round": round,
        "dropped": dropped,
        "malicious": [],
        "kept": None,
        "applied": reason is None,
        "reason": reason,
    }


def test_refused_rows_and_rounds_without_a_step_are_told_shortly() -> None:
    refused = "not finite, or no dense rows [d] of real numbers"
    assert Tally.of([line(1, []), line(2, [4])]).troubles() == [
        f"rows of client 4 were refused in 1 round, the first 2: they were {refused}"
    ]
    (trouble,) = Tally.of([line(3, [7, 5]), line(4, list(range(3000)))]).troubles()
    assert trouble == (
        "rows of clients 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2990 more were refused in 2 rounds, "
        f"the first 3: they were {refused}"
    )
    assert Tally.of([line(1, []), line(2, [], "1 client took part: too few")]).troubles() == [
        "1 round made no step, the first 2: 1 client took part: too few"
    ]


def test_a_round_with_too_few_clients_is_not_blamed_on_refused_rows(
    tiny: Callable[..., Experiment],
) -> None:
    class Few:
        def size(self, clients: int) -> int:
            return clients

        def choose(self, clients: int, generator: torch.Generator) -> tuple[int, ...]:
            return (0, 1, 3)

    result = run(
        tiny(
            objective={"name": "erm"},
            participation=Few(),
            rounds=2,
            malicious=0,
            aggregator={"name": "krum", "f": 2},
        )
    )
    assert result.summary.troubles == (
        "2 rounds made no step, the first 1: 3 clients took part: "
        "Krum needs n >= 2f + 3: n = 3, f = 2 needs 7",
    )
