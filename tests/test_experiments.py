"""The committed experiments can be played, and the committed results are theirs."""

import dataclasses
from pathlib import Path

import pytest

from fedrobust import load
from fedrobust.config.yaml import read_stored_yaml
from fedrobust.errors import ConfigError
from fedrobust.runs.cells import differences
from fedrobust.runs.grid import load_sweep

ROOT = Path(__file__).parents[1]
CONFIGS = [p for p in (ROOT / "experiments").rglob("*.yaml") if p.stem != "reproductions"]


@pytest.mark.parametrize("path", sorted(CONFIGS), ids=lambda p: p.name)
def test_every_config_is_valid(path: Path) -> None:
    if "\ngrid:" in path.read_text():
        sweep = load_sweep(path)
        assert sweep.name in (path.stem, f"{path.parent.name}-{path.stem}")
        with pytest.raises(ConfigError, match="fedrobust sweep"):
            load(path)
    else:
        assert load(path).name == path.stem


def named(path: Path) -> str:
    return str(path.parent.relative_to(ROOT / "results"))


@pytest.mark.parametrize("path", sorted((ROOT / "results").glob("*/*/config.yaml")), ids=named)
def test_every_result_can_be_played_again(path: Path) -> None:
    again = load(path)
    original = load(ROOT / "experiments" / path.parent.parent.name / f"{again.name}.yaml")
    assert dataclasses.replace(again, execution=original.execution) == original


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted((ROOT / "results").glob("*/*/sweep.json")), ids=named)
def test_every_sweep_is_the_committed_grid_and_whole(path: Path) -> None:
    sweep = load_sweep(ROOT / "experiments" / f"{named(path)}.yaml")
    cells = {folder.name: folder for folder in (path.parent / "cells").iterdir()}
    assert set(cells) == {cell.name for cell in sweep.cells}
    for cell in sweep.cells:
        assert not differences(cell, read_stored_yaml(cells[cell.name] / "config.yaml"))
