"""A config names a class of torch.nn.Module, or a function that makes one; the seed decides it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from demo import demo_config
from torch import Tensor, nn

from fedrobust import run
from fedrobust.config.component import from_config, to_config
from fedrobust.errors import ConfigError
from fedrobust.experiment import Experiment
from fedrobust.runs.prepare import prepare

CODE = """
from torch import nn


class Net(nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.inner = nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.Linear(width, 10))

    def forward(self, x):
        return self.inner(x)


def net(width):
    return Net(width)
"""


@pytest.fixture(autouse=True)
def _networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "the_networks.py").write_text(CODE)
    monkeypatch.syspath_prepend(str(tmp_path))


def experiment(**changes: Any) -> Experiment:
    quick = {"objective": {"name": "erm"}, "rounds": 2, "malicious": 0, "attack": None}
    return from_config(Experiment, demo_config(**quick | changes))


@pytest.mark.parametrize("name", ["the_networks:Net", "the_networks:net"])
def test_the_seed_decides_the_initial_parameters(name: str) -> None:
    model = {"name": name, "width": 3}
    torch.manual_seed(0)
    first = prepare(experiment(model=model)).start
    torch.manual_seed(1)
    assert torch.equal(prepare(experiment(model=model)).start, first)
    assert len(first) == 65 * 3 + 4 * 10
    other = prepare(experiment(model=model, seed=5)).start
    assert not torch.equal(other, first)


def test_a_run_goes_on_from_its_own_config(tmp_path: Path) -> None:
    given = experiment(model={"name": "the_networks:Net", "width": 3})
    again = from_config(Experiment, to_config(given))
    assert again == given
    whole = run(again)
    run(given, tmp_path / "run")
    config = (tmp_path / "run" / "config.yaml").read_text()
    assert "opaque" not in config
    resumed = run(again, tmp_path / "run", resume=True)
    assert torch.equal(resumed.state.parameters, whole.state.parameters)


def test_wrong_arguments_are_told_where_the_config_is_read() -> None:
    with pytest.raises(ConfigError, match=r"unknown argument 'widht'.*did you mean 'width'"):
        experiment(model={"name": "the_networks:Net", "widht": 3})


def test_a_frozen_part_that_changed_is_other_initial_parameters() -> None:
    """Such as a pretrained backbone, loaded from a file that is another one by now."""

    class Frozen(nn.Module):
        def __init__(self, value: float) -> None:
            super().__init__()
            self.backbone, self.head = nn.Linear(64, 8), nn.Linear(8, 10)
            with torch.no_grad():
                for parameter in self.parameters():
                    parameter.fill_(0.1)
                self.backbone.weight.fill_(value)
            self.backbone.requires_grad_(False)

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.head(self.backbone(x.flatten(1)))
            return logits

    first, again, other = (prepare(experiment(model=Frozen(v))).digest for v in (1.0, 1.0, 2.0))
    assert first == again != other
