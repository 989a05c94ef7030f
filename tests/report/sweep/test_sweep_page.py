"""The page of a small sweep: its order, its setup, its links, its one script."""

import base64
import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from cells_here import in_this_process
from html_elements import Elements
from test_sweep_report import CONFIG

from fedrobust.report import write_report
from fedrobust.report.sweep import figures
from fedrobust.report.sweep.records import SweepRecords
from fedrobust.runs.grid import load_sweep
from fedrobust.runs.sweep import run_sweep

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_pages")]

GRID = {
    "rule": {
        "mean": {"aggregator": {"name": "mean"}},
        "trimmed": {"aggregator": {"name": "trimmed-mean", "f": 1}},
    },
    "attack": {"none": {"malicious": 0}, "flip": {"malicious": 1}},
    "seed": [0, 1],
}


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small")
    (folder / "small.yaml").write_text(json.dumps(CONFIG | {"grid": GRID, "rounds": 2}))
    with in_this_process():
        assert run_sweep(load_sweep(folder / "small.yaml"), folder / "out") == {}
    return folder / "out"


@pytest.fixture
def small(played: Path, tmp_path: Path) -> Path:
    return shutil.copytree(played, tmp_path / "out")


def texts(html: str, tag: str) -> list[str]:
    found = re.findall(rf"<{tag}\b[^>]*>(.*?)</{tag}>", html, re.S)
    return [" ".join(re.sub("<[^>]+>", "", text).split()) for text in found]


def test_the_page_opens_with_what_happened_and_ends_with_the_rows(small: Path) -> None:
    html = write_report([small]).read_text()
    (sentence,) = texts(html, "h1")
    assert "robust accuracy" in sentence
    assert sentence.count(". ") == 0
    assert sentence.endswith(".")
    heads = texts(html, "h2")
    assert heads[0] == "The last models, place by place"
    assert heads[1] == "Robust accuracy by round"  # although there is one evaluation only
    assert heads[-2:] == ["Setup", "All scores"]
    tables = re.findall(r'<table class="([^"]*)"', html)
    assert tables == ["heat sticky", "sticky sortable"]
    columns = texts(html[html.index('class="sticky sortable"') :], "th")
    assert columns[:4] == ["rule attack", "robust accuracy", "accuracy", "error"]


def test_a_click_shows_another_score_without_a_script(small: Path) -> None:
    html = write_report([small]).read_text()
    radios = [a for tag, a in Elements(html).found if tag == "input"]
    shown = [a for a in radios if a["name"] == "measure"]
    labels = [a["aria-label"] for a in shown]
    assert labels == ["show robust accuracy", "show accuracy", "show error", "show ρ̂"]
    assert ["checked" in a for a in shown] == [True, False, False, False]
    for i, radio in enumerate(shown):
        assert f".maps:has(#{radio['id']}:checked) .m{i} {{ display: block; }}" in html
    heat = html[html.index('<table class="heat') :].partition("</table>")[0]
    assert [len(re.findall(rf'class="value m{i} ', heat)) for i in range(4)] == [4] * 4
    heads = [a for tag, a in Elements(heat).found if tag == "th"]
    assert sorted(a["scope"] for a in heads) == ["col"] * 3 + ["colgroup"] + ["row"] * 2
    # The figures' classes are letters: none of the page's may hide a part of a figure.
    own = html.partition("</style>")[0]
    assert not re.findall(r"\.[a-z]{1,2}(?=[ ,:{])", own[own.index("<style>") :])


def test_the_setup_has_what_all_cells_share_and_what_labels_stand_for(small: Path) -> None:
    html = write_report([small]).read_text()
    setup = html[html.index("<h2>Setup</h2>") : html.index("<h2>All scores</h2>")]
    pairs = dict(zip(texts(setup, "dt"), texts(setup, "dd"), strict=True))
    assert pairs["rule"] == "mean, trimmed"
    assert pairs["seed"] == "0, 1"
    assert pairs["trimmed"] == "aggregator: Trimmed Mean, f 1"
    assert pairs["flip"].startswith("malicious: 1")
    assert pairs["rounds"] == "2"
    assert pairs["model"] == "Ring Mlp"
    assert not {"aggregator", "malicious", "name"} & set(pairs)


