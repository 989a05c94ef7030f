"""The claim that an audit tries to refute: a run's own, FAT's, or one that the user names."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file
from typer.testing import CliRunner

from fedrobust.cli import app
from fedrobust.errors import ConfigError
from fedrobust.models import DigitsCnn
from fedrobust.perturb import Pgd
from fedrobust.runs.claim import claim_of

RUNS = Pgd(eps=0.3, step_size=0.01, steps=40)
THRICE = replace(RUNS, restarts=3, random_start=False)
L2: dict[str, Any] = {"eps": 1.0, "norm": "l2", "step_size": 0.2, "steps": 7}


@pytest.mark.parametrize(
    ("known", "options", "found"),
    [
        (RUNS, (None, None, None), (0.3, "linf", RUNS)),
        (RUNS, (0.3, "linf", None), (0.3, "linf", RUNS)),
        (RUNS, (0.1, None, None), (0.1, "linf", None)),
        (RUNS, (None, None, "5x0.1"), (0.3, "linf", Pgd(eps=0.3, step_size=0.1, steps=5))),
        (THRICE, (None, None, "5x0.1"), (0.3, "linf", replace(THRICE, step_size=0.1, steps=5))),
        (THRICE, (1.0, "l2", "7x0.2"), (1.0, "l2", replace(THRICE, **L2))),
        (None, (0.1, None, "20×2/255"), (0.1, "linf", Pgd(eps=0.1, step_size=2 / 255, steps=20))),
        (None, (1.0, "l2", " 7 X 0.2"), (1.0, "l2", Pgd(1.0, 0.2, 7, norm="l2"))),
        (None, (0.1, None, None), (0.1, "linf", None)),
    ],
)
def test_the_claim_is_the_runs_own_unless_the_options_differ(
    known: Pgd | None,
    options: tuple[float | None, str | None, str | None],
    found: tuple[float, str, Pgd | None],
) -> None:
    assert claim_of(known, *options) == found


@pytest.mark.parametrize("said", ["40", "0.1", "x0.1", "40x", "4x1/0", "0x0.1", "4x-1", "4x1e999"])
def test_what_is_no_pgd_is_told_how_to_be_written(said: str) -> None:
    with pytest.raises(ConfigError, match=r"--claim is .* such as 40x0\.01 or 20x2/255"):
        claim_of(None, 0.1, None, said)


def test_the_audit_of_a_file_tries_the_claim_that_was_named(tmp_path: Path) -> None:
    """One small step refutes hardly anything: more is claimed than FAT's PGD would leave."""
    save_file(DigitsCnn().build((1, 8, 8), 10).state_dict(), tmp_path / "net.safetensors")
    words = ["audit", str(tmp_path / "net.safetensors"), "--model", "digits-cnn"]
    words += ["--data", "digits", "--eps", "0.1", "--samples", "40"]
    found = {}
    for name, more in (("fat", []), ("weak", ["--claim", "1x0.0001"])):
        done = CliRunner().invoke(app, [*words, *more, "--out", str(tmp_path / name)])
        assert done.exit_code == 0, done.output
        found[name] = json.loads((tmp_path / name / "audit.json").read_text())
    assert found["fat"]["settings"]["claim"] == "PGD 40 x 0.003333, restarts 1"
    assert found["weak"]["settings"]["claim"] == "PGD 1 x 0.0001, restarts 1"
    assert found["weak"]["asked"]["claim"] == "1x0.0001"
    assert found["weak"]["robust"] == found["fat"]["robust"]
    other = CliRunner().invoke(app, [*words, "--resume", "--out", str(tmp_path / "weak")])
    assert other.exit_code == 2
    assert "differ in claim: 1x0.0001 there, None here" in " ".join(other.output.split())
