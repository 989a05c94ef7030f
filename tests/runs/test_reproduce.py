"""A published table is played again, stopped and gone on with, and stands beside ours."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from paper_of_digits import PAPER, TITLE, dump, lay_out
from ruamel.yaml import YAML
from typer.testing import CliRunner

from fedrobust.cli import app
from fedrobust.config import shelf as shelves
from fedrobust.data import Digits
from fedrobust.errors import ConfigError, RecordError
from fedrobust.progress import CELLS, Progress
from fedrobust.records.published import tables
from fedrobust.report import write_report
from fedrobust.report.reproduction.tables import _rounds
from fedrobust.runs.reproduce import known, load_reproduction, reproduce


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reproduction, played once."""
    root = tmp_path_factory.mktemp("paper")
    lay_out(root / "shelf")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shelves, "_PACKAGED", root / "shelf")
        tables.cache_clear()
        reproduce(load_reproduction("paper-table1", "smoke"), root / "out", jobs=1)
    tables.cache_clear()
    return root / "out"


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    lay_out(tmp_path / "shelf")
    monkeypatch.setattr(shelves, "_PACKAGED", tmp_path / "shelf")
    tables.cache_clear()
    yield tmp_path / "shelf"
    tables.cache_clear()


@pytest.fixture
def played(shelf: Path, once: Path, tmp_path: Path) -> Path:
    """A copy of the reproduction that was played."""
    return Path(shutil.copytree(once, tmp_path / "played"))


def page_of(folder: Path) -> str:
    text = write_report([folder]).read_text()
    return " ".join(re.sub(r"<[^>]*>", " ", text).split())


@pytest.mark.slow
@pytest.mark.usefixtures("quick_pages")
def test_it_is_stopped_goes_on_and_stands_beside_the_paper(played: Path) -> None:
    out, counted = played, list[tuple[int, int]]()
    shutil.rmtree(out / "two")
    found = load_reproduction("paper-table1", "smoke")

    def count(name: str, done: int, whole: int) -> None:
        if name == CELLS:
            counted.append((done, whole))

    def stop(name: str, why: str | None) -> None:
        assert name == "alone", "a finished cell is not played again"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        reproduce(found, out, jobs=1, progress=Progress(ended=stop, moved=count))
    assert counted == [(2, 4), (2, 4)]  # of all cells, where each sweep begins
    assert "Not finished yet: two/flip" in page_of(out)
    before = (out / "two/cells/alone/rounds.jsonl").read_bytes()

    done = CliRunner().invoke(app, ["reproduce", "paper-table1", "--out", str(out), "--jobs", "1"])
    assert done.exit_code == 0, done.output
    assert "4 of 4 cells are done" in done.output
    assert (out / "two/cells/alone/rounds.jsonl").read_bytes() == before

    rows = json.loads((out / "report" / "table.json").read_text())["rows"]
    assert [len(row["best_rounds"]) for row in rows] == [len(row["cells"]) for row in rows]
    assert [(row["sweep"], row["labels"], len(row["cells"])) for row in rows] == [
        ("one", [], 2),
        ("two", ["alone"], 1),
        ("two", ["flip"], 1),
    ]
    summary = json.loads((out / "two/cells/flip/summary.json").read_text())
    ours = summary["test"]["best"]["robust_accuracy"]
    assert rows[2]["best"]["robust_accuracy"]["middle"] == ours
    assert rows[2]["published"] == {"label": "attacked", "accuracy": 0.4, "robust_accuracy": 0.305}
    assert rows[1]["differences"] == ["objective.attack.steps: 3 (40)"]  # the batch is the paper's
    assert rows[2]["differences"] == ["objective.attack.steps: 3 (40)", "malicious: 2 (5)"]
    page = page_of(out)
    for told in (
        f"<title>{TITLE}",
        "paper-table1 at scale smoke: 4 runs",
        "Digits, not faces.",
        "Published figures that this scale does not play, or not yet on faces",
        "objective.attack.steps: 3 (40)",
        "malicious: 2 (5): two, flip",
        f"{100 * (ours - 0.305):+.1f}".replace("-", "−"),
        "30.5\u202f%",
    ):
        assert told in page or told in (out / "report/index.html").read_text(), told
    assert "Not finished" not in page
    assert "changed by -s" not in page


