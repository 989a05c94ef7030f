"""Distillation in whole runs: without collusion, with sampled clients, and through a kill."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from run_contents import contents

from fedrobust import run
from fedrobust.errors import ConfigError
from fedrobust.experiment import Experiment
from fedrobust.progress import Progress


def test_one_vector_needs_collusion(tiny: Callable[..., Experiment]) -> None:
    attack = {"name": "distillation", "shared": True}
    with pytest.raises(ConfigError, match="distillation needs the colluders' honest updates"):
        tiny(attack=attack, threat={"colluders": False})
    apart = run(tiny(attack=attack | {"shared": False}, threat={"colluders": False}, rounds=2))
    assert apart.summary["attack"]["rounds"] == 2


class KilledError(Exception):
    """Stands for the end of the process."""


@pytest.mark.slow
@pytest.mark.parametrize("shared", [True, False])
def test_it_goes_on_after_a_kill_where_clients_are_sampled(
    shared: bool, tmp_path: Path, tiny: Callable[..., Experiment], monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = tiny(
        objective={"name": "erm"},
        attack={"name": "distillation", "shared": shared, "start": 3},
        participation={"name": "sample", "clients": 7},
        aggregator={"name": "krum", "f": 2},
        malicious=5,
    )
    straight = run(experiment, tmp_path / "straight")

    def die(log: Any) -> None:
        if log.round == 5:
            raise KilledError

    monkeypatch.setattr("fedrobust.runs.loop.SAVE_EVERY", 0.0)
    with pytest.raises(KilledError):
        run(experiment, tmp_path / "killed", progress=Progress(played=die))
    resumed = run(experiment, tmp_path / "killed", resume=True)
    assert contents(tmp_path / "killed") == contents(tmp_path / "straight")
    assert resumed.state.attack == straight.state.attack
    assert resumed.summary["attack"]["layer"] == "0"
    assert resumed.summary["attack"]["rounds"] <= 4
