"""The README's Python runs as it is printed, with fewer rounds."""

import os
import re
import tomllib
from pathlib import Path

import pytest
import torch
from demo import ROOT


@pytest.mark.slow
def test_python_blocks_run_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.S)
    assert len(blocks) == 3
    monkeypatch.chdir(tmp_path)
    scope: dict[str, object] = {}
    for block in blocks:
        torch.manual_seed(0)  # of the block's own module
        exec(block.replace("rounds=100", "rounds=3").replace("range(200)", "range(60)"), scope)
    right = scope["trained"](scope["x"].float() / 16).argmax(dim=1) == scope["y"]
    assert right.double().mean() > 0.5  # a loop of 60 rounds learns something
    assert os.listdir("runs") == ["digits"]


def test_files_that_the_readme_links_to_exist() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", (ROOT / "README.md").read_text("utf-8")):
        assert (ROOT / target).exists(), target


def test_the_description_on_a_package_index_has_no_link_without_a_target() -> None:
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]
    hook = tool["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]
    readme = (ROOT / "README.md").read_text("utf-8")
    text = readme
    for each in hook["substitutions"]:
        text = re.sub(each["pattern"], each["replacement"], text)
    assert [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link] == []
    assert "<!--" not in text
    assert "An honest page" not in text, "there is no picture above it"
    fence = re.compile(r"```.*?```", re.S)
    assert fence.findall(text) == fence.findall(readme)
    assert "rules | Mean, Median, TrimmedMean" in text
