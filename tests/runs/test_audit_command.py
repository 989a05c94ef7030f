"""``fedrobust audit``: a run, a file of weights, a module of one's own, and what is refused."""

import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from html import unescape
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from typer.testing import CliRunner, Result

from fedrobust import Experiment, run
from fedrobust.cli import app
from fedrobust.data import Digits
from fedrobust.evaluation import Audit, audit
from fedrobust.models import DigitsCnn, build_model
from fedrobust.perturb import Pgd
from fedrobust.report import write_report

QUICK = ["--samples", "12"]


def called(*words: str) -> Result:
    return CliRunner().invoke(app, ["audit", *words])


@pytest.mark.long
@pytest.mark.usefixtures("quick_pages")
def test_a_run_is_audited_as_it_claims(tmp_path: Path, tiny: Callable[..., Experiment]) -> None:
    claim = Pgd(eps=0.05, step_size=0.02, steps=3)
    evaluation = {"every": 2, "attack": claim}
    run(tiny(rounds=4, evaluation=evaluation), tmp_path / "run")
    found = called(str(tmp_path / "run"), *QUICK, "--out", str(tmp_path / "audit"))
    assert found.exit_code == 0, found.output
    content = json.loads((tmp_path / "audit" / "audit.json").read_text())
    assert not (tmp_path / "audit" / "progress.jsonl").exists()
    page = (tmp_path / "audit" / "report" / "index.html").read_text()
    assert content["verdict"].capitalize() in page
    assert content["verdict"] in found.output
    assert content["shares"]["claimed"]["total"] == 12
    assert {s["name"] for s in content["signs"]} >= {"Square beats plain PGD", "the gradient is 0"}
    words = [str(tmp_path / "run"), *QUICK, "--out", str(tmp_path / "audit")]
    again = called(*words)
    assert again.exit_code == 2
    assert "was not overwritten" in again.output
    read = called(*words, "--resume")
    assert read.exit_code == 0
    assert str(Audit.from_json(content)) in read.output
    assert json.loads((tmp_path / "audit" / "audit.json").read_text()) == content
    other = called(*words, "--resume", "--eps", "0.06")
    assert other.exit_code == 2
    assert "another model, or with other settings" in other.output
    assert "differ in eps: None there, 0.06 here" in " ".join(other.output.split())
    assert content["fedrobust"] == version("fedrobust")

    # Trained again, or overwritten: what is there now was never audited.
    best = (tmp_path / "run" / "best.safetensors").read_bytes()
    (tmp_path / "run" / "best.safetensors").write_bytes(begun(tmp_path))
    retrained = called(*words, "--resume")
    assert retrained.exit_code == 2
    assert "another model, or with other settings" in retrained.output
    assert "differ in the model's weights" in " ".join(retrained.output.split())
    (tmp_path / "run" / "best.safetensors").write_bytes(best)
    assert called(*words, "--resume").exit_code == 0

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
        ((weights, "--model", "digits-cnn", *named, "--data", "no.npz"), "(looked in "),
        ((str(tmp_path), *named), "is no run directory"),
        (("nothing", *named), "does not exist"),
        (("fedrobust:nothing", *named), "fedrobust:nothing"),
        ((weights, "--model", "digits-cnn", *named, "--norm", "l1"), "it can be linf or l2"),
        ((weights, "--model", "digits-cnn", *named, "--budget", "huge"), "it can be quick"),
        ((weights, "--model", "digits-cnn", "--data", "digits", "--eps", "0"), "without a ball"),
        (
            (weights, "--model", "digits-cnn", "--data", "digits", "--eps", "1e400"),
            "write a number",
        ),
        ((weights, "--model", "digits-cnn", *named, "--seed", "-1"), "seed"),
        ((weights, "--model", "digits-cnn", *named, "--last"), "--last is for run directories"),
        ((str(tmp_path / "run"), "--model", "digits-cnn"), "knows its network"),
        ((str(tmp_path / "run"), "--resume"), "name it with --out"),
        ((str(tmp_path / "run"), "--out", str(tmp_path)), "holds no audit"),
        ((str(tmp_path / "run"), "--out", weights), "is a file"),
    ):
        wrong = called(*words)
        assert wrong.exit_code == 2, (words, wrong.output)
        assert message in wrong.output, (words, wrong.output)
    (tmp_path / "run" / "best.safetensors").write_bytes(b"nonsense")
    assert "cannot be read" in called(str(tmp_path / "run"), *QUICK).output
    (tmp_path / "run" / "best.safetensors").unlink()
    assert "finish the run" in called(str(tmp_path / "run"), *QUICK).output
    assert called(str(tmp_path / "run"), "--last", *QUICK).exit_code == 0


