"""A fingerprint of an unchanged object is the same in every process."""

import os
import subprocess
import sys

import pytest

OBJECTS = """
from fedrobust.config.fingerprint import fingerprint

class Holder:
    def __init__(self, *items):
        self.items, self.fixed = set(items), frozenset(items)

def rule(updates):
    return updates if updates in {"a", "b", "c", "d", "e"} else None

words = [f"word {i}" for i in range(20)]
print(fingerprint(rule), fingerprint(Holder(*words)), fingerprint(Holder(*words[1:])))
"""


@pytest.mark.slow
def test_sets_are_told_by_their_items() -> None:
    """Python orders a set of texts anew in each process."""
    found = [
        subprocess.run(
            [sys.executable, "-c", OBJECTS],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
            text=True,
        ).stdout.split()
        for seed in ("1", "2")
    ]
    assert found[0] == found[1]
    assert len(set(found[0])) == 3
    assert "None" not in found[0]
