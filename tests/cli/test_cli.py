"""The command line, as a user meets it: one message and exit code 2 for what a user can mend."""

import json
import re
import warnings
from pathlib import Path
from typing import Any

import pytest
from demo import demo_config
from ruamel.yaml import YAML
from typer.testing import CliRunner, Result

from fedrobust.cli import app, kinds
from fedrobust.cli.app import tell_cells
from fedrobust.cli.components import LISTING, written
from fedrobust.errors import ConfigError, PrecisionWarning
from fedrobust.experiment import load


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    YAML(typ="safe").dump(demo_config(rounds=4), path)
    return path


@pytest.mark.slow
def test_run_writes_a_complete_directory(config: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = invoke("run", config, "-s", "seed=3", "-s", "client.optimizer.lr=1e-3", "--out", out)
    assert result.exit_code == 0
    assert "robust on 360 test examples" in result.stdout
    told = [line for line in result.stderr.splitlines() if line.startswith("accuracy ")]
    assert [line.split(" (")[1] for line in told] == ["round 2 of 4)", "round 4 of 4)"]
    assert set(result.stderr.splitlines()) - set(told) == set(
        json.loads((out / "summary.json").read_text())["notes"]
    )
    stored = YAML(typ="safe").load(out / "config.yaml")
    assert stored["seed"] == 3
    assert stored["client"]["optimizer"]["lr"] == 0.001
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [line["round"] for line in lines] == [2, 4]
    for line in lines:
        assert {"round", "accuracy", "robust_accuracy", "seconds", "kept"} <= set(line)
        assert 0 <= line["robust_accuracy"] <= line["accuracy"] <= 1
        assert len(line["kept"]) == 7  # n - 2f of 11 clients
    rounds = [json.loads(line) for line in (out / "rounds.jsonl").read_text().splitlines()]
    assert [line["round"] for line in rounds] == [1, 2, 3, 4]
    summary = json.loads((out / "summary.json").read_text())
    assert summary["test"]["final"]["examples"] == 360
    environment = json.loads((out / "environment.json").read_text())
    assert environment["torch"].startswith("2.")
    assert {"model.safetensors", "best.safetensors", "checkpoint.pt"} <= {
        p.name for p in out.iterdir()
    }


@pytest.mark.slow
def test_the_test_split_is_read_once_when_the_run_ends(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fedrobust.runs import measure

    calls: list[int] = []
    real = measure.on_test

    def counted(run: Any, parameters: Any, round: int) -> Any:
        calls.append(round)
        return real(run, parameters, round)

    monkeypatch.setattr(measure, "on_test", counted)
    assert invoke("run", config, "--out", tmp_path / "out").exit_code == 0
    assert calls in ([4], [4, 2])  # the final model, and the chosen one where it is another


BAD = [
    ("rouns=5", r"rouns: unknown key .did you mean 'rounds'"),
    ("client.optimizer.lrr=1", "client.optimizer.lrr: unknown key"),
    ("rounds=many", "rounds: .*integer; got 'many'"),
    ("rounds=0", "rounds: .*greater than or equal to 1; got 0"),
    ("aggregator.name=bullyan", "aggregator: unknown aggregator 'bullyan' .*'bulyan'"),
    ("aggregator.f=3", "Bulyan needs n >= 4f . 3: n = 11, f = 3 needs 15"),
    ("malicious=12", "malicious is 12, but there are 11 clients"),
    ("attack=null", "malicious is 2, but there is no attack"),
    ("threat.colluders=false", "a-little-is-enough needs the colluders' honest updates"),
    ("data.name=mnits", "data: unknown data set 'mnits' .*'mnist'"),
    ("data.validation=5000", "digits has 1,437 training examples"),
    ("data.validation=0", "raise data.validation"),
    ("partition.clients=1200", "1,200"),
    ("model.name=elu-cnn", r"does not fit examples of shape \(1, 8, 8\)"),
    ("client.epochs=1", "client: give either batches or epochs"),
    ("objective.attack.eps=-1", "objective.attack.eps: .*got -1"),
    ("evaluation.split=test", "evaluation.split: .*'validation' or 'train'"),
    ("name=../escape", "name: .*pattern"),
    ("participation={name: sample, clients: 12}", "cannot sample 12 of 11 clients"),
    ("execution.threads=0", "execution.threads"),
    ("aggregator=krum", "aggregator: krum alone leaves out f: .*{name: krum, f: ...}"),
    ("aggregator=3", "such as {name: mean}, or the name alone; got 3"),
    ("aggregator={name: 'sys:exit'}", "aggregator: sys:exit could not be made: SystemExit"),
    ("aggregator={name: 'os:getcwd'}", "aggregator: '.*' is no aggregator"),
    ("client.learning-rate=0.1", "client.learning-rate: unknown key; allowed here: batch_size"),
    ("execution.threads=1000000000", "execution.threads: .*less than or equal to 1024"),
    ("seed=1" + "0" * 400, "seed: is a whole number of more than 64 bits|more than 64 bits"),
    ("name=2001-01-01", "is read as a value of type date"),
    ("evaluation.attack.eps=8", "eps is 8, .*did you mean 8/255"),
    ("objective.attack.step_size=0", "objective.attack.step_size: should be greater than 0"),
    ("rounds", "write dotted.key=value"),
    ("rounds.of=5", "rounds is 4, which has no keys"),
    ("seed=[", "not valid YAML"),
]


@pytest.mark.parametrize(("setting", "message"), BAD, ids=[setting for setting, _ in BAD])
def test_bad_settings_are_one_message_and_exit_code_2(
    config: Path, tmp_path: Path, setting: str, message: str
) -> None:
    result = invoke("run", config, "-s", setting, "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert re.search(message, result.stderr.replace("\n", " ")), result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
    left = list((tmp_path / "out").glob("*")) if (tmp_path / "out").exists() else []
    assert [p.name for p in left if p.name != ".lock"] == []


def test_a_warning_of_our_own_is_one_line(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Anybody else's is shown as it was before."""

    def loaded(*_: object) -> None:
        warnings.warn("of our own", PrecisionWarning, stacklevel=1)
        warnings.warn("of a library", UserWarning, stacklevel=1)
        raise ConfigError("enough")

    monkeypatch.setattr("fedrobust.experiment.load", loaded)
    with pytest.warns(UserWarning, match="of a library") as others:
        result = invoke("run", config, "--out", tmp_path / "out")
    assert result.stderr == "warning: of our own\nerror: enough\n"
    assert len(others) == 1


@pytest.mark.slow
def test_a_refused_run_can_be_run_again_in_place(config: Path, tmp_path: Path) -> None:
    """A mistake that shows only once the data are loaded leaves nothing in the way."""
    out = tmp_path / "out"
    assert invoke("run", config, "-s", "data.validation=5000", "--out", out).exit_code == 2
    assert invoke("run", config, "-s", "rounds=1", "--out", out).exit_code == 0


def test_all_mistakes_are_named_at_once(config: Path) -> None:
    result = invoke("run", config, "-s", "seed=-1", "-s", "rounds=x", "-s", "attack.kk=1")
    assert [part in result.stderr for part in ("seed:", "rounds:", "attack.kk:")] == [True] * 3


def test_a_config_is_read_by_its_path_or_its_name(config: Path) -> None:
    assert load(str(config)) == load(config)
    with pytest.raises(ConfigError, match=r"nowhere.yaml"):
        load("nowhere.yaml")


@pytest.mark.parametrize(
    ("content", "message"),
    [("- a\n- b\n", "must be a mapping"), ("a: [", "not valid YAML"), ("a: 1\na: 2\n", "YAML")],
)
def test_bad_files(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(content)
    result = invoke("run", path)
    assert result.exit_code == 2
    assert message in result.stderr
    missing = invoke("run", tmp_path / "none.yaml")
    assert missing.exit_code == 2
    assert "there is no file" in missing.stderr


@pytest.mark.slow
def test_updates_that_are_not_finite_are_told(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_attack.py").write_text(
        "import torch\n"
        "class Infinite:\n"
        "    def craft(self, state, view, rng):\n"
        "        return torch.full((view.rows, len(view.parameters)), torch.inf), state\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    result = invoke(
        "run", config, "-s", "attack={name: 'my_attack:Infinite'}", "--out", tmp_path / "out"
    )
    assert result.exit_code == 0
    assert "warning: rows of clients" in result.stdout
    assert "refused in 4 rounds, the first 1" in result.stdout


def test_list_names_every_component() -> None:
    assert LISTING.read_text("utf-8") == written(), "make docs"
    assert not re.search(r":[a-z]+:`|``|~fedrobust", written()), "no markup of the reference"
    result = invoke("list")
    for kind, members in kinds().items():
        assert kind in result.stdout
        for member in members:
            assert member.__dict__["name"] in result.stdout
            assert (member.__doc__ or "").strip()
    assert "bulyan" in invoke("list", "aggregators").stdout
    assert "[low,high]" in "".join(invoke("list", "projection").stdout.split()), "no markup"
    assert "no kind 'loss'" in invoke("list", "loss").stderr
    wrong = invoke("list", "agregator")
    assert wrong.exit_code == 2
    assert "did you mean 'aggregator'" in wrong.stderr


def test_list_tells_all_of_one_component() -> None:
    """Every field to its last part: what is printed can be written into a config."""
    from fedrobust.attacks import Learned
    from fedrobust.config.component import from_config

    told = invoke("list", "attack", "learned").stdout
    assert "Reference: DRFL §3" in told
    rows = re.findall(r"^  ([a-z_.]+)  +(.+)$", told, re.MULTILINE)
    assert ("training.steps", "5000") in rows
    assert ("encoding.budget", "10.0") in rows
    for path, text in rows:
        content: Any = YAML(typ="safe").load(text)
        for key in reversed(path.split(".")):
            content = {key: content}
        assert from_config(Learned, content) == Learned(), path
    assert re.search(r"^  f +required$", invoke("list", "aggregators", "krum").stdout, re.MULTILINE)
    wrong = invoke("list", "aggregator", "krumm")
    assert wrong.exit_code == 2
    assert "there is no aggregator 'krumm' (did you mean 'krum'?)" in wrong.stderr
    assert "ascent(rule=decaying)" in "".join(invoke("list", "attack").stdout.split())


def test_data_get() -> None:
    assert invoke("data", "get", "digits").exit_code == 0
    wrong = invoke("data", "get", "mnits")
    assert wrong.exit_code == 2
    assert "mnist" in wrong.stderr


def test_report_of_what_is_no_run(tmp_path: Path) -> None:
    result = invoke("report", tmp_path)
    assert result.exit_code == 2
    assert "Traceback" not in result.stderr


def test_a_failed_cell_is_told_with_where_it_says_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a sweep, and of a reproduction, in whose folder each sweep has one."""
    for folder in (tmp_path / "failed", tmp_path / "mnist" / "failed"):
        folder.mkdir(parents=True)
        (folder / "krum.txt").write_text("why")
    failed = {"krum": "too few", "mnist/krum": "too few", "mnist/mean": "no data"}
    assert tell_cells(failed, 7, tmp_path) == 4
    told = capsys.readouterr()
    assert told.err.splitlines() == [
        f"failed: krum: too few (see {tmp_path}/failed/krum.txt)",
        f"failed: mnist/krum: too few (see {tmp_path}/mnist/failed/krum.txt)",
        "failed: mnist/mean: no data",
    ]
    assert told.out == f"4 of 7 cells are done; records: {tmp_path}\n"


@pytest.mark.long
def test_idle_threads_do_not_spin_when_run_from_the_command_line() -> None:
    """The setting reaches OpenMP only if it is made before PyTorch is loaded."""
    import os
    import subprocess
    import sys

    clean = {k: v for k, v in os.environ.items() if not k.startswith(("GOMP", "OMP"))}
    told = subprocess.run(
        [sys.executable, "-m", "fedrobust", "run", "fat/recipe"],
        env=clean | {"OMP_DISPLAY_ENV": "verbose"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "has a grid:" in told.stderr
    if "GOMP_SPINCOUNT" not in told.stderr:
        pytest.skip("PyTorch does not use GNU OpenMP here")
    assert "GOMP_SPINCOUNT = '2000'" in told.stderr
