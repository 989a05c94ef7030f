"""A sweep of two hundred cells: the work and the page grow with what differs between cells."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cells_here import in_this_process
from matplotlib.colors import to_rgb
from matplotlib.image import imread
from ruamel.yaml import YAML
from test_sweep_report import CONFIG

from fedrobust.config import yaml as plain_yaml
from fedrobust.report import write_report
from fedrobust.report.sweep import plane
from fedrobust.report.sweep.records import SweepRecords
from fedrobust.runs.grid import load_sweep
from fedrobust.runs.sweep import run_sweep

pytestmark = pytest.mark.slow

CELLS = 200
PAGE = 250_000
"""Bytes of a page of ``CELLS`` cells, all figures in it twice."""


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cell that was played, and copies of it under other names and seeds."""
    folder = tmp_path_factory.mktemp("large")
    grid = {"rule": {"r": {"malicious": 1}}, "attack": {"a": {}}, "seed": [0]}
    (folder / "one.yaml").write_text(json.dumps(CONFIG | {"grid": grid}))
    with in_this_process():
        assert run_sweep(load_sweep(folder / "one.yaml"), folder / "one") == {}
    played = folder / "one" / "cells" / "r-a-0"
    axes = {
        "rule": ["mean", "krum"],
        "attack": [f"a{i}" for i in range(10)],
        "seed": [str(i) for i in range(10)],
    }
    cells = []
    for i in range(CELLS):
        steps = zip(axes.values(), (100, 10, 1), strict=True)
        labels = [axis[i // step % len(axis)] for axis, step in steps]
        name = "-".join(labels)
        shutil.copytree(played, folder / "out" / "cells" / name)
        config = folder / "out" / "cells" / name / "config.yaml"
        text = config.read_text().replace("ring-r-a-0", f"ring-{name}")
        config.write_text(re.sub(r"(?m)^seed: 0$", f"seed: {labels[2]}", text))
        cells.append({"name": name, "labels": dict(zip(axes, labels, strict=True))})
    record = json.loads((folder / "one" / "sweep.json").read_text())
    (folder / "out" / "sweep.json").write_text(json.dumps(record | {"axes": axes, "cells": cells}))
    return folder / "out"


def test_no_part_of_a_config_is_parsed_twice(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    load = YAML.load

    def counted(self: YAML, stream: Any) -> Any:
        asked.append(stream)
        return load(self, stream)

    monkeypatch.setattr(YAML, "load", counted)
    plain_yaml._part.cache_clear()
    records = SweepRecords.read(large)
    assert len(asked) == len(set(asked)) < 40  # one for each key, and for each seed
    for group in records.groups:
        assert [cell.config["seed"] for cell in group.cells] == list(range(10))
        assert {cell.config["name"] for cell in group.cells} == {
            f"ring-{cell.name}" for cell in group.cells
        }


def test_the_page_of_a_large_sweep_is_small_and_the_same_each_time(
    large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models: list[str] = []
    margin = plane._margin

    def asked(cell: Any, *given: Any) -> Any:
        models.append(cell.name)
        return margin(cell, *given)

    monkeypatch.setattr(plane, "_margin", asked)
    page = write_report([large])
    assert len(models) == len(set(models)) == 20  # one for each place
    assert page.stat().st_size < PAGE
    text = page.read_text()
    assert "200 runs, up to 10 seeds a place" in text
    assert text.count("<svg") == 2 * len(list(page.parent.glob("*.svg"))) == 8
    for svg in page.parent.glob("*.svg"):
        assert svg.stat().st_size < 50_000, svg.name
    picture = imread(page.parent / "boundaries.png")[..., :3]
    for colour in plane._DATA:  # the dots of both classes, in the raster, too
        assert (abs(picture - np.array(to_rgb(colour))).max(-1) < 0.02).sum() > 1000
    again = write_report([large], tmp_path / "again")
    for path in page.parent.iterdir():
        assert path.read_bytes() == (again.parent / path.name).read_bytes(), path.name
