"""The tables of a page as CSV: what pandas reads back are numbers, one in a cell."""

import csv
import io
import json
import re
from pathlib import Path

import pandas as pd
import pytest
import undrawn
from synthetic_run import make_run
from typer.testing import CliRunner

from fedrobust.cli import app
from fedrobust.report import page, write_report
from fedrobust.report.page_tables import PageTable

ROOT = Path(__file__).parents[2]


def test_a_csv_has_numbers_and_what_stands_beside_them() -> None:
    """Read back by pandas; a column of two units or of words only is left as it is."""
    heads = [["rule", "error", "ρ̂", "rounds", "time", "kept"]]
    rows = [
        ["krum", "−1.9\u202f% (-9.2 to +5.5, a tie)", "reference", "26,070", "2 min", "–"],
        ["mean", "1,234.5\u202f%", "+5.8e-07 (7.2e-11 to 0.1)", "–", "3 s", "–"],
        ["median", "–", "-0.000 (3 of 5 seeds)", "4", "4 s", "none"],
    ]
    table = PageTable("", heads, rows, [False, True, True, True, True, True])
    found = pd.read_csv(io.StringIO(table.csv()))
    none = float("nan")
    expected = {
        "rule": ["krum", "mean", "median"],
        "error (%)": [-1.9, 1234.5, none],
        "error (%): low": [-9.2, none, none],
        "error (%): high": [5.5, none, none],
        "error (%): remark": ["a tie", none, none],
        "ρ̂": [none, 5.8e-7, 0.0],
        "ρ̂: low": [none, 7.2e-11, none],
        "ρ̂: high": [none, 0.1, none],
        "ρ̂: remark": ["reference", none, "3 of 5 seeds"],
        "rounds": [26070, none, 4],
        "time": ["2 min", "3 s", "4 s"],
        "kept": [none, none, "none"],
    }
    pd.testing.assert_frame_equal(found, pd.DataFrame(expected), check_dtype=False)


def test_numbers_in_columns_of_words_are_numbers_too() -> None:
    """As a program reads them; what only looks like a number stays as it is."""
    cells = {
        "batch": (["1,024", "64", "–"], [1024, 64, None]),
        "k": (["−1", "−1.5", "1e−05"], [-1, -1.5, 1e-5]),
        "eps": (["8/255", "0.1", "–"], [0.0313725, 0.1, None]),
        "loss": (["inf", "1,234.5", "−inf"], [float("inf"), 1234.5, -float("inf")]),
        "rule": (["Bulyan, f 12", "–", "1,024"], ["Bulyan, f 12", None, "1024"]),
        "seeds": (["0,1", "0, 1", "1-2"], ["0,1", "0, 1", "1-2"]),
    }
    rows = [list(row) for row in zip(*(shown for shown, _ in cells.values()), strict=True)]
    table = PageTable("", [list(cells)], rows, [False] * len(cells))
    found = pd.read_csv(io.StringIO(table.csv()))
    expected = pd.DataFrame({head: wanted for head, (_, wanted) in cells.items()})
    pd.testing.assert_frame_equal(found, expected, check_dtype=False)


def test_headings_of_a_csv_stand_alone_and_a_table_may_be_empty() -> None:
    heads = [["place", "accuracy", "paper", "robust", "paper", "seeds"]]
    rows = [["krum", "97 %", "99 %", "1", "2", "3"]]
    table = PageTable("", heads, rows, [False, *[True] * 5])
    first = table.csv().splitlines()[0]
    assert first == "place,accuracy (%),accuracy: paper (%),robust,robust: paper,seeds"
    assert (
        PageTable("", heads).csv() == "place,accuracy,accuracy: paper,robust,robust: paper,seeds\n"
    )


_FOR_PEOPLE = re.compile(r"–|[+−]?\d{1,3}(,\d{3})+(\.\d+)?|[−+][\d.]+|[\d.,−-]+\s?%")
"""How a page writes nothing and numbers, and what is no number to a program."""


def read(folder: Path) -> dict[str, pd.DataFrame]:
    """The CSV files of a report by the heading of their table; each number is one."""
    found = {p.stem.split("-", 2)[2]: pd.read_csv(p) for p in sorted(folder.glob("table-*.csv"))}
    for table in found.values():
        for head, column in table.items():
            for cell in column[column.map(lambda cell: isinstance(cell, str))]:
                assert not _FOR_PEOPLE.fullmatch(cell), (head, cell)
    return found


