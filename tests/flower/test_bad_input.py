"""What no real federation can play is refused with one message, before anybody is asked."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("flwr")

from demo import demo_config
from flwr.app import ArrayRecord, ConfigRecord
from loopback import Loopback
from torch import nn

from fedrobust.config.component import from_config
from fedrobust.errors import ConfigError
from fedrobust.experiment import Experiment
from fedrobust.flower import RobustStrategy, part_of

pytestmark = pytest.mark.flower


def experiment(**changes: Any) -> Experiment:
    base = {"malicious": 0, "attack": None, "aggregator": {"name": "median"}}
    remote = {"partition": {"name": "remote", "clients": 3}}
    return from_config(Experiment, demo_config(**(base | remote | changes)))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {
                "malicious": 1,
                "attack": {"name": "sign-flip", "scale": 1.0},
                "partition": {"name": "iid", "clients": 3},
            },
            "malicious: 1 does not fit real clients",
        ),
        ({"batch_norm": "local"}, "batch_norm: local does not fit real clients"),
        ({"execution": {"gradients": "compiled"}}, "execution.gradients: compiled does not fit"),
    ],
)
def test_a_simulations_settings_are_refused(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        RobustStrategy(experiment(**changes)).start(grid=Loopback({}))


def test_a_rule_for_more_clients_is_refused_when_the_experiment_is_made() -> None:
    with pytest.raises(ConfigError, match="Krum needs n >= 2f"):
        experiment(aggregator={"name": "krum", "f": 1})


def test_a_model_whose_buffers_change_is_refused() -> None:
    config = demo_config(malicious=0, attack=None, aggregator={"name": "median"})
    made = from_config(Experiment, config | {"partition": {"name": "remote", "clients": 3}})
    network = nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(64, 10))
    with pytest.raises(ConfigError, match="Use GroupNorm"):
        RobustStrategy(replace(made, model=network)).start(grid=Loopback({}))
    halves = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).to(torch.bfloat16)
    with pytest.raises(ConfigError, match="bfloat16"):
        RobustStrategy(replace(made, model=halves), wait=0.01).start(grid=Loopback({}))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"experiment": 7}, "takes an Experiment"),
        ({"experiment": "none.yaml"}, "none.yaml"),
        ({"timeout": 0}, "timeout must be seconds above 0"),
        ({"wait": True}, "wait must be seconds above 0"),
        ({"minimum": 0}, "minimum must be a number of clients"),
    ],
)
def test_arguments_of_the_strategy(arguments: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        RobustStrategy(**({"experiment": experiment()} | arguments))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"initial_arrays": ArrayRecord()}, "initial_arrays has no place here"),
        ({"evaluate_fn": print}, "evaluate_fn has no place here"),
        (
            {"train_config": ConfigRecord({"server-round": 1})},
            "server-round is set by the strategy",
        ),
        ({"num_rounds": 0}, "rounds"),
    ],
)
def test_arguments_of_start(arguments: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        RobustStrategy(experiment()).start(grid=Loopback({}), **arguments)


def test_clients_that_do_not_come(tmp_path: Path) -> None:
    strategy = RobustStrategy(experiment(), tmp_path / "run", wait=0.01)
    with pytest.raises(ConfigError, match=r"0 of 3 clients are connected after 0\.01 seconds"):
        strategy.start(grid=Loopback({}))


def test_a_part_of_data_that_are_elsewhere() -> None:
    with pytest.raises(ConfigError, match="each client loads data of its own"):
        part_of(experiment(), 0)
    shared = experiment(partition={"name": "iid", "clients": 3})
    assert len(part_of(shared, 2)) == 379
    with pytest.raises(ConfigError, match="client must be 0 to 2; it is 3"):
        part_of(shared, 3)


def test_rounds_of_a_loop_out_of_order_or_of_another_model() -> None:
    strategy = RobustStrategy(experiment())
    with pytest.raises(ConfigError, match="before configure_train"):
        strategy.aggregate_train(1, [])
    with pytest.raises(ConfigError, match="round 2 cannot follow round 0"):
        strategy.configure_train(2, ArrayRecord(), ConfigRecord(), Loopback({}))
    with pytest.raises(ConfigError, match="do not fit the model: it lacks"):
        strategy.configure_train(1, ArrayRecord(), ConfigRecord(), Loopback({}))
    assert strategy.configure_evaluate(1, ArrayRecord(), ConfigRecord(), Loopback({})) == []
    assert strategy.aggregate_evaluate(1, []) is None