@pytest.mark.slow
def test_each_figure_stands_where_the_page_says(played: Path) -> None:
    """The chosen model's and the last one's scores, both curves, and every cell that is missing."""
    out = played
    path = out / "two/cells/flip/summary.json"
    summary = json.loads(path.read_text())
    for which, shift in (("best", 0.0), ("final", 0.5)):
        summary["test"][which] |= {"accuracy": 0.111 + shift, "robust_accuracy": 0.222 + shift}
    path.write_text(json.dumps(summary))
    report = write_report([out]).parent
    (line,) = [line for line in (report / "table.md").read_text().splitlines() if "flip" in line]
    cells = [cell.strip().replace("\u202f", " ") for cell in line.split("|")[1:-1]]
    assert cells[4:] == [
        *("11.1 %", "40.0 %", "−28.9"),
        *("22.2 %", "30.5 %", "−8.3"),
        *("61.1 %", "72.2 %"),
    ]
    told = "the attack sent the honest updates in all 3 rounds"
    path.write_text(json.dumps(summary | {"troubles": [told]}))
    for cell, version in (("alone", "1"), ("flip", "2")):
        place = out / "two/cells" / cell / "environment.json"
        place.write_text(json.dumps(json.loads(place.read_text()) | {"code": {"mine": version}}))
    page = page_of(out)
    assert f"two: flip: {told}" in page
    assert "two: flip: played with another version of mine than the other runs" in page
    curves = [(report / f"{kind}-two.png").read_bytes() for kind in ("course", "clean")]
    assert curves[0] != curves[1]

    for cell in (out / "one/cells").iterdir():
        (cell / "summary.json").unlink()
    path.unlink()
    assert "Not finished yet: one: no cell is finished yet, two/flip" in page_of(out)


def audited(robust: float, **under: float) -> dict[str, Any]:
    names = {name.replace("_", " "): value for name, value in under.items()}
    found = {"verdict": "masked", "claimed": 0.8, "robust": robust, "examples": 50}
    return found | {"under": names}


@pytest.mark.slow
@pytest.mark.usefixtures("quick_pages")
def test_means_after_the_takeover_stand_beside_the_papers(shelf: Path, played: Path) -> None:
    """From the round on that the paper names; transfer is the stronger of the two."""
    content = json.loads(json.dumps(PAPER))
    row = content["tables"]["table-1"]["rows"][1]
    row |= {"stabilises": 1, "transfer": 12.5, "logit_scaled": 0.5}
    (shelf / "results/published/paper.json").write_text(json.dumps(content))
    tables.cache_clear()
    path = played / "two/cells/flip/metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    audits = [
        audited(0.9, rescaled_PGD=0.9, transfer_1=0.9),
        audited(0.1, rescaled_PGD=0.2, transfer_1=0.5, transfer_2=0.3),
        audited(0.3, rescaled_PGD=0.4, transfer_1=0.1, transfer_2=0.4),
    ]
    for line, found in zip(lines, audits, strict=True):
        line["audit"] = found
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    file = played / "two/cells/flip/summary.json"
    summary = json.loads(file.read_text())
    summary["test"]["best"]["audit"] = audited(0.02)
    further = {"evaluation.attack": 0.42, "restarts": 0.17}
    summary["test"]["best"]["under"] = {"examples": 40, "robust_accuracy": further}
    file.write_text(json.dumps(summary))
    page = page_of(played)
    for told in ("After the takeover", "Is the robustness real?"):
        assert told in page
    (line,) = re.findall(r"two, flip 42\.0 % 17\.0 % 1", page)
    rows = json.loads((played / "report" / "table.json").read_text())["rows"]
    assert "takeover" not in rows[1]
    means = {name: value["middle"] for name, value in rows[2]["takeover"].items()}
    assert means == pytest.approx(
        {
            "accuracy": np.mean([line["accuracy"] for line in lines[1:]]),
            "robust_accuracy": np.mean([line["robust_accuracy"] for line in lines[1:]]),
            "transfer": 0.2,
            "logit_scaled": 0.3,
            "battery": 0.2,
        }
    )
    (table,) = re.findall(
        r"After the takeover.*?</table>", write_report([played]).read_text(), re.S
    )
    cells = [re.sub(r"<[^>]*>", "", cell) for cell in re.findall(r"<td.*?</td>", table, re.S)]
    shown = [" ".join(cell.split()) for cell in cells]
    assert shown[-2:] == ["1", "2"]  # one seed, from round 2 on
    assert (shown[1], shown[3]) == ("40.0 %", "30.5 %")
    assert shown[4:-2] == ["20.0 %", "12.5 %", "30.0 %", "0.5 %", "20.0 %"]

    write_report([played / "two"])  # the page of the sweep alone has the published columns too
    swept = json.loads((played / "two" / "report" / "table.json").read_text())["rows"]
    assert [row["paper: robust accuracy"]["middle"] for row in swept] == [0.25, 0.305]

    for line in lines:  # as older records tell it
        del line["audit"]["under"]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    write_report([played])
    rows = json.loads((played / "report" / "table.json").read_text())["rows"]
    assert set(rows[2]["takeover"]) == {"accuracy", "robust_accuracy", "battery"}


