"""What a command says of its result, of doubts about it, and of how to go on with it."""

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from demo import demo_config
from ruamel.yaml import YAML
from typer.testing import CliRunner

from fedrobust.cli import app
from fedrobust.cli.result import print_run, tell_doubts
from fedrobust.runs import run as running


def score(round: int, verdict: str, robust: float) -> dict[str, Any]:
    audit = {"verdict": verdict, "claimed": 0.5, "robust": robust, "examples": 300}
    shares = {"accuracy": 0.9, "robust_accuracy": 0.5, "examples": 300}
    return {"round": round, "audit": audit} | shares


def test_both_models_audits_are_told_and_a_masked_one_is_a_warning(
    capsys: pytest.CaptureFixture[str],
) -> None:
    test = {"best": score(20, "masked", 0.25), "final": score(30, "genuine", 0.45)}
    summary = {"test": test, "troubles": ["the attack: it waits"]}
    print_run(summary, Path("runs/x"))
    tell_doubts(summary, err=True)
    said = capsys.readouterr()
    audits = [line for line in said.out.splitlines() if line.startswith("audit")]
    assert [line.split(": ")[0].split("model of ")[1] for line in audits] == [
        "round 20 (chosen on validation)",
        "round 30 (final)",
    ]
    assert "masked" in audits[0]
    assert "25.00%" in audits[0]
    assert said.err.splitlines() == [
        "warning: the robust accuracy of the model of round 20 is not real: the audit calls it "
        "masked",
        "warning: the attack: it waits",
    ]


def test_the_split_that_chose_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    test = {"best": score(20, "genuine", 0.25), "final": score(30, "genuine", 0.45)}
    chosen = {"validation": {"best": {"split": "train"}, "final": {}}}
    print_run(chosen | {"test": test, "troubles": []}, Path("runs/x"))
    assert "round 20 (chosen on train)" in capsys.readouterr().out


def test_one_model_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    test = {"best": score(30, "masked", 0.25), "final": score(30, "masked", 0.25)}
    summary = {"test": test, "troubles": []}
    print_run(summary, Path("runs/x"))
    tell_doubts(summary, err=False)
    said = capsys.readouterr()
    assert said.out.count("audit of the model") == 1
    assert said.out.count("is not real") == 1
    assert not said.err


def test_an_interrupted_command_says_the_whole_command_that_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, out = tmp_path / "my config.yaml", tmp_path / "out"
    YAML(typ="safe").dump(demo_config(rounds=2), config)

    def interrupted(*words: Any, **keys: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(running, "play", interrupted)
    given = ["-s", "seed=3", "--set", "client.optimizer.lr=1e-3", "--rounds", "4"]
    for more in ([], ["--resume"]):
        words = ["run", str(config), *given, "--out", str(out), "-q", *more]
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 130
        (said,) = (line for line in done.stderr.splitlines() if line.startswith("stopped"))
        assert shlex.split(said)[shlex.split(said).index("run") :] == [
            *("run", str(config), "--set", "seed=3", "--set", "client.optimizer.lr=1e-3"),
            *("--rounds", "4", "--out", str(out), "--quiet", "--resume"),
        ]


@pytest.mark.parametrize("option", ["-q", "--json"])
def test_doubts_are_told_where_the_result_is_not_shown(
    option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_attack.py").write_text(
        "import torch\n"
        "class Infinite:\n"
        "    def craft(self, state, view, rng):\n"
        "        return torch.full((view.rows, len(view.parameters)), torch.inf), state\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    config = tmp_path / "config.yaml"
    YAML(typ="safe").dump(demo_config(rounds=2, attack={"name": "my_attack:Infinite"}), config)
    words = ["run", str(config), "--out", str(tmp_path / "out"), "--no-report", option]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert "warning: rows of clients" in done.stderr
    assert "warning" not in done.stdout.partition('"summary"')[0]


def test_a_quiet_run_still_warns_of_settings_that_may_be_a_mistake(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    YAML(typ="safe").dump(demo_config(rounds=1, malicious=0), config)
    words = ["run", str(config), "--out", str(tmp_path / "out"), "--no-report", "-q"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert not done.stdout
    told = "warning: an attack is configured, but malicious is 0: nobody attacks"
    assert done.stderr.splitlines() == [told]
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert told.removeprefix("warning: ") in summary["notes"]
