"""The examples in docstrings give what they say."""

import doctest
from importlib import import_module
from pathlib import Path

import pytest
from demo import ROOT

SOURCE = ROOT / "src"
FOUND = [path for path in sorted(SOURCE.rglob("*.py")) if ">>> " in path.read_text("utf-8")]


def test_there_are_examples() -> None:
    assert len(FOUND) >= 7


@pytest.mark.parametrize("path", FOUND, ids=lambda path: path.stem)
def test_the_examples_of_a_module(path: Path) -> None:
    module = import_module(".".join(path.relative_to(SOURCE).with_suffix("").parts))
    found = doctest.testmod(module)
    assert found.failed == 0
    assert found.attempted > 0
