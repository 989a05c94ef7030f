"""The tables of a page as they are read, and its tables and figures for a paper."""

import csv
import io
import re
import shutil
import zlib
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from made_sweep import made
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.figure import Figure
from typer.testing import CliRunner

from fedrobust.cli import app
from fedrobust.errors import RecordError
from fedrobust.report import page, style, write_report
from fedrobust.report.page_tables import table_files
from fedrobust.report.style import COLUMN
from fedrobust.report.sweep.figures import matrix
from fedrobust.report.sweep.page import apart
from fedrobust.report.tables_of_page import tables_of

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
    found = table_files([table], latex=False, as_csv=True)
    assert found.keys() == {"table-1-scores-of-all.csv"}


def test_a_heading_of_several_parts_has_a_column_for_each() -> None:
    """So that the axes of a sweep are numbers, and not two numbers in one cell."""
    head = '<tr><th><span class="part">rate</span> <span class="part">ratio</span></th>{}</tr>'
    row = '<tr><th><span class="part">{}</span> <small class="part">{}</small></th>{}</tr>'
    value = '<td class="number">7 %<small>6 to 8</small></td>'
    rows = row.format("0.005", "0.5", value) + row.format("0.002", "a <small>b</small>", value)
    short = f'<tr><th><span class="part">all</span></th>{value}</tr>'
    many = f"<tr><th>{''.join(f'<i class=part>{i}</i>' for i in range(3))}</th>{value}</tr>"
    body = f"<tbody>{rows}{short}{many}</tbody>"
    page = f"<table><thead>{head.format('<th>robust</th>')}</thead>{body}</table>"
    (table,) = tables_of(page)
    assert table.csv().splitlines() == [
        "rate,ratio,robust (%),robust (%): low,robust (%): high",
        "0.005,0.5,7,6,8",
        "0.002,a (b),7,6,8",
        "all,,7,6,8",
        '0,"1, 2",7,6,8',
    ]
    assert table.latex().splitlines()[1] == r"\begin{tabular}{llr}"


def test_a_value_stands_apart_from_its_range_with_its_unit() -> None:
    assert apart("93.4 (92.8 to 94.0)\u202f%") == ("93.4\u202f%", "92.8 to 94.0")
    assert apart("-1.9 (-9.2 to +5.5), a tie") == ("-1.9", "-9.2 to +5.5, a tie")
    assert apart("93.4\u202f%") == ("93.4\u202f%", "")


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
