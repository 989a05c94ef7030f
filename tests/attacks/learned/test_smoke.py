"""The committed config that plays both stages in seconds, through the command line, to its page."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedrobust.cli import app

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("quick_pages")]

ROOT = Path(__file__).parents[3]


def test_both_stages_are_played_and_told_of(tmp_path: Path) -> None:
    config, out = ROOT / "experiments" / "drfl" / "ring-learned-smoke.yaml", tmp_path / "run"
    shorter = ["-s", "rounds=30", "-s", "attack.wait=20", "-s", "attack.training.steps=52"]
    shorter += ["-s", "attack.horizon=10", "-s", "attack.training.check_episodes=2"]
    shorter += ["-s", "evaluation.every=30", "-s", "attack.inversion.iterations=10"]
    done = CliRunner().invoke(app, ["run", str(config), "--out", str(out), *shorter])
    assert done.exit_code == 0, done.output
    assert "warning" not in done.output
    assert CliRunner().invoke(app, ["report", str(out)]).exit_code == 0
    page = " ".join((out / "report" / "index.html").read_text().split())
    for told in (
        "observed 5 rounds, reconstructed 160 examples",
        "It acts from round 26 on.",
        "Of the policies that were checked, the policy of step",
        "of the possible harm",
    ):
        assert told in page
    # A policy that does not fit is said on the page as well, not in the summary alone.
    policy, other = tmp_path / "policy.safetensors", tmp_path / "other"
    shorter = [*shorter[:4], "-s", "attack.encoding={name: basis, directions: [own]}"]
    constant = ["-s", "attack.training={algorithm: constant, steps: 30}", *shorter]
    learnt = ["attack", "learn", str(config), "--out", str(policy), *constant]
    done = CliRunner().invoke(app, learnt)
    assert done.exit_code == 0, done.output
    assert "of the possible harm" in done.output
    used = ["-s", f"attack.policy={policy}", "-s", "attack.hold=5", *shorter]
    done = CliRunner().invoke(app, ["run", str(config), "--out", str(other), *used])
    assert done.exit_code == 0, done.output
    told = [line for line in done.stderr.splitlines() if "hold = 10" in line]
    assert len(told) == 1
    assert done.stderr.index(told[0]) < done.stderr.index("round 30 of 30"), "when it happens"
    assert CliRunner().invoke(app, ["report", str(other)]).exit_code == 0
    page = " ".join((other / "report" / "index.html").read_text().split())
    assert "was trained with hold = 10, and this attack has 5: honest updates were sent." in page
