"""The pages of rules and attacks say what the code says."""

import subprocess
import sys
from pathlib import Path

import pytest

from fedrobust.aggregators import AGGREGATORS
from fedrobust.attacks import ATTACKS

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_pages_are_up_to_date() -> None:
    command = [sys.executable, "docs/components.py", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_rule_and_attack_has_a_page() -> None:
    for folder, members in (("aggregators", AGGREGATORS), ("attacks", ATTACKS)):
        pages = {path.stem for path in (ROOT / "docs" / folder).glob("*.md")}
        assert pages == {member.name for member in members}