@pytest.mark.slow
def test_the_csv_of_compared_runs_has_numbers(tmp_path: Path) -> None:
    """Settings too, and what a blind choice keeps beside what the rule keeps."""
    alie = {"name": "a-little-is-enough"}
    client = {"batch_size": 1024, "batches": 1, "optimizer": {"name": "sgd", "lr": 0.1}}
    runs = [
        make_run(tmp_path / "a", rounds=1000, name="a", attack=alie | {"k": -1.0}, client=client),
        make_run(tmp_path / "b", rounds=1000, name="b", attack=alie | {"k": -1.5}),
        make_run(
            tmp_path / "c", rounds=1000, name="c", kept_share=None, aggregator={"name": "mean"}
        ),
    ]
    write_report(runs, tmp_path / "report", csv=True)
    table = read(tmp_path / "report")["scores"].set_index("Run")
    kept, blind = "Malicious rows kept: By the rule (%)", "Malicious rows kept: Blind choice (%)"
    scores = ["Chosen model: Accuracy (%)", "Last model: Robust (%)", kept, blind]
    for head in ["Chosen model: Round", *scores, "Attack.k"]:
        assert pd.api.types.is_numeric_dtype(table[head]), head
    assert table[blind].round(1).to_dict() == pytest.approx(
        {"a": 52.9, "b": 52.9, "c": float("nan")}, nan_ok=True
    )
    assert table["Attack.k"].to_dict() == {"a": -1.0, "b": -1.5, "c": -1.0}
    assert not [head for head in table if "remark" in head]
    page = (tmp_path / "report" / "index.html").read_text()
    assert "drawn at random in each round" in page.split("<h2>Accuracy")[0]


@pytest.mark.slow
def test_the_csv_of_an_audit_has_numbers_and_no_sentences_for_them(tmp_path: Path) -> None:
    place = ROOT / "results/audits/mnist-krum-distillation"
    write_report([place], tmp_path / "report", csv=True)
    checks = read(tmp_path / "report")["can-plain-pgd-be-believed"].set_index("check")
    found = checks[["found (%)", "found (%): low", "found (%): high", "allowed up to (%)"]]
    assert found.loc["rescaled logits"].tolist() == [70.6, 66.3, 74.3, 5]
    assert found.loc["random points"].tolist() == [-7.0, -9.3, -4.6, 5], "fewer than plain PGD"
    assert checks.loc["more starts", "result"] == "unsure"


@pytest.mark.slow
def test_the_tables_of_a_leaderboard_are_its_ranking_and_every_rule_once(tmp_path: Path) -> None:
    place = ROOT / "results/leaderboard"
    write_report([place], tmp_path / "report", csv=True, latex=True)
    found = read(tmp_path / "report")
    rows = json.loads((tmp_path / "report" / "table.json").read_text())["rows"]
    ranked = [row for row in rows if row["rank"]]
    ranking = found["ranking-on-mnist"].set_index("rule")
    assert ranking["rank"].to_dict() == {row["rule"]: row["rank"] for row in ranked}
    for row in ranked:
        mine, worst = ranking.loc[row["rule"]], row["worst"]
        assert mine["true robust (%)"] == round(100 * worst["robust"], 1)
        assert mine["true robust (%): low"] == round(100 * worst["low"], 1)
        assert mine["true robust (%): high"] == round(100 * worst["high"], 1)
        assert mine["worst attack"] == worst["attack"]
    every = found["every-rule-under-each-attack-on-mnist"]
    files = [path.stem.rpartition("-")[0] for path in (place / "mnist").glob("*.json")]
    assert sorted(every["rule"] + "-" + every["attack"]) == sorted(files)
    assert list(found) == [
        "ranking-on-mnist",
        "every-rule-under-each-attack-on-mnist",
        "ranking-on-mnist-other-attackers-at-most",
        "ranking-on-mnist-own-data-at-most",
    ]
    text = (tmp_path / "report" / "table-1-ranking-on-mnist.tex").read_text()
    assert r"1 & median & fang-krum & 56.9 (53.8 to 59.9) & 69.4 &" in text


@pytest.mark.slow
@pytest.mark.parametrize(
    "record", ["fat/table3", "drfl/ring-early", "audits/mnist-krum-distillation"]
)
def test_the_tables_of_the_committed_records(
    record: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every row has as many cells as headings; a second report without them removes them."""
    if not record.startswith("audits"):  # the figures of one record are enough
        monkeypatch.setattr(page, "render", undrawn.made)
    out = tmp_path / "report"
    place = str(ROOT / "results" / record)
    command = ["report", place, "--out", str(out)]
    assert CliRunner().invoke(app, [*command, "--latex", "--csv", "--pdf"]).exit_code == 0
    tables = sorted(out.glob("table-*.csv"))
    assert tables
    for path in tables:
        head, *rows = csv.reader(path.read_text().splitlines())
        assert rows
        assert {len(row) for row in rows} == {len(head)}
        assert all(row[0] for row in rows)
        text = path.with_suffix(".tex").read_text()
        assert text.isascii(), "any LaTeX can read it"
        assert len(text.splitlines()) == len(rows) + 7
    found = read(out)
    for figure in out.glob("*.svg"):
        assert figure.with_suffix(".pdf").read_bytes().startswith(b"%PDF")
    if record == "fat/table3":
        chosen = found["ours-and-the-paper-s"]
        assert chosen["round"].notna().all(), "one number, also of several seeds"
        assert (chosen["round: high"].max(), chosen["seeds"].max()) == (1000, 3)
        assert CliRunner().invoke(app, command).exit_code == 0
        assert not [path for path in out.iterdir() if path.suffix in (".tex", ".csv", ".pdf")]
