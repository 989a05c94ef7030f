"""What the command line imports: help, listings and mistakes are told before PyTorch is loaded."""

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from demo import ROOT

import fedrobust

TORCH = ("torch", "numpy", "scipy", "numba", "jaxtyping")
UNUSED = (
    "torch._dynamo",
    "sympy",
    "scipy.stats",
    "sklearn",
    "matplotlib",
    "jinja2",
    "gymnasium",
    "stable_baselines3",
    "ot",
)
"""What a run of the demo does not use. Each of them takes from half a second to several."""

PROGRAM = """
import json, sys
from typer.testing import CliRunner
from fedrobust.cli import app

heavy, *calls = json.loads(sys.argv[1])
for call in calls:
    done = CliRunner().invoke(app, call)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    print(json.dumps([done.exit_code, [name for name in heavy if name in sys.modules]]))
"""


def imported(heavy: tuple[str, ...], *calls: list[str]) -> list[list[object]]:
    """The exit code of each call in a new process, and which of ``heavy`` are imported then."""
    command = [sys.executable, "-c", PROGRAM, json.dumps([heavy, *calls])]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.slow
def test_help_listings_and_mistakes_of_usage_import_nothing_heavy() -> None:
    told = [[], ["--help"], ["--version"]]
    told += [["list", *more] for more in ([], ["attacks"], ["data", "digits"])]
    told += [
        [name, "--help"]
        for name in ("run", "sweep", "report", "audit", "attack", "data", "leaderboard")
    ]
    wrong = [["rum"], ["run"], ["run", "a.yaml", "--no-such"], ["list", "atack"]]
    found = imported(TORCH + UNUSED, *told, *wrong)
    assert [now for _, now in found] == [[]] * len(found)
    assert [code for code, _ in found[1 : len(told)]] == [0] * (len(told) - 1)
    assert [code for code, _ in found[len(told) :]] == [2] * len(wrong)


@pytest.mark.long
def test_a_run_imports_only_what_it_uses(tmp_path: Path) -> None:
    run = ["run", "demo", "-s", "rounds=1", "--out", str(tmp_path / "out"), "--no-report"]
    assert imported(UNUSED, run) == [[0, []]]


def test_public_names_are_imported_when_they_are_used() -> None:
    assert {*fedrobust.__all__, "open"} == set(fedrobust._HOMES) <= set(dir(fedrobust))
    for name in fedrobust._HOMES:
        inside = fedrobust._HOMES[name].partition(":")[2]
        assert getattr(fedrobust, name).__name__ == (inside or name)
    assert fedrobust.__version__ == version("fedrobust")
    with pytest.raises(AttributeError, match="no attribute 'Experimnet'"):
        _ = fedrobust.Experimnet  # type: ignore[attr-defined]
