"""A kill or a full disk at any write of any command: it goes on, and nothing is left to remove."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
PLACES = os.pathsep.join([str(HERE.parents[1] / "shared"), os.environ.get("PYTHONPATH", "")])
TRIED = os.environ.get("FEDROBUST_KILLS")
"""How many writes of each command are tried, or all of them."""


@pytest.mark.parametrize(
    ("command", "least", "tried"),
    [
        ("run", 100, 6),
        ("sweep", 100, 4),
        ("attack-learn", 60, 3),
        ("learned", 100, 4),
        ("audit", 30, 4),
        ("report", 40, 3),
    ],
)
def test_a_fault_at_any_write_loses_nothing(
    command: str, least: int, tried: int, tmp_path: Path
) -> None:
    played = subprocess.run(
        [sys.executable, HERE / "play.py", command, tmp_path, TRIED or str(tried)],
        env=os.environ | {"PYTHONPATH": PLACES, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert played.returncode == 0, played.stderr
    found = json.loads(played.stdout)
    assert found["wrong"] == {}
    assert found["writes"] >= least
    assert found["tried"] >= (found["writes"] if TRIED == "all" else int(TRIED or tried))
