"""The Python of the documentation runs as it is printed, page by page."""

import re
from pathlib import Path

import pytest
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
    (tmp_path / "experiments").symlink_to(ROOT / "experiments")
    monkeypatch.chdir(tmp_path)
    scope: dict[str, object] = {"__name__": "__main__"}
    for block in blocks:
        exec(block.replace("rounds=20", "rounds=3"), scope)


def test_the_pages_link_to_what_is_there() -> None:
    for page in PAGES:
        path = ROOT / "docs" / page
        for target in re.findall(r"\]\(([^)#:]+)\)", path.read_text("utf-8")):
            assert (path.parent / target).exists(), (page, target)
