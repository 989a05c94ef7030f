"""A learned attack against a network of a user's own that its float64 arithmetic does not suit."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from fedrobust import run
from fedrobust.experiment import load

pytest.importorskip("stable_baselines3")
CONFIG = Path(__file__).parents[3] / "experiments" / "drfl" / "ring-learned-smoke.yaml"


class Casting(nn.Module):
    """Casts its input to float32, as many networks do."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x.float())


class Exact(Casting):
    """The same network without the cast."""

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


@pytest.mark.slow
def test_the_run_goes_on_and_the_trouble_is_told() -> None:
    few = ["rounds=9", "attack.wait=3", "attack.observe=3", "attack.horizon=1", "attack.hold=1"]
    few += ["attack.training={algorithm: constant, steps: 4}", "evaluation.every=9"]
    few += ["attack.encoding={name: basis, directions: [own]}", "attack.samples=20"]
    few += ["attack.inversion.iterations=4", "data.n=3000", "evaluation.wasserstein=null"]
    few += ["objective=erm", "attack.reward=loss"]
    experiment = load(CONFIG, few)
    casting, exact = (run(replace(experiment, model=kind())) for kind in (Casting, Exact))
    told = casting.summary["attack"]["troubles"]
    assert any(
        "a step was not inverted: the model does not take examples torch.float64" in text
        for text in told
    )
    assert any("the simulation has the attacker's own data" in text for text in told)
    assert not any("inverted" in text for text in exact.summary["attack"]["troubles"])
    assert casting.summary["attack"]["acts_from"] == exact.summary["attack"]["acts_from"]
    assert any("not inverted" in text for text in casting.summary["troubles"])