@pytest.mark.long
@pytest.mark.filterwarnings("always::fedrobust.errors.RecordWarning")
@pytest.mark.usefixtures("quick_pages")
def test_another_verdict_in_the_runs_own_record_is_told_with_which_to_believe(
    tmp_path: Path, tiny: Callable[..., Experiment], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command, the page of the audit, and the page of the run that has the audit in it."""
    claim = Pgd(eps=0.05, step_size=0.02, steps=3)
    audits = {"budget": "quick", "samples": 5, "test_samples": 5, "every": 9}
    evaluation = {"every": 1, "attack": claim, "audit": audits}
    result = run(tiny(rounds=1, evaluation=evaluation), tmp_path / "run")
    place, own = str(tmp_path / "run"), result.summary["test"]["best"]["audit"]
    same = called(place, *QUICK, "--out", str(tmp_path / "first"))
    assert same.exit_code == 0, same.output
    assert own["verdict"] == "inconclusive"
    assert "two verdicts" not in same.output
    found = Audit.from_json(json.loads((tmp_path / "first" / "audit.json").read_text()))
    assert (own["budget"], own["attacks"]) == ("quick", len(found.taken))

    def again(*_: Any, eps: float, claim: Pgd | None, **__: Any) -> Audit:
        told = found.settings["claim"] if claim == evaluation["attack"] else f"{claim}"
        return replace(found, settings=found.settings | {"eps": eps, "claim": told})

    monkeypatch.setattr("fedrobust.runs.audit.audit", again)  # once is enough
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    for score in summary["test"].values():
        score["audit"] |= {"verdict": "genuine", "robust": 0.8}
    (tmp_path / "run" / "summary.json").write_text(json.dumps(summary))
    out = tmp_path / "run" / "audit"
    other = called(place, *QUICK, "--out", str(out))
    attacks = own["attacks"]
    sentence = (
        "This audit and the run's own record disagree: inconclusive, "
        f"{100 * found.robust:.1f} % robust (12 test examples, budget quick, {attacks} "
        "attacks); genuine, 80.0 % robust (5 test examples, budget quick, "
        f"{attacks} attacks). Believe this audit: it has more examples."
    )
    assert other.output.splitlines()[-1] == f"two verdicts: {sentence}"
    assert sentence in unescape((out / "report" / "index.html").read_text())
    page = unescape(write_report([tmp_path / "run"]).read_text())
    assert (
        "This run's own audit of its chosen model and the audit in its folder audit disagree"
        in page
    )
    assert "Believe the audit in its folder audit: it has more examples." in page
    for words in (["--eps", "0.06"], ["--data", "digits"], ["--claim", "9x0.02"]):
        # another ball, other data, another claim
        assert "two verdicts" not in called(place, *QUICK, *words).output
    (tmp_path / "run" / "summary.json").write_text("{")
    broken = called(place, *QUICK)
    assert broken.exit_code == 0
    assert "the run's own audit is left out: " in broken.output


class Touching:
    """What makes a file when it is read from a pickle."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


@pytest.mark.long
def test_a_pickle_of_weights_is_refused_with_the_command_that_converts_it(tmp_path: Path) -> None:
    begun(tmp_path)
    weights = load_file(tmp_path / "begun.safetensors")
    pickle = tmp_path / "it's mine.pt"
    torch.save(weights, pickle)
    wrong = called(str(pickle), "--model", "digits-cnn", "--data", "digits", "--eps", "0.1")
    assert wrong.exit_code == 2
    assert "is a pickle, which may run code when it is read" in wrong.output
    command = wrong.output[wrong.output.index("python -c ") :].strip()
    words = shlex.split(command)
    subprocess.run([sys.executable, *words[1:]], check=True)
    converted = load_file(pickle.with_suffix(".safetensors"))
    assert all(torch.equal(converted[name], weights[name]) for name in weights)
    torch.save({"weight": Touching(tmp_path / "touched")}, pickle)
    harmful = subprocess.run([sys.executable, *words[1:]], capture_output=True, check=False)
    assert harmful.returncode != 0
    assert not (tmp_path / "touched").exists(), "code in the file is not run"


@pytest.mark.long
def test_weights_for_another_network_than_the_named_one(tmp_path: Path) -> None:
    """The file is whole, so that to resume its run would change nothing."""
    (tmp_path / "best.safetensors").write_bytes(begun(tmp_path))
    (tmp_path / "checkpoint.pt").touch()
    best = str(tmp_path / "best.safetensors")
    wrong = called(best, "--model", "leaf-cnn", "--data", "digits", "--eps", "0.1")
    assert wrong.exit_code == 2
    told = " ".join(wrong.output.split())
    assert "holds the weights of another network" in told
    assert "--data digits has examples [1, 8, 8] of 10 classes" in told
    assert told.endswith("; name the network that it belongs to, and data for that network")


def test_images_of_another_shape_than_the_runs_are_not_the_fault_of_its_file(
    tmp_path: Path,
) -> None:
    run, data = tmp_path / "run", tmp_path / "other.npz"
    run.mkdir()
    (run / "best.safetensors").write_bytes(begun(tmp_path))
    (run / "checkpoint.pt").touch()
    (run / "config.yaml").write_text(
        "model: digits-cnn\ndata: digits\n"
        "evaluation: {attack: {name: pgd, eps: 0.1, step_size: 0.1, steps: 1}}\n"
    )
    draw = np.random.default_rng(0)
    images = {f"x_{part}": draw.random((20, 1, 9, 9), "float32") for part in ("train", "test")}
    np.savez(data, **images, y_train=np.arange(20) % 10, y_test=np.arange(20) % 10)
    wrong = called(str(run), "--data", str(data), *QUICK)
    assert wrong.exit_code == 2
    told = " ".join(wrong.output.split())
    assert f"--data {data} has examples [1, 9, 9] of 10 classes" in told
    assert "the network of the run needs other weights than it has: 5.weight" in told
    assert told.endswith("Name data like those of the run")
    assert "--resume" not in told


def begun(folder: Path) -> bytes:
    """The weights of the run's network as another seed begins with."""
    data = Digits().load()
    model = build_model(DigitsCnn(), data.shape, data.classes, torch.Generator().manual_seed(9))
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(weights, folder / "begun.safetensors")
    return (folder / "begun.safetensors").read_bytes()


@pytest.mark.long
@pytest.mark.usefixtures("quick_pages")
def test_a_run_that_claims_in_l2_is_audited_in_l2(
    tmp_path: Path, tiny: Callable[..., Experiment]
) -> None:
    claim = Pgd(eps=0.5, step_size=0.1, steps=3, norm="l2")
    run(tiny(rounds=1, evaluation={"every": 1, "attack": claim}), tmp_path / "run")
    for words, eps, claimed in (
        ((), 0.5, "PGD 3 x 0.1, restarts 1"),
        (("--eps", "0.8"), 0.8, "PGD 40 x 0.02667, restarts 1"),
    ):
        out = tmp_path / f"audit {eps}"
        found = called(str(tmp_path / "run"), *QUICK, *words, "--out", str(out))
        assert found.exit_code == 0, found.output
        told = json.loads((out / "audit.json").read_text())["settings"]
        assert (told["eps"], told["norm"], told["claim"]) == (eps, "l2", claimed)


@pytest.mark.long
@pytest.mark.usefixtures("quick_pages")
def test_what_an_audit_is_of_is_noted_before_the_model_moves(
    tmp_path: Path, tiny: Callable[..., Experiment], monkeypatch: pytest.MonkeyPatch
) -> None:
    """To a GPU, say, or here to another type: the examples do not go with it."""
    run(tiny(rounds=1), tmp_path / "run")

    def moving(model: nn.Module, *words: Any, **keys: Any) -> Audit:
        found = audit(model, *words, **keys)
        model.double()
        return found

    monkeypatch.setattr("fedrobust.runs.audit.audit", moving)
    found = called(str(tmp_path / "run"), *QUICK, "--out", str(tmp_path / "audit"))
    assert found.exit_code == 0, found.output


@pytest.mark.slow
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
    full = called("mine:model", "--data", "digits", "--eps", "0.05", "--budget", "full")
    assert full.exit_code == 2
    assert "network for the surrogates" in full.output


@pytest.mark.slow
def test_strict_fails_unless_genuine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "fixed.py").write_text(
        "import torch\n"
        "class Fixed(torch.nn.Module):\n"
        "    def forward(self, x):\n"
        "        return torch.eye(10)[torch.zeros(len(x), dtype=torch.long)]\n"
    )
    monkeypatch.chdir(tmp_path)
    words = ["fixed:Fixed", "--data", "digits", "--eps", "0.05", *QUICK]
    assert called(*words).exit_code == 0
    assert called(*words, "--strict").exit_code == 1
