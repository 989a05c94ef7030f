"""A disk that is full costs no results that are in memory, and is told of in one line."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from demo import PLAIN, demo_config
from forked import begun
from ruamel.yaml import YAML
from run_contents import contents

from fedrobust import run
from fedrobust.errors import RecordError, RecordWarning, WriteError
from fedrobust.experiment import Experiment, load
from fedrobust.files import atomically
from fedrobust.progress import Progress

pytestmark = pytest.mark.slow

_LIMIT = 100_000
"""Bytes of a file; a checkpoint of the tiny run has more, its other records have fewer."""


def test_the_command_goes_on_and_says_what_it_could_not_keep(tmp_path: Path) -> None:
    """The kernel itself refuses to write more to the checkpoint."""
    YAML(typ="safe").dump(demo_config(**PLAIN), tmp_path / "config.yaml")
    command = ["run", "--no-report", "config.yaml", "--out", "run"]
    process = begun(command, tmp_path, largest=_LIMIT, COLUMNS="200")
    process.join()
    told, errors = ((tmp_path / f"{name}.txt").read_text() for name in ("stdout", "stderr"))
    assert process.exitcode == 1, errors
    assert "Traceback" not in errors
    why = "cannot write run/checkpoint.pt: File too large"
    said = [line for line in errors.splitlines() if why in line]
    assert said == [
        f"warning: {why}; the run goes on, and tries again later",
        f"error: {why}; put that right, then go on with --resume",
    ]
    assert "round 6 (final): " in told
    assert f"warning: the records are not whole: {why}" in told
    there = {path.name for path in (tmp_path / "run").iterdir()}
    assert there == {
        ".lock", "config.yaml", "environment.json", "rounds.jsonl", "checkpoint.rounds.jsonl"
    }  # fmt: skip
    run(load(tmp_path / "config.yaml"), tmp_path / "run", resume=True)
    run(load(tmp_path / "config.yaml"), tmp_path / "straight")
    assert contents(tmp_path / "run") == contents(tmp_path / "straight")


def full_for(names: dict[str, range], monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is full for the writes to these files that have these numbers."""
    count = dict.fromkeys(names, 0)

    def write(path: Path, fill: Any) -> None:
        if path.name in names:
            count[path.name] += 1
            if count[path.name] in names[path.name]:
                raise WriteError(f"cannot write {path}: No space left on device")
        atomically(path, fill)

    monkeypatch.setattr("fedrobust.runs.directory.atomically", write)


def test_a_disk_that_is_full_for_a_while_leaves_no_trace(
    tmp_path: Path, plain: Callable[..., Experiment], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(plain(), tmp_path / "straight")
    full_for({"checkpoint.pt": range(1, 4)}, monkeypatch)
    told: list[str] = []
    ended = run(plain(), tmp_path / "run", progress=Progress(unkept=told.append))
    (said,) = told
    assert said.endswith("No space left on device; the run goes on, and tries again later")
    assert ended.unkept is None
    assert ended.summary.troubles == ()
    assert contents(tmp_path / "run") == contents(tmp_path / "straight")


@pytest.mark.parametrize("name", ["model.safetensors", "best.safetensors", "examples.npz"])
def test_an_end_that_cannot_be_kept_is_made_again(
    tmp_path: Path, plain: Callable[..., Experiment], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """No summary says then that all is there."""
    wanted = run(plain(), tmp_path / "straight")
    full_for({name: range(1, 2)}, monkeypatch)
    ended = run(plain(), tmp_path / "run")
    assert ended.unkept is not None
    assert name in ended.unkept
    assert ended.summary["test"] == wanted.summary["test"]
    assert ended.summary.troubles == (f"the records are not whole: {ended.unkept}",)
    assert not (tmp_path / "run" / "summary.json").exists()
    again = run(plain(), tmp_path / "run", resume=True)
    assert again.unkept is None
    assert contents(tmp_path / "run") == contents(tmp_path / "straight")


def test_a_disk_that_is_full_at_the_start_is_refused(
    tmp_path: Path, plain: Callable[..., Experiment], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, fill: Any) -> None:
        raise WriteError(f"cannot write {path}: No space left on device")

    monkeypatch.setattr("fedrobust.files.atomically", full)
    played: list[Any] = []
    with pytest.raises(RecordError, match=r"cannot write .*config.yaml: No space left on device"):
        run(plain(), tmp_path / "run", progress=Progress(played=played.append))
    assert not played


def test_python_is_warned(
    tmp_path: Path, plain: Callable[..., Experiment], monkeypatch: pytest.MonkeyPatch
) -> None:
    full_for({"checkpoint.pt": range(1, 99)}, monkeypatch)
    with pytest.warns(RecordWarning, match="the run goes on") as told:
        ended = run(plain(), tmp_path / "run")
    assert len(told) == 1
    assert ended.unkept is not None
