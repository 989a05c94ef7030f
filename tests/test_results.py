"""The page of the results is what the records say, and its links lead somewhere."""

import json
import re
import sys
from copy import deepcopy
from pathlib import Path
from statistics import median

import pytest

ROOT = Path(__file__).parents[1]
NOTES = sorted((ROOT / "results").rglob("notes.md"))


def test_the_page_is_what_the_records_say_and_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "results")
    import table

    page = (ROOT / "results" / "README.md").read_text()
    assert table.page() == page, "run make results"
    assert len(page.split()) < 2500
    del sys.modules["table"]


def test_a_row_has_the_records_own_figures() -> None:
    """One by hand: what summary.json says beside what Table 3 says, and the difference."""
    cells = ROOT / "results" / "fat" / "table3" / "mnist" / "cells"
    seeds = [
        json.loads((cells / f"bulyan-convergence-of-gradients-{seed}/summary.json").read_text())
        for seed in (1, 2, 3)
    ]
    a, b = (
        100 * median(seed["test"]["best"][key] for seed in seeds)
        for key in ("accuracy", "robust_accuracy")
    )
    page = (ROOT / "results" / "README.md").read_text()
    lines = [row for row in page.splitlines() if row.startswith("| MNIST, Bulyan, convergence |")]
    (line,) = [row for row in lines if "[table3, bulyan-convergence-of-gradients]" in row]
    for reading in ("bulyan", "bulyan-n-2f"):
        for of in ("convergence", "convergence-of-gradients"):
            assert sum(f"[table3, {reading}-{of}]" in row for row in lines) == 1
    points = f"{a - 96.57:+.1f} / {b - 79.01:+.1f}".replace("-", "−")
    assert f"| {a:.1f} / {b:.1f} | 96.6 / 79.0 | {points} | 3 |" in line


def test_seeds_share_a_line_and_settings_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second seed of one reading, half a point better, beside the other reading."""
    monkeypatch.syspath_prepend(ROOT / "results")
    import table

    (row,) = [r for r in table.tables("fat")["table-3"] if r.label == "MNIST, Bulyan, no attack"]
    found = [cell for cell in table.cells_of_fat() if cell[0].name.endswith("bulyan-none-2")]
    (path, config, summary), other = found[0], deepcopy(found[0][2])
    other["test"]["best"]["accuracy"] += 0.01
    found.append((path.with_name("bulyan-none-3"), config | {"seed": 3}, other))
    found.append((path, config | {"rounds": 999}, summary))
    lines = [line.split(" | ") for line in table.beside(row, found).splitlines()]
    assert [line[4] for line in lines] == ["2", "1"]
    best = summary["test"]["best"]
    assert lines[0][1].startswith(f"{100 * best['accuracy'] + 0.5:.1f} / ")
    assert "[table3, bulyan-none]" in lines[0][-1]
    del sys.modules["table"]


@pytest.mark.parametrize(
    "path",
    [ROOT / "results" / "README.md", *NOTES, *sorted((ROOT / "docs").glob("*.md"))],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_links_lead_to_what_is_there(path: Path) -> None:
    found = [link for link in re.findall(r"\]\(([^)\s]+)\)", path.read_text()) if "//" not in link]
    for link in found:
        file, _, anchor = link.partition("#")
        there = (path.parent / file).resolve() if file else path
        assert there.exists(), link
        if anchor and there.suffix == ".md":
            heads = re.findall(r"^#+ (.*)$", there.read_text(), re.M)
            assert anchor in map(anchored, heads), link


def anchored(head: str) -> str:
    """The anchor that GitHub gives a heading."""
    plain = re.sub(r"[^\w\- ]", "", head.lower())
    return plain.strip().replace(" ", "-")
