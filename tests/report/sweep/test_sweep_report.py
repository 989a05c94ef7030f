"""The page of a sweep: seeds together, models that blew up shown as such, missing cells named."""

import io
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cells_here import in_this_process
from made_sweep import made
from matplotlib.text import Text

from fedrobust.errors import RecordError
from fedrobust.report import write_report
from fedrobust.report.style import NARROW, Style
from fedrobust.report.sweep.columns import shown, table
from fedrobust.report.sweep.figures import course, grid, legend
from fedrobust.report.sweep.records import Spread, SweepRecords
from fedrobust.report.sweep.shift import shift
from fedrobust.report.wording import number
from fedrobust.runs.grid import load_sweep
from fedrobust.runs.sweep import run_sweep

pytestmark = pytest.mark.slow

CONFIG: dict[str, Any] = {
    "name": "ring",
    "rounds": 6,
    "data": {"name": "synthetic-ring", "n": 600, "test": 200, "validation": 100},
    "partition": {"name": "iid", "clients": 5},
    "model": {"name": "ring-mlp"},
    "objective": {"name": "wasserstein-dro", "gamma": 2.0, "ascent": {"steps": 3}},
    "client": {"batch_size": 16, "batches": 1, "optimizer": {"name": "sgd", "lr": 0.1}},
    "attack": {"name": "sign-flip"},
    "evaluation": {
        "every": 2,
        "attack": {"name": "pgd", "eps": 0.1, "step_size": 0.1, "steps": 1, "box": False},
        "wasserstein": {"levels": [0, 0.1]},
    },
    "execution": {"device": "cpu", "threads": 1, "batch": 512},
    "grid": {
        "rule": {"none": {"aggregator": {"name": "mean"}}},
        "attack": {"none": {"malicious": 0}, "flip": {"malicious": 1}},
        "seed": [0, 1],
    },
}


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sweep")
    (folder / "ring.yaml").write_text(json.dumps(CONFIG))
    with in_this_process():
        assert run_sweep(load_sweep(folder / "ring.yaml"), folder / "out") == {}
    return folder / "out"


@pytest.fixture
def copy(swept: Path, tmp_path: Path) -> Path:
    return shutil.copytree(swept, tmp_path / "out")


