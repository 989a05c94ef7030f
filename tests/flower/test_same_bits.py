"""A federation with Flower is the simulated one, to the bit, also after a stop."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("flwr")

from demo import demo_config
from flwr.app import Context, Message
from loopback import Loopback, nodes_of

import fedrobust
from fedrobust.config.component import from_config
from fedrobust.experiment import Experiment
from fedrobust.flower import RobustStrategy, client_app, part_of

pytestmark = pytest.mark.flower

CLIENTS = 4
FILES = ("model.safetensors", "best.safetensors", "rounds.jsonl", "config.yaml")
SGD = {"batch_size": 16, "batches": 2, "optimizer": {"name": "sgd", "lr": 0.1}}


def experiment(**changes: Any) -> Experiment:
    base = {
        "malicious": 0,
        "attack": None,
        "rounds": 3,
        "partition": {"name": "dirichlet", "clients": CLIENTS, "alpha": 1.0},
        "client": SGD,
        "aggregator": {"name": "mean"},
        # Eight of a batch's 16 examples are perturbed, so that each client is a unit of its own, as
        # it is where it is alone.
        "execution": {"device": "cpu", "batch": 8, "gradients": "autograd"},
    }
    return from_config(Experiment, demo_config(**(base | changes)))


def grid_of(setting: Experiment) -> Loopback:
    def data(context: Context) -> Any:
        return part_of(setting, context.node_config["partition-id"])

    app = client_app(
        model=setting.model,
        objective=setting.objective,
        client=setting.client,
        data=data,
        execution=setting.execution,
    )
    return Loopback(nodes_of(app, CLIENTS))


def unlike(here: Path, there: Path) -> list[str]:
    """Return the records of two runs that differ; how long they took may."""
    found = [name for name in FILES if (here / name).read_bytes() != (there / name).read_bytes()]
    lines = [
        [
            {k: v for k, v in json.loads(line).items() if k != "seconds"}
            for line in (folder / "metrics.jsonl").read_text().splitlines()
        ]
        for folder in (here, there)
    ]
    assert lines[0]
    return found + (["metrics.jsonl"] if lines[0] != lines[1] else [])


ADAM = {**SGD, "optimizer": {"name": "adam", "lr": 0.01}}
SETTINGS: dict[str, dict[str, Any]] = {
    "mean by the books": {},
    "a rule with a memory": {"aggregator": {"name": "centered-clipping", "radius": 1.0}},
    "a rule that draws, some clients": {
        "aggregator": {"name": "bucketing", "s": 2, "rule": {"name": "median"}},
        "participation": {"name": "sample", "clients": 3},
    },
    "server's optimiser and projection": {
        "server": {"optimizer": {"name": "fed-adam", "tau": 0.01}, "lr": 0.05, "root": 40},
        "aggregator": {"name": "fl-trust"},
    },
    "an epoch with Adam": {
        "client": {**ADAM, "batches": None, "epochs": 1, "batch_size": 128},
        "execution": {"batch": 64, "gradients": "autograd"},
    },
    "Adam's state stays with the client": {"client": {**ADAM, "keep_optimizer": True}},
    "erm": {"objective": {"name": "erm"}, "execution": {"batch": 16, "gradients": "autograd"}},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_federation_has_the_bits_of_the_simulation(tmp_path: Path, name: str) -> None:
    setting = experiment(**SETTINGS[name])
    fedrobust.run(setting, tmp_path / "simulated", progress=False)
    strategy = RobustStrategy(setting, tmp_path / "federated")
    result = strategy.start(grid=grid_of(setting))
    assert unlike(tmp_path / "simulated", tmp_path / "federated") == []
    assert sorted(result.evaluate_metrics_serverapp) == [2, 3]
    assert strategy.run is not None
    assert strategy.run.path == tmp_path / "federated"


class StopError(BaseException):
    """The server is stopped."""


def stopping(grid: Loopback, round: int) -> Loopback:
    """Return the grid; the server stops while it waits for the replies of ``round``."""

    def wrapped(node: Callable[[Message], Any]) -> Callable[[Message], Any]:
        def answer(message: Message) -> Any:
            if message.content["config"].get("server-round") == round:
                raise StopError
            return node(message)

        return answer

    grid.nodes = {name: wrapped(node) for name, node in grid.nodes.items()}
    return grid


@pytest.mark.parametrize("name", ["mean by the books", "a rule with a memory"])
def test_a_server_that_was_stopped_goes_on_with_the_same_bits(tmp_path: Path, name: str) -> None:
    setting = experiment(rounds=5, **SETTINGS[name])
    out = tmp_path / "federated"
    with pytest.raises(StopError):
        RobustStrategy(setting, out).start(grid=stopping(grid_of(setting), 4))
    assert not (out / "summary.json").exists()
    grid = grid_of(setting)
    RobustStrategy(setting, out).start(grid=grid)
    rounds = [m.content["config"].get("server-round") for m in grid.sent]
    assert {number for number in rounds if number} == {3, 4, 5}  # round 3 was not saved
    fedrobust.run(setting, tmp_path / "simulated", progress=False)
    assert unlike(tmp_path / "simulated", out) == []
    again = grid_of(setting)
    RobustStrategy(setting, out).start(grid=again)
    assert again.sent == []  # a finished run is read


def test_a_client_with_a_later_state_begins_anew(tmp_path: Path) -> None:
    """The server lost rounds that a client has played, with its optimiser's state."""
    setting = experiment(**SETTINGS["Adam's state stays with the client"])
    grid = grid_of(setting)
    RobustStrategy(setting).start(grid=grid)
    RobustStrategy(setting, tmp_path / "again").start(grid=grid)
    fedrobust.run(setting, tmp_path / "simulated", progress=False)
    assert unlike(tmp_path / "simulated", tmp_path / "again") == []


def test_the_page_of_a_federation(tmp_path: Path) -> None:
    setting = experiment()
    out = tmp_path / "federated"
    RobustStrategy(setting, out).start(grid=grid_of(setting))
    run = fedrobust.open(out)
    assert run.experiment.partition == setting.partition
    assert run.path is not None
    assert "Mean" in run.report().read_text("utf-8")
