"""Rounds on Ray whose updates stay with the workers: the server fetches blocks of coordinates."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from demo import demo_config
from ray_cluster import add_node
from torch import Tensor

from fedrobust import run
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


def experiment(block: int | None = None, **changes: Any) -> Experiment:
    """A run of two rounds; on Ray, in blocks, where ``block`` is given."""
    config = demo_config(**({"rounds": 2} | changes))
    config["evaluation"] |= {"every": 2, "samples": 20}
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
    "krum": (377, SAMPLED | {"aggregator": {"name": "krum", "f": 2}}),
    "bulyan": (300, {"aggregator": {"name": "bulyan", "f": 2}}),
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


def explodes() -> Any:
    """Return an objective with which the training of some clients overflows.

    The class is within a function, so that it is sent whole: no worker can import this module.
    """

    @dataclass(frozen=True)
    class Explodes:
        def perturbed(self, examples: int, round: int) -> int:
            return 0

        def draw(self, x: Tensor, generator: Any) -> None:
            return None

        def maximize(self, model: Any, x: Tensor, y: Tensor, draw: Any, *, batch: int) -> Tensor:
            return x

        def loss(self, model: Any, x: Tensor, perturbed: Any, y: Tensor, context: Any) -> Tensor:
            loss = torch.nn.functional.cross_entropy(model(x), y)
            return loss * (torch.inf if int((y == 3).sum()) >= 3 else 1.0)

    return Explodes()


class Watching:
    """Keeps which clients the server dropped in each round."""

    def __init__(self) -> None:
        self.dropped = list[tuple[int, ...]]()

    def on_round(self, log: Any) -> None:
        self.dropped.append(log.dropped)


@pytest.mark.parametrize(
    "parts",
    [{"attack": SendsNaN()}, {"malicious": 0, "attack": None, "objective": explodes()}],
    ids=["sent", "trained"],
)
def test_rows_that_are_not_finite_are_dropped_as_on_local(
    parts: dict[str, Any], cluster: Any
) -> None:
    watched = {block: Watching() for block in (None, 300)}
    here, there = (
        run(replace(experiment(block), **parts), callbacks=[watching])
        for block, watching in watched.items()
    )
    same(here, there)
    assert any(watched[None].dropped)
    assert watched[None].dropped == watched[300].dropped


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
    with pytest.raises(ConfigError, match=r"more than 1,000; use \d+ or more"):
        run(experiment(1), out=tmp_path / "cut")
    assert not [path for path in tmp_path.rglob("*") if path.name == "config.yaml"]


def test_block_goes_with_ray() -> None:
    config = demo_config()
    config["execution"]["block"] = 300
    with pytest.raises(ConfigError, match=r"execution: block goes with backend: ray"):
        from_config(Experiment, config)


def test_a_machine_that_is_lost_while_blocks_are_fetched_costs_no_bit(
    cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray computes what lay there again, from what the round still holds."""
    import ray
    from ray.experimental import get_object_locations

    lost = list[str]()
    asked = ray_columns.RayColumns.blocks

    def blocks(self: Any, rows: Any = None) -> Iterator[Tensor]:
        for b, block in enumerate(asked(self, rows)):
            yield block
            if b == 0 and not lost and rows is not None and self.n == 11:
                refs = [part.blocks[-1] for part in self.parts]
                ray.wait(refs, num_returns=len(refs), fetch_local=False)
                places = [each["node_ids"] for each in get_object_locations(refs).values()]
                alone = [ids[0] for ids in places if len(ids) == 1]
                node = next(each for each in cluster.worker_nodes if each.node_id in alone)
                lost.append(node.node_id)
                cluster.remove_node(node, allow_graceful=False)

    wide = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(64, 2000), torch.nn.ReLU(), torch.nn.Linear(2000, 10)
    )
    changes = {"attack": None, "malicious": 0}
    here = run(replace(experiment(**changes), model=wide))
    monkeypatch.setattr(ray_columns.RayColumns, "blocks", blocks)
    try:
        there = run(replace(experiment(40_000, **changes), model=wide))
    finally:
        add_node(cluster)
    assert lost
    same(here, there)
