"""The tables of a page as LaTeX and CSV: every cell, in the order of the page."""

import csv
import io
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedrobust.cli import app
from fedrobust.errors import RecordError
from fedrobust.report import write_report
from fedrobust.report.page_tables import table_files, tables_of

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
    assert next(csv.reader(io.StringIO(table.csv()))) == [
        "Run",
        "Chosen model: Round",
        "Chosen model: Robust (95 %)",
    ]
    lines = table.latex().splitlines()
    assert lines[1] == r"\begin{tabular}{lrr}"
    assert lines[5] == r"krum\_1, a \& b & 1,000 & $-$3.5 \% ($-$1 to 2) \\"
    assert lines[6] == r"\{x\} & -- & \$$\hat\rho$\$ \\"
    assert table_files(PAGE, latex=False, as_csv=True).keys() == {"table-1-scores-of-all.csv"}


@pytest.mark.parametrize(
    "record", ["fat/table3", "drfl/ring-early", "audits/mnist-krum-distillation"]
)
def test_the_tables_of_the_committed_records(record: str, tmp_path: Path) -> None:
    """Every row has as many cells as headings; a second report without them removes them."""
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


def test_a_page_without_a_table_is_refused_and_stays(tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(ROOT / "results" / "fat" / "mnist-bulyan-alie", run)
    before = write_report([run]).read_bytes()
    with pytest.raises(RecordError, match="the page of one run has no table"):
        write_report([run], latex=True)
    assert (run / "report" / "index.html").read_bytes() == before
