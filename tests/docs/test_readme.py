"""The README's Python runs as it is printed, with fewer rounds."""

import os
import re
from pathlib import Path

import pytest
from demo import ROOT


def test_python_blocks_run_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.S)
    assert len(blocks) == 3
    monkeypatch.chdir(tmp_path)
    scope: dict[str, object] = {}
    for block in blocks:
        exec(block.replace("rounds=100", "rounds=3").replace("range(200)", "range(20)"), scope)
    right = scope["model"](scope["x"].float() / 16).argmax(dim=1) == scope["y"]
    assert right.double().mean() > 0.2  # a loop of 20 rounds learns something
    assert os.listdir("runs") == ["digits"]


def test_files_that_the_readme_links_to_exist() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", (ROOT / "README.md").read_text("utf-8")):
        assert (ROOT / target).exists(), target
