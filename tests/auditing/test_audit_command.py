"""``fedrobust audit``: a run, a file of weights, a module of one's own, and what is refused."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from fedrobust import Experiment, run
from fedrobust.cli import app
from fedrobust.perturb import Pgd

QUICK = ["--samples", "30"]


def called(*words: str) -> Result:
    return CliRunner().invoke(app, ["audit", *words])


def test_a_run_is_audited_as_it_claims(tmp_path: Path, tiny: Callable[..., Experiment]) -> None:
    claim = Pgd(eps=0.05, step_size=0.02, steps=3)
    evaluation = {"every": 2, "attack": claim}
    run(tiny(rounds=4, evaluation=evaluation), tmp_path / "run")
    found = called(str(tmp_path / "run"), *QUICK, "--out", str(tmp_path / "audit.json"))
    assert found.exit_code == 0, found.output
    content = json.loads((tmp_path / "audit.json").read_text())
    assert content["verdict"] in found.output
    assert content["shares"]["claimed"]["total"] == 30
    assert {s["name"] for s in content["signs"]} >= {"queries beat plain PGD", "the gradient is 0"}
    again = called(str(tmp_path / "run"), *QUICK, "--out", str(tmp_path / "audit.json"))
    assert again.exit_code == 2
    assert "was not overwritten" in again.output

    weights = str(tmp_path / "run" / "best.safetensors")
    named = ["--data", "digits", "--eps", "0.05", *QUICK]
    from_weights = called(weights, "--model", "digits-cnn", *named)
    assert from_weights.exit_code == 0, from_weights.output
    for words, message in (
        ((weights, *named), "name the network"),
        ((weights, "--model", "mnist-cnn-small", *named), "weights of another network"),
        ((weights, "--model", "digits-cmn", *named), "did you mean"),
        ((weights, "--model", "digits-cnn", "--eps", "0.1"), "name the data"),
        ((weights, "--model", "digits-cnn", "--data", "digits"), "name the radius"),
        ((str(tmp_path), *named), "is no run directory"),
        (("nothing", *named), "does not exist"),
        (("fedrobust:nothing", *named), "fedrobust:nothing"),
        ((weights, "--model", "digits-cnn", *named, "--norm", "l1"), "it can be linf or l2"),
        ((weights, "--model", "digits-cnn", *named, "--budget", "huge"), "it can be quick"),
        ((weights, "--model", "digits-cnn", "--data", "digits", "--eps", "0"), "without a ball"),
    ):
        wrong = called(*words)
        assert wrong.exit_code == 2, (words, wrong.output)
        assert message in wrong.output, (words, wrong.output)
    (tmp_path / "run" / "best.safetensors").write_bytes(b"nonsense")
    assert "cannot be read" in called(str(tmp_path / "run"), *QUICK).output
    (tmp_path / "run" / "best.safetensors").unlink()
    assert "finish the run" in called(str(tmp_path / "run"), *QUICK).output
    assert called(str(tmp_path / "run"), "--last", *QUICK).exit_code == 0


def test_a_module_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text(
        "from torch import nn\n"
        "model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))\n"
        "def make():\n    return model\n"
        "other = 3\n"
    )
    monkeypatch.chdir(tmp_path)
    for name in ("mine:model", "mine:make"):
        found = called(name, "--data", "digits", "--eps", "0.05", *QUICK)
        assert found.exit_code == 0, found.output
        assert "clean" in found.output
    assert called("mine:other", "--data", "digits", "--eps", "0.05").exit_code == 2
