"""The notebook runs from its first cell to its last, and shows what it says."""

from pathlib import Path

import nbformat
import pytest
from demo import ROOT
from nbclient import NotebookClient

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


def test_the_tour_runs(tmp_path: Path) -> None:
    tour = nbformat.read(ROOT / "examples" / "tour.ipynb", as_version=4)
    shorter = {"rounds=60": "rounds=4", "every=10": "every=2", "samples=300": "samples=60"}
    shorter |= {"range(200)": "range(20)", "[:200]": "[:20]"}
    for cell in tour.cells:
        for long, short in shorter.items():
            cell.source = cell.source.replace(long, short)
    NotebookClient(tour, timeout=300, resources={"metadata": {"path": tmp_path}}).execute()
    outputs = [o for cell in tour.cells for o in cell.get("outputs", ())]
    kinds = [kind for o in outputs for kind in o.get("data", ())]
    assert "image/png" in kinds  # the figure
    assert kinds.count("text/html") == 2  # the run, and the table of its evaluations
    said = "".join(o.get("text", "") for o in outputs)
    assert "accurate; the last round kept" in said
    assert "Krum takes row" in said
