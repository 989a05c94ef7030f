"""Every objective: as a config value, and in a round."""

import pytest
import torch
from component_table import OBJECTIVES
from demo import demo_config
from pydantic import TypeAdapter
from torch import nn

from fedrobust import objectives
from fedrobust.config.component import from_config, to_config
from fedrobust.experiment import Experiment
from fedrobust.objectives import AnyObjective
from fedrobust.runs.prepare import prepare

every_objective = pytest.mark.parametrize("name", OBJECTIVES)


def test_the_table_has_every_objective() -> None:
    assert list(OBJECTIVES) == [member.__dict__["name"] for member in objectives.OBJECTIVES]


@every_objective
def test_it_perturbs_the_first_examples_and_keeps_their_kind(name: str) -> None:
    objective = TypeAdapter(AnyObjective).validate_python(OBJECTIVES[name])
    assert TypeAdapter(AnyObjective).validate_python(to_config(objective)) == objective
    assert 0 <= objective.perturbed(7, 1) <= 7
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    x, y = torch.rand(5, 1, 2, 2), torch.arange(5) % 3
    before = x.clone()
    found = []
    for _ in range(2):
        start = objective.draw(x, torch.Generator().manual_seed(0))
        found.append(objective.maximize(model, x, y, lambda start=start: start))
    assert torch.equal(x, before)
    assert found[0].shape == x.shape
    assert found[0].isfinite().all()
    assert torch.equal(*found)


@every_objective
def test_its_local_training_repeats(name: str) -> None:
    config = demo_config(objective=OBJECTIVES[name], malicious=0, attack=None)
    rows = []
    for _ in range(2):
        run = prepare(from_config(Experiment, config))
        rows.append(run.federation.local.updates(run.start, {}, (0, 1), run.streams, 1))
    assert rows[0].shape == (2, run.layout.size)
    assert rows[0].isfinite().all()
    assert rows[0].any(dim=1).all()
    assert torch.equal(*rows)