def summary(out: Path, cell: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((out / "cells" / cell / "summary.json").read_text())
    return content


def test_the_table_is_the_median_over_seeds(swept: Path) -> None:
    records = SweepRecords.read(swept)
    columns, rows = table(records)
    assert records.axes == ("rule", "attack")
    assert [group.labels for group, _ in rows] == [("none", "none"), ("none", "flip")]
    for group, values in rows:
        cells = [summary(swept, cell.name)["test"]["final"] for cell in group.cells]
        spread = dict(zip(columns, values, strict=True))["accuracy"]
        assert spread is not None
        accuracies = [cell["accuracy"] for cell in cells]
        assert (spread.low, spread.high) == (min(accuracies), max(accuracies))
        assert spread.middle == pytest.approx(sum(accuracies) / 2)


@pytest.mark.usefixtures("quick_pages")
def test_the_certificate_on_training_examples_is_shown_beside_the_other(copy: Path) -> None:
    columns, rows = table(SweepRecords.read(copy))
    for group, values in rows:
        told = dict(zip(columns, values, strict=True))
        finals = [summary(copy, cell.name)["test"]["final"] for cell in group.cells]
        for column, key in (("ρ̂", "wasserstein"), ("ρ̂, training", "training_wasserstein")):
            found, rhos = told[column], [final[key]["rho"] for final in finals]
            assert found is not None
            assert (found.low, found.high) == (min(rhos), max(rhos))
    rho = summary(copy, "none-none-0")["test"]["final"]["training_wasserstein"]["rho"]
    page = " ".join(write_report([copy / "cells" / "none-none-0"]).read_text().split())
    assert f"ρ̂ on training examples</dt><dd>{number(rho)}</dd>" in page


def test_the_page_has_every_figure_and_the_table_as_files(copy: Path) -> None:
    page = write_report([copy])
    names = {path.name for path in page.parent.iterdir()}
    for figure in ("course", "boundaries", "error-pgd", "error-wrm", "loss-wrm"):
        assert {f"{figure}.png", f"{figure}.svg"} <= names
    rows = json.loads((page.parent / "table.json").read_text())["rows"]
    assert [row["labels"] for row in rows][1] == {"rule": "none", "attack": "flip"}
    assert "| none | flip | 2 |" in (page.parent / "table.md").read_text()


@pytest.mark.parametrize(
    ("value", "text"), [(0.02634, "0.0263"), (999.6, "1e+03"), (44_800, "44,800"), (3e10, "3e+10")]
)
def test_a_number_is_shown_as_one_reads_it(value: float, text: str) -> None:
    assert shown("simulated rounds", Spread(value, value, value, 1)) == text


def test_a_caption_says_what_is_there() -> None:
    from fedrobust.report.sweep.learned import caption

    assert "W₁" not in caption(["return", "simulated rounds"])
    assert "W₁" in caption(["W₁ reconstructed", "return"])


def test_the_share_of_malicious_rows_is_explained_where_it_stands() -> None:
    from fedrobust.report.sweep.page import _scores_caption

    records = made({("krum", "flip"): [0.5]})
    assert "Malicious rows kept" not in _scores_caption(records)
    (group,) = records.groups
    cell = replace(group.cells[0], summary={**group.cells[0].summary, "malicious_kept": 0.0})
    records = replace(records, groups=(replace(group, cells=(cell,)),))
    assert "Malicious rows kept: the share of the malicious clients'" in _scores_caption(records)


@pytest.mark.usefixtures("quick_pages")
def test_what_went_wrong_is_said_with_the_cells_that_say_so(copy: Path) -> None:
    """Together where they say the same, and where only the numbers differ."""
    told = "the attack: honest updates were sent"
    for seed in (0, 1):
        content = summary(copy, f"none-flip-{seed}")
        content["troubles"] = [told, f"the loss curves by up to {seed + 1}.5 > 2"]
        (copy / "cells" / f"none-flip-{seed}" / "summary.json").write_text(json.dumps(content))
    page = " ".join(write_report([copy]).read_text().split())
    assert f"none-flip-0, none-flip-1: {told}</li>" in page
    curves = "the loss curves by up to 1.5 &gt; 2 (the numbers are of the first cell)"
    assert f"none-flip-0, none-flip-1: {curves}" in page


@pytest.mark.usefixtures("quick_pages")
def test_a_model_that_blew_up_is_the_worst_and_not_left_out(copy: Path) -> None:
    content = summary(copy, "none-flip-1")
    final = content["test"]["final"]
    final["wasserstein"]["worst_case_loss"] = final["wasserstein"]["rho"] = None
    for score in final["shift"]:
        score["loss"] = None
    (copy / "cells" / "none-flip-1" / "summary.json").write_text(json.dumps(content))
    columns, rows = table(SweepRecords.read(copy))
    spread = dict(zip(columns, rows[1][1], strict=True))["worst-case loss"]
    assert spread is not None
    assert (spread.high, spread.seeds) == (math.inf, 2)
    assert "inf" in shown("worst-case loss", spread)
    page = write_report([copy])
    row = json.loads((page.parent / "table.json").read_text())["rows"][1]
    assert row["worst-case loss"]["high"] == "infinite"


@pytest.mark.parametrize(("loss", "named"), [(1e6, True), (None, True), (2.0, False)])
def test_a_loss_off_the_scale_is_named_and_leaves_room_for_the_others(
    copy: Path, loss: float | None, named: bool
) -> None:
    for cell in ("none-flip-0", "none-flip-1"):
        content = summary(copy, cell)
        for score in content["test"]["final"]["shift"]:
            score["loss"] = loss
        (copy / "cells" / cell / "summary.json").write_text(json.dumps(content))
    drawn = shift(SweepRecords.read(copy), "wrm", "loss", 9.0, certificate=True)
    picture = " ".join(text.get_text() for text in drawn.findobj(Text))
    assert ("off the scale:" in picture) is named
    assert ("flip (" in picture) is named
    assert drawn.axes[0].get_ylim()[1] < 100


def test_audits_have_columns_and_a_curve_of_their_own(copy: Path) -> None:
    before = len(course(SweepRecords.read(copy), 9.0).axes[0].lines)
    for i, folder in enumerate(sorted((copy / "cells").iterdir())):
        found = {"verdict": "masked" if i % 2 else "genuine", "claimed": 0.8, "robust": i / 10}
        found["examples"] = 200
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        text = "".join(json.dumps(line | {"audit": found}) + "\n" for line in lines)
        (folder / "metrics.jsonl").write_text(text)
        content = summary(copy, folder.name)
        content["test"]["final"]["audit"] = found
        (folder / "summary.json").write_text(json.dumps(content))
    records = SweepRecords.read(copy)
    columns, rows = table(records)
    for group, values in rows:
        told = dict(zip(columns, values, strict=True))
        assert told["audit: claimed"].middle == 0.8
        first = sorted(path.name for path in (copy / "cells").iterdir()).index(group.cells[0].name)
        assert told["audit: robust"].middle == pytest.approx((first + first + 1) / 20)
        assert told["audit: masked"].middle == 1  # of the two seeds
    lines = course(records, 9.0).axes[0].lines
    assert len(lines) == 2 * before
    assert list(lines[1].get_ydata()) == [pytest.approx(lines[1].get_ydata()[0])] * 3


MEASURED = ("robust accuracy", "accuracy", "error", "ρ̂")
"""What the maps of this sweep can show."""

LEARNED = {
    "name": "learned",
    "observe": 2,
    "threshold": 0.0,
    "inversion": {"iterations": 5},
    "training": {"algorithm": "constant", "steps": 12, "check_episodes": 1},
    "horizon": 2,
    "hold": 2,
    "samples": 20,
}


@pytest.mark.long
@pytest.mark.usefixtures("quick_pages")
def test_learned_attacks_have_a_table_of_their_own(tmp_path: Path) -> None:
    grid = {
        "attack": {
            "none": {"malicious": 0},
            "learned": {"malicious": 1, "threat": {"clients": True}, "attack": LEARNED},
        },
        "seed": [0, 1],
    }
    (tmp_path / "ring.yaml").write_text(json.dumps(CONFIG | {"grid": grid}))
    with in_this_process():
        assert run_sweep(load_sweep(tmp_path / "ring.yaml"), tmp_path / "out") == {}
    page = write_report([tmp_path / "out"])
    assert "Learned attacks" in page.read_text()
    assert "The W₁ columns give the distance to the true data" in page.read_text()
    assert "The return is the return of the policy" in page.read_text()
    (row,) = json.loads((page.parent / "learned.json").read_text())["rows"]
    assert row["labels"] == {"attack": "learned"}
    found = [summary(tmp_path / "out", name)["attack"] for name in row["cells"]]
    assert len(found) == 2
    expected = {
        "W₁ reconstructed": [a["comparison"]["learned"] for a in found],
        "nearest real": [a["comparison"]["nearest"] for a in found],
        "at end": [sum(after for _, after in a["matching"]) / 2 for a in found],
        "on the unused": [a["unused"][0] for a in found],
        "labels own": [
            abs(a["comparison"]["labels"]["own"][0] - a["comparison"]["labels"]["truth"][0])
            for a in found
        ],
        "return": [a["value"] for a in found],
        "simulated rounds": [a["simulated_rounds"] for a in found],
    }
    for name, values in expected.items():
        assert row[name]["low"] == pytest.approx(min(values)), name
        assert row[name]["high"] == pytest.approx(max(values)), name
    # Attacks that learn nothing are not in it, and a table that has become stale goes.
    assert "| none |" not in (page.parent / "learned.md").read_text()
    shutil.rmtree(tmp_path / "out" / "cells" / "learned-0")
    shutil.rmtree(tmp_path / "out" / "cells" / "learned-1")
    assert "Learned attacks" not in write_report([tmp_path / "out"]).read_text()
    assert not (page.parent / "learned.md").exists()


@pytest.mark.usefixtures("quick_pages")
def test_what_a_stranger_wrote_is_text(copy: Path, tmp_path: Path) -> None:
    """A page and its tables are passed on: no HTML of theirs, and no file of the reader's."""
    shutil.rmtree(copy / "cells" / "none-none-1")
    (copy / "failed").mkdir()
    (tmp_path / "private").write_text("a password")
    (copy / "failed" / "none-none-1.txt").symlink_to(tmp_path / "private")
    record = json.loads((copy / "sweep.json").read_text())
    axis, label = next(
        (axis, labels[0]) for axis, labels in record["axes"].items() if axis != "seed"
    )
    hostile = "<img src=x>|a"
    record["axes"][axis][0] = hostile
    for cell in record["cells"]:
        if cell["labels"].get(axis) == label:
            cell["labels"][axis] = hostile
    (copy / "sweep.json").write_text(json.dumps(record))
    page = write_report([copy])
    assert "a password" not in page.read_text()
    assert "none-none-1.txt is a link" in page.read_text()
    table = (page.parent / "table.md").read_text()
    assert "&lt;img src=x>\\|a" in table
    assert "<img" not in table


@pytest.mark.usefixtures("quick_pages")
def test_what_is_missing_or_failed_is_named(copy: Path) -> None:
    shutil.rmtree(copy / "cells" / "none-flip-0")
    (copy / "cells" / "none-none-1" / "summary.json").unlink()
    (copy / "failed").mkdir()
    (copy / "failed" / "none-none-1.txt").write_text("Traceback\nOutOfMemoryError: too much")
    page = write_report([copy]).read_text()
    assert "none-none-1: OutOfMemoryError: too much" in page
    assert "Not begun yet: none-flip-0." in page
    assert "So far, with 2 of 4 runs finished: " in page
    heat = page[page.index('<table class="heat') :].partition("</table>")[0]
    assert heat.count("<small>1 of 2</small>") == 2 * len(MEASURED)
    shutil.rmtree(copy / "failed")
    shutil.rmtree(copy / "cells" / "none-flip-1")
    page = write_report([copy]).read_text()
    assert "Begun, but not finished: none-none-1." in page
    assert "Not begun yet: none-flip-0, none-flip-1." in page
    heat = page[page.index('<table class="heat') :].partition("</table>")[0]
    assert "not finished" in heat


def test_a_sweep_without_a_finished_cell_is_refused(copy: Path) -> None:
    shutil.rmtree(copy / "cells")
    with pytest.raises(RecordError, match="no cell of this sweep is finished"):
        write_report([copy])


def test_a_long_legend_gets_its_room() -> None:
    """On a phone there is one name a row, and the panel must not pay for it."""
    names = {f"learned-number-{i}": Style("#000000", "o", "-") for i in range(14)}
    heights = []
    for entries in (3, 14):
        figure, (axes,) = grid({"krum": []}, NARROW, 2.6)
        legend(figure, dict(list(names.items())[:entries]), NARROW)
        figure.savefig(io.BytesIO())  # which warns, and fails here, where the panel has no room
        heights.append(axes.get_position().height * figure.get_figheight())
    assert heights[1] > 0.85 * heights[0] > 1
