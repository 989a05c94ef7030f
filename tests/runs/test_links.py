"""No link and no second name of a file leads a write out of the folder that was asked for."""

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from demo import demo_config
from ruamel.yaml import YAML

from fedrobust import run
from fedrobust.config.component import from_config
from fedrobust.errors import RecordError, UserError
from fedrobust.experiment import Experiment
from fedrobust.files import (
    appending,
    atomically,
    clear,
    held,
    is_leftover,
    listing,
    opened,
    written,
)
from fedrobust.progress import Progress
from fedrobust.report import write_report
from fedrobust.runs.audit import Asked, audited
from fedrobust.runs.grid import load_sweep
from fedrobust.runs.learn_policy import learn_policy
from fedrobust.runs.sweep import run_sweep

MINE = b"not yours\n"


class StoppedError(Exception):
    """Stands for the end of the process."""


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A user's own file, at which links point."""
    path = tmp_path / "mine"
    path.write_bytes(MINE)
    return path


def stopped(out: Path, experiment: Experiment) -> None:
    """A run that was stopped after round 2."""

    def stop(log: Any) -> None:
        if log.round == 3:
            raise StoppedError

    with pytest.raises(StoppedError):
        run(experiment, out, progress=Progress(played=stop))


NAMES = (
    "metrics.jsonl",
    "rounds.jsonl",
    "checkpoint.rounds.jsonl",
    "summary.json",
    "best.safetensors",
)


@pytest.mark.slow
@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_a_run_writes_through_no_link(
    tmp_path: Path, plain: Callable[..., Experiment], mine: Path, link: Callable[..., None]
) -> None:
    """Whatever an archive from elsewhere holds where a run writes."""
    experiment = plain(rounds=3)
    stopped(tmp_path / "begun", experiment)
    beside = [place for name in NAMES for place in (f".{name}.part", f".{name}.{'0' * 16}.part")]
    for places in (*([name] for name in NAMES), beside):  # those beside are removed, or left
        out = shutil.copytree(tmp_path / "begun", tmp_path / f"run of {places[0]}")
        for place in places:
            (out / place).unlink(missing_ok=True)
            link(mine, out / place)
        with suppress(UserError):
            run(experiment, out, resume=True, progress=Progress(repaired=lambda text: None))
        assert mine.read_bytes() == MINE
        left = set(os.listdir(out))
        assert not any(is_leftover(place) and place in left for place in places)
        assert places is not beside or "summary.json" in left


def test_a_lock_that_is_a_link_is_refused(
    tmp_path: Path, plain: Callable[..., Experiment], mine: Path
) -> None:
    out = tmp_path / "run"
    stopped(out, plain())
    (out / ".lock").unlink()
    (out / ".lock").symlink_to(mine)
    with pytest.raises(RecordError, match=r"\.lock is not a regular file"):
        run(plain(), out, resume=True)
    assert mine.read_bytes() == MINE


def test_a_sweep_writes_into_its_own_folder_alone(tmp_path: Path, mine: Path) -> None:
    grid = demo_config(rounds=1) | {"grid": {"seed": [0]}, "name": "links"}
    YAML(typ="safe").dump(grid, tmp_path / "sweep.yaml")
    sweep = load_sweep(tmp_path / "sweep.yaml")
    elsewhere = tmp_path / "elsewhere"
    for name in ("cells", "failed", "playing", "slurm", "cells/0"):
        out = tmp_path / f"sweep with {name.replace('/', '-')}"
        (out / name).parent.mkdir(parents=True)
        elsewhere.mkdir(exist_ok=True)
        (out / name).symlink_to(elsewhere)
        (out / "sweep.json").symlink_to(mine)
        with pytest.raises(RecordError, match=rf"{name} is a link"):
            run_sweep(sweep, out, resume=True)
        assert not list(elsewhere.iterdir())
    assert mine.read_bytes() == MINE


@pytest.mark.long
@pytest.mark.usefixtures("quick_pages")
def test_an_audit_and_a_report_write_through_no_link(
    tmp_path: Path, tiny: Callable[..., Experiment], mine: Path
) -> None:
    run(tiny(rounds=2), tmp_path / "run")
    out = tmp_path / "audit"
    out.mkdir()
    for name in ("progress.jsonl.part", "audit.json.part"):
        (out / name).symlink_to(mine)
    audited(Asked(str(tmp_path / "run"), samples=4, out=out))
    assert listing(out) == ["audit.json"]
    assert mine.read_bytes() == MINE
    for name in ("index.html", "accuracy.svg", f".index.html.{'a' * 8}"):
        (tmp_path / "run" / "report").mkdir(exist_ok=True)
        if name == "accuracy.svg":
            write_report([tmp_path / "run"])
            (tmp_path / "run" / "report" / name).unlink()
        (tmp_path / "run" / "report" / name).symlink_to(mine)
        with suppress(RecordError):
            write_report([tmp_path / "run"])
        assert mine.read_bytes() == MINE
        shutil.rmtree(tmp_path / "run" / "report")
    (tmp_path / "run" / "report").symlink_to(tmp_path)
    with pytest.raises(RecordError, match="report is a link"):
        write_report([tmp_path / "run"])
    assert mine.read_bytes() == MINE


