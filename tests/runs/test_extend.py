"""A run of 7 rounds that is extended to 12 has the bits of one that had 12 from its start."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from cells_here import in_this_process
from demo import demo_config
from ruamel.yaml import YAML
from run_contents import contents, without_seconds
from typer.testing import CliRunner

from fedrobust import run
from fedrobust.cli import app
from fedrobust.config.component import from_config
from fedrobust.errors import RecordError
from fedrobust.experiment import Experiment
from fedrobust.progress import Progress
from fedrobust.report import write_report
from fedrobust.runs import checkpoint
from fedrobust.runs.grid import load_sweep
from fedrobust.runs.loop import opened
from fedrobust.runs.sweep import run_sweep

SHORT, LONG, EVERY = 7, 12, 3
RESULTS = ("summary.json", "model.safetensors", "best.safetensors", "examples.npz")
PGD = {"name": "pgd", "eps": 0.15, "step_size": 0.05, "steps": 1}


def settings(rounds: int, **evaluation: Any) -> dict[str, Any]:
    """Everything that a run keeps: optimisers, the server's momentum, what the attack has learnt.

    From round 8 on the learning rate ruins the model, so that the choice of an earlier round stays.
    """
    return demo_config(
        rounds=rounds,
        partition={"name": "iid", "clients": 7},
        objective={"name": "adversarial", "ratio": 0.5, "attack": PGD},
        client={
            "batch_size": 8,
            "batches": 1,
            "optimizer": {"name": "adam", "lr": 0.5},
            "keep_optimizer": True,
            "lr_factor": [{"value": 0.01, "until": 7}, {"value": 1.0}],
        },
        threat={"benign": True},
        attack={"name": "mimic", "warmup": 9},
        aggregator={"name": "median"},
        server={"optimizer": {"name": "fed-avg-m", "momentum": 0.5}},
        evaluation={"every": EVERY, "samples": 60, "test_samples": 20, "attack": PGD} | evaluation,
    )


def of(rounds: int, **evaluation: Any) -> Experiment:
    return from_config(Experiment, settings(rounds, **evaluation))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    place = tmp_path_factory.mktemp("runs")
    run(of(SHORT), place / "short")
    run(of(LONG), place / "straight")
    return place


@pytest.fixture
def straight(folder: Path) -> Path:
    return folder / "straight"


@pytest.fixture
def short(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder / "short", tmp_path / "run"))


class KilledError(Exception):
    """Stands for the end of the process."""


def stopped(experiment: Experiment, out: Path, number: int) -> None:
    """Play, with a checkpoint after every round, and end before round ``number`` is saved."""

    def stop(log: Any) -> None:
        if log.round == number:
            raise KilledError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fedrobust.runs.loop.SAVE_EVERY", 0.0)
        with pytest.raises(KilledError):
            run(experiment, out, resume=True, progress=Progress(played=stop))


def kept(out: Path) -> Any:
    """All that the checkpoint holds, bit by bit, apart from the seconds."""
    return bitwise(without_seconds(checkpoint.read(out / "checkpoint.pt", "")))


def bitwise(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.dtype, value.shape, value.numpy().tobytes()
    if isinstance(value, dict):
        return {key: bitwise(item) for key, item in value.items()}
    return [bitwise(item) for item in value] if isinstance(value, list | tuple) else value


def files(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.iterdir() if path.name != ".lock"}


def same(out: Path, straight: Path) -> None:
    assert contents(out) == contents(straight)
    assert kept(out) == kept(straight)
    assert (out / "config.yaml").read_bytes() == (straight / "config.yaml").read_bytes()
    assert (out / "rounds.jsonl").read_bytes() == (straight / "rounds.jsonl").read_bytes()
    assert in_order(out) == in_order(straight)
    assert not list(out.glob("*damaged*"))


def in_order(out: Path) -> list[str]:
    """The lines of the evaluations, apart from the seconds, with their keys in order."""
    lines = (out / "metrics.jsonl").read_text().splitlines()
    return [json.dumps(without_seconds(json.loads(line))) for line in lines]


def rewritten(out: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = checkpoint.read(out / "checkpoint.pt", "")
    change(content)
    with (out / "checkpoint.pt").open("wb") as file:
        checkpoint.write(content, file)


def extensions(out: Path) -> list[dict[str, Any]]:
    resumed = json.loads((out / "environment.json").read_text()).get("resumed", [])
    return [part["extended"] for part in resumed if "extended" in part]


@pytest.mark.slow
@pytest.mark.usefixtures("quick_pages")
def test_an_extended_run_has_the_bits_of_a_run_from_the_start(
    short: Path, straight: Path, tmp_path: Path
) -> None:
    """Round 7, evaluated and chosen as the last of 7, is neither where there are 12."""
    before, told = files(short), list[str]()
    assert json.loads(before["summary.json"])["best_round"] == SHORT
    assert json.loads((straight / "summary.json").read_text())["best_round"] == 6
    stopped(of(LONG), short, SHORT + 1)
    stopped(of(LONG), tmp_path / "whole", SHORT + 1)
    assert kept(short) == kept(tmp_path / "whole")
    assert not (short / "summary.json").exists()
    begun = list[int]()
    watch = Progress(
        started=lambda ready, done: begun.append(done), extended=told.append, repaired=told.append
    )
    run(of(LONG), short, resume=True, progress=watch)
    same(short, straight)
    assert (begun, told) == ([SHORT], [])
    renamed = {name: name.replace(".", f".{SHORT}-rounds.") for name in RESULTS}
    assert {renamed[name]: before[name] for name in RESULTS} == {
        name: content for name, content in files(short).items() if "7-rounds" in name
    }
    told_of = {"from_rounds": 7, "to_rounds": 12, "after_round": 7, "test_read": True}
    assert extensions(short) == [told_of]
    page = write_report([short], tmp_path / "report").read_text()
    assert "A run of 7 rounds was extended to 12 after round 7. Its test examples had been" in page
    with pytest.raises(RecordError, match=r"of 12 rounds, and this config has 7.*summary.7-rounds"):
        run(of(SHORT), short, resume=True)
    same(short, straight)


@pytest.mark.slow
def test_twice_and_from_where_a_longer_run_evaluates(short: Path, straight: Path) -> None:
    for rounds in (8, 9, LONG):
        run(of(rounds), short, resume=True)
    same(short, straight)
    assert [part["from_rounds"] for part in extensions(short)] == [7, 8, 9]
    for rounds in (7, 8, 9):
        summary = json.loads((short / f"summary.{rounds}-rounds.json").read_text())
        assert summary["rounds"] == rounds


@pytest.mark.slow
@pytest.mark.parametrize("number", [1, 5])
def test_an_unfinished_run_is_extended(number: int, tmp_path: Path, straight: Path) -> None:
    """Before its first checkpoint, too."""
    out = tmp_path / "run"
    stopped(of(SHORT), out, number)
    assert (out / "checkpoint.pt").exists() == (number > 1)
    run(of(LONG), out, resume=True)
    same(out, straight)
    assert [part["test_read"] for part in extensions(out)] == [False] * (number > 1)
    assert not list(out.glob("*7-rounds*"))


@pytest.mark.slow
def test_a_run_with_no_other_evaluation_is_extended(tmp_path: Path, straight: Path) -> None:
    run(of(2), tmp_path / "run")
    run(of(LONG), tmp_path / "run", resume=True)
    same(tmp_path / "run", straight)


def older(content: dict[str, Any], rounds: list[dict[str, Any]]) -> None:
    """Make a checkpoint that of the first version, which held the rounds, and no config."""
    for key in ("format", "log", "tally", "config", "earlier"):
        content.pop(key, None)
    content["rounds"] = rounds


@pytest.mark.slow
def test_a_checkpoint_of_an_earlier_version(tmp_path: Path, short: Path, straight: Path) -> None:
    """It is refused only where the parameters that are needed are lost."""
    rewritten(short, lambda content: content.pop("earlier"))
    before = files(short)
    with pytest.raises(RecordError, match=r"round 7 was chosen, which a longer run does not eval"):
        run(of(LONG), short, resume=True)
    assert files(short) == before
    run(of(SHORT), short, resume=True)

    chosen_before = tmp_path / "eight"
    run(of(8), chosen_before)
    assert "earlier" not in checkpoint.read(chosen_before / "checkpoint.pt", "")
    lines = [json.loads(line) for line in (chosen_before / "rounds.jsonl").read_text().splitlines()]
    rewritten(chosen_before, lambda content: older(content, lines))
    run(of(LONG), chosen_before, resume=True)
    same(chosen_before, straight)
    assert (chosen_before / "summary.8-rounds.json").exists()


@pytest.mark.slow
def test_an_audit_that_was_not_due_is_taken_back(tmp_path: Path) -> None:
    """Of rounds 1 to 4, each with an evaluation, the last one and every second one is audited."""
    audit = {"budget": "quick", "samples": 1, "every": 2}
    out = tmp_path / "run"
    one = run(of(1, every=1, audit=audit), out).metrics
    assert "audit" in one[0]
    two = run(of(2, every=1, audit=audit), out, resume=True).metrics
    assert ["audit" in line for line in two] == [False, True]
    stopped(of(3, every=1, audit=audit), out, 3)
    (line,) = [json.loads(text) for text in (out / "metrics.jsonl").read_text().splitlines()][1:]
    assert line == two[1]


def snapshots(short: Path, folder: Path) -> list[Path]:
    """Begin an extension; return what a kill leaves before each renaming of a file, and after."""
    found, act = list[Path](), {name: getattr(os, name) for name in ("replace", "rename")}

    def spied(name: str) -> Callable[..., None]:
        def call(old: Any, new: Any) -> None:
            found.append(Path(shutil.copytree(short, folder / str(len(found)))))
            act[name](old, new)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name in act:
            patch.setattr(os, name, spied(name))
        with opened(of(LONG), short, True):
            pass
    return [*found, short]


@pytest.mark.slow
def test_a_kill_at_any_moment_of_the_beginning(short: Path, tmp_path: Path) -> None:
    """Whatever was written by then, the beginning ends alike, and nothing is made again."""
    left = snapshots(short, tmp_path)
    # config, environment, four results, metrics, checkpoint, metrics again; and when all is done
    assert len(left) == 10
    for place in left:
        with opened(of(LONG), place, True) as playing:
            assert playing.repairs == ()
        assert kept(place) == kept(short)
        assert len(extensions(place)) == 1
        assert not list(place.glob(".*.part"))
        aside = {"environment.json", "checkpoint.pt"}
        assert {k: v for k, v in files(place).items() if k not in aside} == {
            k: v for k, v in files(short).items() if k not in aside
        }


@pytest.mark.slow
def test_a_file_of_the_users_is_not_overwritten(short: Path, straight: Path) -> None:
    (short / "summary.7-rounds.json").write_text("mine")
    told = list[str]()
    run(of(LONG), short, resume=True, progress=Progress(extended=told.append))
    assert (short / "summary.7-rounds.json").read_text() == "mine"
    assert json.loads((short / "summary.7-rounds-2.json").read_text())["rounds"] == SHORT
    assert told[0].startswith("the run of 7 rounds goes on to 12; its results stay as summary.7-ro")
    same(short, straight)


@pytest.mark.slow
def test_the_command_line(short: Path, straight: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    YAML(typ="safe").dump(settings(SHORT), config)

    def command(*words: str) -> Any:
        return CliRunner().invoke(app, ["run", str(config), *words, "--out", str(short)])

    before = files(short)
    for words, said in {
        ("--rounds", "12"): "continue it with --resume",
        ("--rounds", "5", "--resume"): "extended, but not shortened. Add --rounds 7",
        ("--rounds", "12", "--resume", "-s", "seed=4"): "They differ in seed: 0 there, 4 here",
        ("--rounds", "0"): "rounds: should be greater than or equal to 1",
    }.items():
        refused = command(*words)
        assert refused.exit_code == 2
        assert said in " ".join(refused.stderr.split())
        assert files(short) == before
    done = command("--rounds", "12", "--resume")
    assert done.exit_code == 0, done.output
    assert "the run of 7 rounds goes on to 12; its results stay as" in done.stderr
    same(short, straight)


def test_a_sweep_does_not_extend_its_cells(tmp_path: Path) -> None:
    """Finished or begun, with the record of the sweep or without."""
    config, out = tmp_path / "sweep.yaml", tmp_path / "sweep"
    YAML(typ="safe").dump(settings(1) | {"grid": {"seed": [0]}}, config)
    with in_this_process():
        assert run_sweep(load_sweep(config), out) == {}
    longer = load_sweep(config, ["rounds=2"])
    said = r"rounds: 1 there, 2 here; a sweep cannot extend or shorten its cells"
    with pytest.raises(RecordError, match=said):
        run_sweep(longer, out, resume=True)
    (out / "sweep.json").unlink()
    before = files(out / "cells" / "0")
    for name in ("summary.json", "metrics.jsonl"):
        with pytest.raises(RecordError, match=said):
            run_sweep(longer, out, resume=True)
        assert files(out / "cells" / "0") == before
        (out / "cells" / "0" / name).unlink()
        before.pop(name)
