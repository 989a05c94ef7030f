"""A name that becomes a folder leads nowhere else, in configs and in records."""

from pathlib import Path
from typing import Any

import pytest
from demo import demo_config
from typer.testing import CliRunner

from fedrobust.cli import app
from fedrobust.errors import ConfigError
from fedrobust.experiment import load
from fedrobust.runs.grid import load_sweep
from hostile.folder import put


@pytest.mark.parametrize("name", ["../../../escaped", "/escaped", "..", "a/b", "a\n", "a\0", ""])
@pytest.mark.parametrize("grid", [[], {"seed": [0]}])
def test_the_name_of_a_sweep_is_one_of_a_folder(name: str, grid: Any, tmp_path: Path) -> None:
    path = put(tmp_path / "sweep.yaml", demo_config(name=name, grid=grid))
    with pytest.raises(ConfigError, match=r"name: .* cannot name a folder"):
        load_sweep(path)
    with pytest.raises(ConfigError, match=r"^.*\n?name: "):
        load(put(tmp_path / "run.yaml", demo_config(name=name)))


@pytest.mark.parametrize("grid", [[], [{}], {}, None, [[]], [None], 3])
def test_a_grid_of_nothing_is_refused(grid: Any, tmp_path: Path) -> None:
    path = put(tmp_path / "sweep.yaml", demo_config(grid=grid))
    words = ["sweep", str(path), "--out", str(tmp_path / "out")]
    found = CliRunner().invoke(app, words)
    assert found.exit_code == 2
    assert "grid" in found.output
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["../../x", "a\n", "/x", "a/../../b", ".."])
def test_the_cells_of_a_record_are_folders_within_it(name: str, tmp_path: Path) -> None:
    cells = [{"name": name, "labels": {}}]
    put(tmp_path / "sweep.json", {"name": "x", "axes": {}, "cells": cells})
    found = CliRunner().invoke(app, ["report", str(tmp_path)])
    assert found.exit_code == 2
    assert "sweep.json is broken" in found.output
