"""The Python of the documentation runs as it is printed, page by page."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from demo import ROOT

pytestmark = pytest.mark.long
PAGES = ("python.md", "own/model.md", "own/data.md", "own/rule-and-attack.md", "own/objective.md")


@pytest.mark.parametrize("page", PAGES)
def test_the_blocks_of_a_page_run_in_order(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (ROOT / "docs" / page).read_text("utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.S)
    assert len(blocks) == text.count("```python") > 0
    monkeypatch.chdir(tmp_path)
    scope: dict[str, Any] = {"__name__": "__main__"}
    fewer = {"rounds=20": "rounds=3", "rounds=100": "rounds=3", "range(200)": "range(60)"}
    for block in blocks:
        torch.manual_seed(0)  # of a network that a block makes
        for told, played in fewer.items():
            block = block.replace(told, played)
        exec(block, scope)
    if page == "python.md":  # its own loop learns something
        right = scope["trained"](scope["x"].float() / 16).argmax(dim=1) == scope["y"]
        assert right.double().mean() > 0.5


def test_the_pages_link_to_what_is_there() -> None:
    for page in PAGES:
        path = ROOT / "docs" / page
        for target in re.findall(r"\]\(([^)#:]+)\)", path.read_text("utf-8")):
            assert (path.parent / target).exists(), (page, target)
