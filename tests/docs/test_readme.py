"""The README's Python runs as it is printed, with fewer rounds, and its links lead somewhere."""

import re
import tomllib
from pathlib import Path

import pytest
from demo import ROOT

from fedrobust import open as load_run
from fedrobust.aggregators import AGGREGATORS
from fedrobust.attacks import ATTACKS


@pytest.mark.slow
def test_the_ten_lines_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.S)
    code = [line for line in block.splitlines() if line.strip()]
    assert len(code) == 10, "as the heading says"
    monkeypatch.chdir(tmp_path)
    assert block.count('load("demo")') == 1
    exec(block.replace('load("demo")', 'load("demo", ["rounds=3"])'), {})
    *_, told, page = capsys.readouterr().out.splitlines()
    best = load_run("runs/mine").summary.test.best
    assert told == f"{best.robust_accuracy:.1%} robust under PGD"
    assert Path(page).read_text("utf-8").startswith("<!doctype html>")


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
    assert (
        f"| attack and defend | {len(AGGREGATORS)} rules and {len(ATTACKS)} attacks, each" in text
    )
