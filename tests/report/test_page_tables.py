"""The tables of a page as LaTeX and CSV: every cell, in the order of the page."""

import csv
import io
import re
import shutil
import zlib
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import undrawn
from made_sweep import made
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.figure import Figure
from typer.testing import CliRunner

from fedrobust.cli import app
from fedrobust.errors import RecordError
from fedrobust.report import page, style, write_report
from fedrobust.report.page_tables import PageTable, table_files, tables_of
from fedrobust.report.style import COLUMN
from fedrobust.report.sweep.figures import matrix
from fedrobust.report.sweep.page import apart

ROOT = Path(__file__).parents[2]
PAGE = """
<h2>Scores of <em>all</em></h2>
<table class="heat"><thead><tr><th>x</th></tr></thead><tbody><tr><td>1</td></tr></tbody></table>
<table>
  <thead>
    <tr><th rowspan="2">Run</th><th colspan="2">Chosen model</th></tr>
    <tr><th class="number">Round</th><th class="number">Robust<br><small>(95 %)</small></th></tr>
  </thead>
  <tbody>
    <tr><th scope="row"><span class="part">krum_1</span> <span class="part">a &amp; b</span></th>
        <td class="number">1,000</td><td class="number">−3.5 %<small>-1 to 2</small></td></tr>
    <tr><th>{x}</th><td rowspan="2">–</td><td>$ρ̂$</td></tr>
    <tr><th>y</th><td>2</td></tr>
  </tbody>
</table>
"""


def test_a_table_is_read_cell_by_cell() -> None:
    (table,) = tables_of(PAGE)
    assert table.name == "Scores of all"
    assert table.rows == [
        ["krum_1, a & b", "1,000", "−3.5 % (-1 to 2)"],
        ["{x}", "–", "$ρ̂$"],
        ["y", "–", "2"],
    ]
    assert table.numbers == [False, True, True]
    assert list(csv.reader(io.StringIO(table.csv()))) == [
        ["Run", "Chosen model: Round", "Chosen model: Robust (95 %)"],
        ["krum_1, a & b", "1000", "−3.5 % (-1 to 2)"],
        ["{x}", "", "$ρ̂$"],
        ["y", "", "2"],
    ]
    lines = table.latex().splitlines()
    assert lines[1] == r"\begin{tabular}{lrr}"
    assert lines[5] == r"krum\_1, a \& b & 1,000 & $-$3.5 \% ($-$1 to 2) \\"
    assert lines[6] == r"\{x\} & -- & \$$\hat\rho$\$ \\"
    assert table_files(PAGE, latex=False, as_csv=True).keys() == {"table-1-scores-of-all.csv"}


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
        "kept": ["–", "–", "none"],
    }
    pd.testing.assert_frame_equal(found, pd.DataFrame(expected), check_dtype=False)


def test_headings_of_a_csv_stand_alone_and_a_table_may_be_empty() -> None:
    heads = [["place", "accuracy", "paper", "robust", "paper", "seeds"]]
    rows = [["krum", "97 %", "99 %", "1", "2", "3"]]
    table = PageTable("", heads, rows, [False, *[True] * 5])
    first = table.csv().splitlines()[0]
    assert first == "place,accuracy (%),accuracy: paper (%),robust,robust: paper,seeds"
    assert (
        PageTable("", heads).csv() == "place,accuracy,accuracy: paper,robust,robust: paper,seeds\n"
    )


def test_a_value_stands_apart_from_its_range_with_its_unit() -> None:
    assert apart("93.4 (92.8 to 94.0)\u202f%") == ("93.4\u202f%", "92.8 to 94.0")
    assert apart("-1.9 (-9.2 to +5.5), a tie") == ("-1.9", "-9.2 to +5.5, a tie")
    assert apart("93.4\u202f%") == ("93.4\u202f%", "")


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
    for figure in out.glob("*.svg"):
        assert figure.with_suffix(".pdf").read_bytes().startswith(b"%PDF")
    if record == "fat/table3":
        assert CliRunner().invoke(app, command).exit_code == 0
        assert not [path for path in out.iterdir() if path.suffix in (".tex", ".csv", ".pdf")]