def test_a_file_with_a_second_name_becomes_one_of_its_own(tmp_path: Path, mine: Path) -> None:
    (tmp_path / "log").hardlink_to(mine)
    with appending(tmp_path / "log", 4) as file:
        file.write(b"mine")
    assert (tmp_path / "log").read_bytes() == b"not mine"
    assert mine.read_bytes() == MINE


def test_leftovers_are_known_by_their_names(tmp_path: Path) -> None:
    """What a user may have called so stays."""

    def stop(file: Any) -> None:
        file.write(b"half")
        part = next(path for path in tmp_path.iterdir() if path.suffix == ".part")
        shutil.copy(part, tmp_path / "copy")
        raise StoppedError(part.name)

    with pytest.raises(StoppedError) as error:
        atomically(tmp_path / "metrics.jsonl", stop)
    assert listing(tmp_path) == ["copy"]
    theirs = [".part", ".notes.part", "metrics.jsonl.part", ".data.json.20251201", ".index.html"]
    for name in (str(error.value), ".summary.json.part", *theirs):
        written(tmp_path / name, "")
    (tmp_path / f".folder.{'0' * 16}.part").mkdir()
    clear(tmp_path)
    assert sorted(os.listdir(tmp_path)) == sorted([*theirs, f".folder.{'0' * 16}.part", "copy"])


def test_a_folder_is_held_by_one_and_left_as_it_was(tmp_path: Path) -> None:
    with held(tmp_path, "busy", remove=True):
        with pytest.raises(RecordError, match="busy: wait for it"), held(tmp_path, "busy"):
            pass
        assert os.listdir(tmp_path) == [".lock"]
    assert os.listdir(tmp_path) == []


def test_nothing_is_removed_from_a_folder_that_is_refused(
    tmp_path: Path, tiny: Callable[..., Experiment]
) -> None:
    names = ["progress.jsonl.part", ".my.0123456789abcdef.part", ".index.html.abcdefgh", "thesis"]
    for name in names:
        written(tmp_path / name, "mine")
    for resume in (False, True):
        with pytest.raises(RecordError, match=r"thesis"):
            run(tiny(), tmp_path, resume=resume)
        with pytest.raises(RecordError, match="holds no audit"):
            audited(Asked("anything", samples=4, out=tmp_path, resume=resume))
    assert sorted(os.listdir(tmp_path)) == sorted(names)


def test_a_learning_does_not_follow_a_link(tmp_path: Path, mine: Path) -> None:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    written(folder / "config.yaml", "mine")
    (tmp_path / "policy.safetensors.learning").symlink_to(folder)
    attack = {"name": "learned", "observe": 0, "inversion": None}
    changes = {"malicious": 1, "objective": {"name": "erm"}, "threat": {"clients": True}}
    config = demo_config(attack=attack, **changes)
    for resume in (False, True):
        with pytest.raises(RecordError, match=r"policy.safetensors.learning is a link"):
            learn_policy(from_config(Experiment, config), tmp_path / "policy.safetensors", resume)
    assert os.listdir(folder) == ["config.yaml"]


def test_a_new_file_is_new(tmp_path: Path, mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where somebody knows what it will be called."""
    monkeypatch.setattr("fedrobust.files.secrets.token_hex", lambda n: "0" * 16)
    (tmp_path / f".log.{'0' * 16}.part").symlink_to(mine)
    with pytest.raises(RecordError, match="File exists"):
        written(tmp_path / "log", "new")
    assert mine.read_bytes() == MINE


def test_what_is_no_regular_file_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="no regular file"):
        opened(tmp_path / "pipe")


def test_a_file_that_has_become_shorter_is_not_filled_up(tmp_path: Path) -> None:
    written(tmp_path / "log", "short")
    with (
        pytest.raises(RecordError, match="another process has changed it"),
        appending(tmp_path / "log", 9),
    ):
        pass
    assert (tmp_path / "log").read_text() == "short"
