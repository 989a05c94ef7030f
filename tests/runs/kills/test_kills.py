"""A kill or a full disk at any write of any command: it goes on, and nothing is left to remove."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.long

HERE = Path(__file__).parent
PLACES = os.pathsep.join([str(HERE.parents[1] / "shared"), os.environ.get("PYTHONPATH", "")])
TRIED = os.environ.get("FEDROBUST_KILLS")
"""How many writes of each command are tried, or all of them."""


# The least number of writes of each command, and how many of them are tried.
RECORDS = {
    "run": (100, 5),
    "extend": (100, 2),
    "sweep": (100, 2),
    "audit": (30, 2),
    "report": (40, 2),
}
LEARNING = {"attack-learn": (60, 2), "learned": (100, 2)}


@pytest.mark.parametrize("commands", [RECORDS, LEARNING], ids=["records", "learning"])
def test_a_fault_at_any_write_loses_nothing(
    commands: dict[str, tuple[int, int]], tmp_path: Path
) -> None:
    points = [f"{name}={TRIED or tried}" for name, (_, tried) in commands.items()]
    played = subprocess.run(
        [sys.executable, HERE / "play.py", tmp_path, *points],
        env=os.environ | {"PYTHONPATH": PLACES, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert played.returncode == 0, played.stderr
    for name, found in json.loads(played.stdout).items():
        least, tried = commands[name]
        assert found["wrong"] == {}, name
        assert found["writes"] >= least, name
        assert found["tried"] >= (found["writes"] if TRIED == "all" else int(TRIED or tried)), name