def _drawn(figure: Figure) -> list[tuple[str, float, float, float]]:
    """What letters a figure has: each text, its size in points, and its two ends in inches."""
    found = []

    class Recording(RendererAgg):
        def draw_text(self, gc, x, y, s, prop, angle, *more, **named):  # type: ignore
            width = self.get_text_width_height_descent(s, prop, False)[0] if angle == 0 else 0
            found.append((s, prop.get_size_in_points(), x / 100, (x + width) / 100))

    figure.draw(Recording(*(100 * figure.get_size_inches()).astype(int), 100))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("record", ["fat/mnist-bulyan-alie", "audits/mnist-krum-distillation"])
def test_figures_fit_one_column_with_letters_that_can_be_read(
    record: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """3.5 inches wide, no letter smaller than 7 points, and no text beyond the paper's edge."""
    seen = list[Figure]()

    def kept(figure: Figure) -> bytes:
        seen.append(figure)
        return b""

    def only_printed(draw: Any, narrow: bool, pdf: float) -> style.Drawing:
        return style.Drawing("<svg></svg>", "<svg></svg>", b"", style.printed(draw, pdf))

    monkeypatch.setattr(style, "_pdf", kept)
    monkeypatch.setattr(page, "render", only_printed)
    write_report([ROOT / "results" / record], tmp_path / "report", pdf=True)
    assert len(seen) > 1
    for figure in seen:
        assert figure.get_figwidth() <= COLUMN
        for text, size, left, right in _drawn(figure):
            assert size >= 7, text
            assert left > -0.01, text
            assert right < COLUMN + 0.01, text


def test_a_map_of_a_column_has_letters_that_can_be_read_beside_each_other() -> None:
    places = {(f"rule-{i}", f"attack-{j}"): [(i + j) / 30] for i in range(14) for j in range(12)}
    figure = style.styled(lambda: matrix(made(places), COLUMN))
    texts = [drawn for drawn in _drawn(figure) if drawn[0].isdigit()]
    assert len(texts) == 14 * 12
    for before, after in pairwise(texts):
        assert before[1] >= 7
        assert before[3] < after[2] or after[2] < before[2], "in a row, none touches the next one"


@pytest.mark.slow
def test_a_pdf_is_as_wide_as_asked_and_its_text_is_text(tmp_path: Path) -> None:
    def drawing(width: float) -> Figure:
        figure = Figure(figsize=(width, 2))
        figure.subplots().set_title("searchable")
        return figure

    assert COLUMN == 3.5
    for inches in (COLUMN, 7.25):
        content = style.printed(drawing, inches)
        found = re.search(rb"/MediaBox \[ *0 0 ([\d.]+)", content)
        assert found
        assert float(found[1]) == 72 * inches
    assert b"/FontFile2" in content, "the font is part of the file"
    parts = re.findall(rb"stream\r?\n(x\x9c.*?)\r?\nendstream", content, re.S)
    assert any(b" Tf" in zlib.decompress(part) for part in parts), "not outlines of letters"
    command = ["report", str(ROOT / "results/fat/mnist-bulyan-alie"), "--out", str(tmp_path / "r")]
    for words, message in (
        (["--width", "3"], "add --pdf"),
        (["--pdf", "--width", "1"], "give a width from 2.5 to 20"),
        (["--pdf", "--width", "nan"], "give a width from 2.5 to 20"),
    ):
        wrong = CliRunner().invoke(app, [*command, *words])
        assert wrong.exit_code == 2
        assert message in wrong.output


@pytest.mark.slow
@pytest.mark.usefixtures("quick_pages")
def test_a_page_without_a_table_is_refused_and_stays(tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(ROOT / "results" / "fat" / "mnist-bulyan-alie", run)
    before = write_report([run]).read_bytes()
    with pytest.raises(RecordError, match="the page of one run has no table"):
        write_report([run], latex=True)
    assert (run / "report" / "index.html").read_bytes() == before
