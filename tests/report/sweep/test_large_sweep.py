"""A sweep of two hundred cells: the work and the page grow with what differs between cells."""

import json
import re
import shutil
from pathlib import Path
from time import process_time
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
from fedrobust.report.sweep import figures, plane
from fedrobust.report.sweep.records import SweepRecords
from fedrobust.runs.grid import load_sweep
from fedrobust.runs.sweep import run_sweep

pytestmark = pytest.mark.long

CELLS = 200
PAGE = 300_000
"""Bytes of a page of ``CELLS`` cells, its map and all figures twice in it."""
SECONDS = 15.0
"""Processor time of such a page with its shift figures; it takes about five on one free core."""


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


@pytest.fixture(scope="module")
def wide(large: Path) -> Path:
    """As many cells at as many places, of no plane: twenty rules, ten attacks, scores that vary."""
    out = shutil.copytree(large, large.parent / "wide")
    record = json.loads((out / "sweep.json").read_text())
    axes = {
        "rule": [f"r{i}" for i in range(20)],
        "attack": [f"a{i}" for i in range(10)],
        "seed": ["0"],
    }
    for i, cell in enumerate(record["cells"]):
        cell["labels"] = {"rule": f"r{i // 10}", "attack": f"a{i % 10}", "seed": "0"}
        folder = out / "cells" / cell["name"]
        text = (folder / "config.yaml").read_text()
        (folder / "config.yaml").write_text(text.replace("synthetic-ring", "digits"))
        summary = json.loads((folder / "summary.json").read_text())
        final = summary["test"]["final"] | {"robust_accuracy": i / CELLS}
        for moved in final["shift"]:
            moved["error"] = (i * 37 % CELLS) / CELLS / 2
            moved["loss"] *= 1 + (i * 53 % CELLS) / CELLS
        summary["test"]["final"] = final
        (folder / "summary.json").write_text(json.dumps(summary))
    (out / "sweep.json").write_text(json.dumps(record | {"axes": axes}))
    return out


def test_a_page_of_two_hundred_places_is_small_and_made_in_seconds(wide: Path) -> None:
    write_report([wide])  # what is loaded and compiled once is no part of a page
    start = process_time()
    page = write_report([wide])
    assert process_time() - start < SECONDS
    assert page.stat().st_size < 1_000_000
    assert (page.parent / "loss-wrm.svg").is_file(), "with its shift figures"
    text = page.read_text()
    heat = text[text.index('<table class="heat') :].partition("</table>")[0]
    shown = re.findall(r'<span class="value m0 h(\d+)">([\d.]+)', heat)
    assert sorted(float(value) for _, value in shown) == [i / 2 for i in range(CELLS)]
    assert {level for _, level in sorted((float(v), int(c)) for c, v in shown)} == set(range(21))
    rows = text[text.index('<table class="sticky sortable') :].partition("</table>")[0]
    assert rows.count("<tr>") == 1 + CELLS
    # Ten attacks make fewer panels than twenty rules.
    assert len(figures.panels(figures.turned(SweepRecords.read(wide)))) == 10


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
    assert "200 runs, 10 seeds a place" in text
    # Each figure for a screen and for a phone. The map is a table, and a figure only beside it.
    names = {path.stem for path in page.parent.glob("*.svg")} - {"matrix"}
    assert names == {"course", "boundaries", "error-pgd", "error-wrm", "loss-wrm"}
    assert text.count("<svg") == 2 * len(names)
    for svg in page.parent.glob("*.svg"):
        assert svg.stat().st_size < 50_000, svg.name
    picture = imread(page.parent / "boundaries.png")[..., :3]
    for colour in plane._DATA:  # the dots of both classes, in the raster, too
        assert (abs(picture - np.array(to_rgb(colour))).max(-1) < 0.02).sum() > 1000
    again = write_report([large], tmp_path / "again")
    for path in page.parent.iterdir():
        assert path.read_bytes() == (again.parent / path.name).read_bytes(), path.name