def test_the_middle_of_the_chosen_rounds_is_one_that_a_seed_chose() -> None:
    shown = [_rounds(each) for each in ([3, 2], [1, 2], [1000, 50, 700], [4, 4, 4])]
    assert shown == ["2 (2 to 3)", "1 (1 to 2)", "700 (50 to 1,000)", "4"]


@pytest.mark.slow
@pytest.mark.usefixtures("quick_pages")
def test_each_writers_accuracy_is_drawn(shelf: Path, tmp_path: Path) -> None:
    digits = Digits().load()
    arrays = {
        "x_train": digits.train.images(torch.arange(300)).numpy(),
        "y_train": digits.train.y[:300].numpy(),
        "user_train": np.arange(300) % 5,
        "x_test": digits.test.images(torch.arange(100)).numpy(),
        "y_test": digits.test.y[:100].numpy(),
        "user_test": np.arange(100) % 5,
    }
    np.savez(tmp_path / "writers.npz", **arrays)
    for name, partition in (("one", {"name": "by-writer"}), ("two", {"name": "iid", "clients": 5})):
        file = shelf / f"experiments/paper/{name}.yaml"
        config = YAML(typ="safe").load(file)
        data = {"name": "npz", "path": str(tmp_path / "writers.npz"), "validation": 50}
        config |= {"data": data, "partition": partition, "grid": {"seed": [0]}, "rounds": 1}
        dump(config, file)
    content = json.loads(json.dumps(PAPER))
    content["tables"]["table-1"]["rows"][0]["match"] = {"data.name": "npz"}
    (shelf / "results/published/paper.json").write_text(json.dumps(content))
    tables.cache_clear()
    out = tmp_path / "out"
    reproduce(load_reproduction("paper-table1", "smoke"), out, jobs=1)
    page = page_of(out)
    assert "Accuracy of each writer: one" in page
    assert "a dot for each of 5 clients." in page
    assert "Accuracy of each writer: two" not in page

    lean = tmp_path / "lean"
    script = [sys.executable, Path(__file__).parents[2] / "results" / "lean.py", out, lean]
    subprocess.run(script, check=True, stdout=subprocess.DEVNULL)
    assert not list(lean.rglob("rounds.jsonl"))
    assert not list(lean.rglob("*.safetensors"))
    assert page_of(lean).count("<svg") == page.count("<svg")
    assert "Accuracy of each writer: one" in page_of(lean)
    before = {path: path.stat().st_mtime_ns for path in lean.rglob("summary.json")}
    assert len(before) == 2
    assert reproduce(load_reproduction("paper-table1", "smoke"), lean, jobs=1) == {}
    assert before == {path: path.stat().st_mtime_ns for path in lean.rglob("summary.json")}


@pytest.mark.slow
@pytest.mark.usefixtures("quick_pages")
def test_the_record_says_what_the_definition_says_now(shelf: Path, played: Path) -> None:
    path = shelf / "experiments/paper/reproductions.yaml"
    path.write_text(path.read_text().replace("Digits, not faces.", "Digits of 8 × 8."))
    reproduce(load_reproduction("paper-table1", "smoke"), played)
    assert "Digits of 8 × 8." in page_of(played)