def paged(cell: Path) -> None:
    """Give a cell the page that ``fedrobust report`` makes; what is in it does not matter."""
    (cell / "report").mkdir()
    (cell / "report" / "index.html").write_text("the page of a cell")


def test_cells_are_linked_where_they_have_a_page(small: Path, tmp_path: Path) -> None:
    bare = write_report([small]).read_text()
    assert "../cells/" not in bare
    assert "fedrobust report FOLDER/cells/NAME" in bare
    for name in ("mean-flip-1", "trimmed-none-0"):
        paged(small / "cells" / name)
    page = write_report([small])
    links = [a["href"] for tag, a in Elements(page.read_text()).found if tag == "a"]
    cells = [link for link in links if "cells" in link]
    assert len(cells) == 2
    for link in cells:
        assert (page.parent / link).resolve().is_file()
    deeper = write_report([small], small / "pages" / "mine")
    assert all(
        (deeper.parent / link).resolve().is_file()
        for link in re.findall(r'href="([^"]*cells[^"]*)"', deeper.read_text())
    )
    # A page elsewhere is passed on alone, and says nothing of the folders here.
    assert "/cells/" not in write_report([small], tmp_path / "away").read_text().replace(
        "FOLDER/cells/", ""
    )


def test_a_single_run_is_linked_from_its_place(small: Path) -> None:
    record = json.loads((small / "sweep.json").read_text())
    kept = [cell for cell in record["cells"] if cell["labels"]["seed"] == "0"]
    (small / "sweep.json").write_text(json.dumps(record | {"cells": kept}))
    paged(small / "cells" / "mean-flip-0")
    html = write_report([small]).read_text()
    link = '<a href="../cells/mean-flip-0/report/index.html">'
    assert html.count(link) == 2  # in the map and in the table


def test_the_only_script_is_ours_and_the_page_says_so_to_the_browser(small: Path) -> None:
    html = write_report([small]).read_text()
    (script,) = re.findall(r"<script>(.*?)</script>", html, re.S)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'\"" in html
    assert "default-src 'none'" in html
    assert html.count("<script") == 1
    keys = [a["data-key"] for tag, a in Elements(html).found if "data-key" in a and tag == "td"]
    assert keys
    assert all(key == "" or float(key) >= 0 for key in keys)


def panel_labels(axes: Any) -> bool:
    return bool(axes.xaxis.get_tick_params()["labelbottom"])


def test_a_panel_with_none_below_it_has_the_labels_of_its_axis() -> None:
    figure, axes = figures.grid({f"rule {i}": [] for i in range(4)}, 9.0, 2.9)
    assert [panel_labels(panel) for panel in axes] == [False, True, True, True]
    assert len(figure.axes) == 4
    _, stacked = figures.grid({f"rule {i}": [] for i in range(4)}, 4.1, 2.9)
    assert [panel_labels(panel) for panel in stacked] == [False, False, False, True]


def test_runs_of_different_lengths_are_followed_too(small: Path) -> None:
    """A curve over the rounds that the seeds of a place have in common."""
    lines = (small / "cells" / "mean-flip-1" / "metrics.jsonl").read_text().splitlines()
    first = json.loads(lines[0]) | {"round": 1, "robust_accuracy": 0.25}
    text = "\n".join([json.dumps(first), *lines]) + "\n"
    for name in ("mean-flip-1", "mean-flip-0"):
        (small / "cells" / name / "metrics.jsonl").write_text(text)
    drawn = figures.course(SweepRecords.read(small), 9.0)
    curves = {tuple(line.get_xdata()) for line in drawn.axes[0].lines}
    assert curves == {(2,), (1, 2)}
