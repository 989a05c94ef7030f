"""The pages of rules and attacks say what the code says."""

import sys
from importlib import import_module

import pytest
from demo import ROOT

from fedrobust.aggregators import AGGREGATORS
from fedrobust.attacks import ATTACKS


@pytest.mark.slow
def test_the_pages_are_up_to_date(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    monkeypatch.setattr(sys, "argv", ["components.py", "--check"])
    components = import_module("components")
    assert components.main() == 0, capsys.readouterr().out


def test_every_rule_and_attack_has_a_page() -> None:
    for folder, members in (("aggregators", AGGREGATORS), ("attacks", ATTACKS)):
        pages = {path.stem for path in (ROOT / "docs" / folder).glob("*.md")}
        assert pages == {member.name for member in members}