@pytest.mark.slow
@pytest.mark.usefixtures("quick_pages")
def test_a_users_own_settings_stand_on_the_page(played: Path) -> None:
    command = ["reproduce", "paper-table1", "--out", str(played)]
    # As many rounds as the cells have had: nothing is played, and all of it was said.
    assert CliRunner().invoke(app, [*command, "-s", "rounds=3"]).exit_code == 0
    page = page_of(played)
    assert "Played with -s rounds=3, in all cells whose grid does not set it." in page
    assert "fedrobust reproduce paper-table1 --scale smoke -s rounds=3." in page
    record = json.loads((played / "reproduction.json").read_text())
    record["settings"].append("attack={name: sign-flip, scale: 2}")
    (played / "reproduction.json").write_text(json.dumps(record))
    assert "-s rounds=3 -s &#39;attack={name: sign-flip, scale: 2}&#39;." in page_of(played)
    (played / "reproduction.json").write_text(json.dumps(record | {"settings": ["rounds=3"]}))
    # Cells of other settings are not mixed with these, and the record stays.
    before = (played / "reproduction.json").read_bytes()
    assert CliRunner().invoke(app, [*command, "-s", "rounds=2"]).exit_code == 2
    assert (played / "reproduction.json").read_bytes() == before


def test_what_does_not_exist_is_told_with_what_there_is(shelf: Path) -> None:
    with pytest.raises(ConfigError) as error:
        load_reproduction("paper-table2", "smoke")
    assert str(error.value) == (
        "there is no reproduction 'paper-table2' (did you mean 'paper-table1'?); there are:\n"
        f"  paper-table1 --scale smoke: {TITLE} (seconds)\n"
        "  paper-figure2: on the page of paper-table1"
    )
    assert load_reproduction("paper-figure2", "smoke").name == "paper-table1"
    with pytest.raises(ConfigError, match=r"has no scale 'cpu'; it has:\n  paper-table1 --scale"):
        load_reproduction("paper-table1", "cpu")


def test_another_folder_is_left_alone(shelf: Path, tmp_path: Path) -> None:
    found = load_reproduction("paper-table1", "smoke")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("mine")
    with pytest.raises(RecordError, match=r"is not empty \(thesis.tex, ...\): choose another"):
        reproduce(found, tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.tex"]
    other = {"format": 1, "name": "paper-table9", "scale": "cpu", "title": "", "paper": "paper"}
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "reproduction.json").write_text(
        json.dumps(other | {"table": "", "sweeps": []})
    )
    with pytest.raises(RecordError, match="holds paper-table9 at scale cpu: choose another"):
        reproduce(found, tmp_path / "other")
    with pytest.raises(RecordError, match="no cell of this reproduction is finished yet"):
        write_report([tmp_path / "other"])


def test_no_link_and_no_name_leads_out_of_the_folder(shelf: Path, tmp_path: Path) -> None:
    found = load_reproduction("paper-table1", "smoke")
    out, mine = tmp_path / "out", tmp_path / "mine"
    out.mkdir()
    mine.mkdir()
    record = vars(found.record())
    stranger = {k: v for k, v in record.items() if k != "format"} | {"sweeps": ["../mine"]}
    (out / "reproduction.json").write_text(json.dumps(stranger))
    with pytest.raises(RecordError, match=r"reproduction\.json.*sweeps"):
        write_report([out])
    (out / "reproduction.json").write_text(json.dumps(stranger | {"sweeps": ["one", "two"]}))
    (out / "two").symlink_to(mine)
    with pytest.raises(RecordError, match="two is a link, and a reproduction writes into its own"):
        reproduce(found, out)
    assert list(mine.iterdir()) == []


def test_a_broken_definition_is_named(shelf: Path) -> None:
    path = shelf / "experiments/paper/reproductions.yaml"
    dump({"paper-table1": {"title": TITLE}}, path)
    with pytest.raises(ConfigError, match=r"reproductions\.yaml: paper-table1: "):
        known()
    dump({"paper-figure3": "paper-table9"}, path)
    with pytest.raises(ConfigError, match=r"reproductions\.yaml: paper-figure3: "):
        known()
    path.write_text("- a list")
    with pytest.raises(ConfigError, match="it must map names to reproductions"):
        known()
