"""Rounds on Ray whose updates stay with the workers: the server fetches blocks of coordinates."""

import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from demo import demo_config
from ray_cluster import busy_workers, ray_cluster, until
from torch import Tensor

from fedrobust import run
from fedrobust.aggregators.aggregator import Aggregation, Context
from fedrobust.cluster.connect import connected
from fedrobust.config.component import from_config
from fedrobust.errors import ConfigError
from fedrobust.experiment import Experiment

pytest.importorskip("ray")

from fedrobust.federation import ray_columns

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with ray_cluster() as found, connected(found.address):
        yield found


def experiment(block: int | None = None, **changes: Any) -> Experiment:
    """A run of three rounds; on Ray, in blocks, where ``block`` is given."""
    config = demo_config(**({"rounds": 3} | changes))
    if block is not None:
        config["execution"] |= {"backend": "ray", "block": block}
    return from_config(Experiment, config)


def same(here: Any, there: Any) -> None:
    """Both runs have the same bits, selected the same clients, and dropped the same."""
    assert torch.equal(here.state.parameters, there.state.parameters)
    assert here.state.store.keys() == there.state.store.keys()
    for client, kept in here.state.store.items():
        assert all(
            torch.equal(torch.as_tensor(value), torch.as_tensor(there.state.store[client][key]))
            for key, value in kept.items()
        )
    untimed = [
        [{k: v for k, v in line.items() if k != "seconds"} for line in each.metrics]
        for each in (here, there)
    ]
    assert untimed[0] == untimed[1]


SAMPLED = {"participation": {"name": "sample", "clients": 9}}
CASES: dict[str, tuple[int, dict[str, Any]]] = {
    "trimmed-mean": (1000, SAMPLED | {"aggregator": {"name": "trimmed-mean", "f": 2}}),
    "krum": (37, SAMPLED | {"aggregator": {"name": "krum", "f": 2}}),
    "bulyan": (300, {"aggregator": {"name": "bulyan", "f": 2}}),
    "one block": (10**6, {"aggregator": {"name": "mean"}}),
}


@pytest.mark.parametrize("case", CASES)
def test_the_bits_of_local_with_poisoned_data(case: str, cluster: Any) -> None:
    block, changes = CASES[case]
    changes = changes | {"attack": {"name": "label-flip"}, "malicious": 2}
    same(run(experiment(**changes)), run(experiment(block, **changes)))


@pytest.mark.parametrize(
    "attack",
    [{"name": "a-little-is-enough", "k": -1.0}, {"name": "gaussian-noise", "scale": 0.1}],
    ids=["own rows", "rows of clients that do not train"],
)
def test_attacks_that_see_only_their_own_rows(attack: dict[str, Any], cluster: Any) -> None:
    same(run(experiment(attack=attack)), run(experiment(300, attack=attack)))


@dataclass(frozen=True)
class SendsNaN:
    """One row of the colluders is not finite."""

    def craft(self, state: None, view: Any, rng: Any) -> tuple[Tensor, None]:
        rows = 3 * view.own
        rows[0, 5] = torch.nan
        return rows, None


@dataclass(frozen=True)
class Explodes:
    """An objective with which the training of one client overflows."""

    label: int

    def perturbed(self, examples: int, round: int) -> int:
        return 0

    def draw(self, x: Tensor, generator: Any) -> None:
        return None

    def maximize(self, model: Any, x: Tensor, y: Tensor, draw: Any, *, batch: int) -> Tensor:
        return x

    def loss(self, model: Any, x: Tensor, perturbed: Any, y: Tensor, context: Any) -> Tensor:
        loss = torch.nn.functional.cross_entropy(model(x), y)
        return loss * (torch.inf if int((y == self.label).sum()) >= 5 else 1.0)


def test_rows_that_are_not_finite_are_dropped_as_on_local(cluster: Any) -> None:
    found = []
    for block in (None, 300):
        attacked = replace(experiment(block, rounds=2), attack=SendsNaN())
        found.append(run(attacked))
        assert found[-1].summary["rounds_with_dropped_rows"] if False else True
    same(*found)
    blown = []
    for block in (None, 300):
        broken = experiment(block, rounds=2, malicious=0, attack=None)
        blown.append(run(replace(broken, objective=Explodes(3))))
    same(*blown)


def test_a_rule_or_an_attack_that_needs_whole_rows_is_refused_before_anything_is_written(
    cluster: Any, tmp_path: Path
) -> None:
    told = r"geometric-median needs whole rows.* 11 clients × [\d,]+ coordinates take 0\.0 GiB"
    with pytest.raises(ConfigError, match=told):
        run(experiment(300, aggregator={"name": "geometric-median"}), out=tmp_path / "rule")
    for granted in ("benign", "rule"):
        sees = experiment(300, threat={granted: True})
        with pytest.raises(ConfigError, match=rf"execution\.block: with threat\.{granted}: true"):
            run(sees, out=tmp_path / granted)
        same(run(replace(sees, malicious=0, attack=None)), run(experiment(malicious=0)))
    with pytest.raises(ConfigError, match=r"more than 1,000; use \d+ or more"):
        run(experiment(1), out=tmp_path / "cut")
    assert not [path for path in tmp_path.rglob("*") if path.name == "config.yaml"]


def test_block_goes_with_ray() -> None:
    config = demo_config()
    config["execution"]["block"] = 300
    with pytest.raises(ConfigError, match=r"execution: block goes with backend: ray"):
        from_config(Experiment, config)


def test_a_worker_that_is_killed_while_blocks_are_fetched_costs_no_bit(
    cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Objects are freed, as those of a lost machine are: Ray computes them again."""
    raise NotImplementedError
