"""A sweep plays each cell of a grid, keeps the rest if one fails, and resumes."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import filelock
import pytest
from cells_here import in_this_process
from demo import demo_config
from typer.testing import CliRunner

from fedrobust import run
from fedrobust.cli import app
from fedrobust.errors import RecordError
from fedrobust.progress import CELLS, Progress
from fedrobust.report import write_report
from fedrobust.report.sweep.records import SweepRecords
from fedrobust.runs.grid import load_sweep
from fedrobust.runs.launchers.launcher import Job
from fedrobust.runs.launchers.report import Reporter
from fedrobust.runs.sweep import run_sweep

GRID: dict[str, Any] = {
    "rule": {
        "none": {"aggregator": {"name": "mean"}},
        "median": {"aggregator": {"name": "median"}},
    },
    "attack": {"none": {"malicious": 0}, "alie": {"malicious": 2, "attack.k": -1.5}},
    "seed": [0, 1],
}

LATE = {"name": "delayed", "start": 9, "attack": {"name": "sign-flip", "scale": 1.0}}


def write(path: Path, grid: Any, **changes: Any) -> Path:
    config = demo_config(**{"rounds": 2} | changes) | ({} if grid is None else {"grid": grid})
    path.write_text(json.dumps(config))  # which is YAML too
    return path


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return write(tmp_path / "sweep.yaml", GRID)


def test_two_processes_cannot_run_one_sweep(config: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with filelock.FileLock(out / ".lock"), pytest.raises(RecordError, match="another process"):
        run_sweep(load_sweep(config), out)


@pytest.mark.parametrize("text", ["[1, 2]", "{", '{"name": "mine"}'])
def test_a_foreign_record_is_refused(text: str, config: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "sweep.json").write_text(text)
    with pytest.raises(RecordError, match=r"broken|was not written by fedrobust sweep"):
        run_sweep(load_sweep(config), out, resume=True)
    assert (out / "sweep.json").read_text() == text


def metrics(out: Path) -> dict[str, str]:
    """What every cell recorded, but for the seconds."""
    found = {}
    for path in sorted(out.glob("cells/*/metrics.jsonl")):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        found[path.parent.name] = repr([{**line, "seconds": 0} for line in lines])
    return found


@pytest.mark.slow
def test_a_sweep_tells_what_may_be_a_mistake_once_and_then_of_which_cells(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A cell without an attack is what the others are compared with: no mistake."""
    weak = {"name": "pgd", "norm": "linf", "eps": 0.1, "step_size": 0.01, "steps": 2}
    grid = {
        "judge": {"weak": {"evaluation.attack": weak}, "late": {"attack": LATE}},
        "attack": {"none": {"malicious": 0}, "two": {"malicious": 2}},
    }
    out = tmp_path / "out"
    assert run_sweep(load_sweep(write(tmp_path / "sweep.yaml", grid)), out, jobs=1) == {}
    told = [line for line in capfd.readouterr().err.splitlines() if "warning" in line]
    assert len(told) == 3, told
    assert told[0].startswith("weak-none: warning: evaluation.attack goes at most 2 × 0.01")
    assert told[1].startswith("late-two: warning: the attack cannot act before round")
    assert told[2].startswith("2 cells (weak-none, weak-two): warning: evaluation.attack goes")


class Losing:
    """Each cell's first process is lost. Nothing is played."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.looks = 0

    @contextmanager
    def opened(self) -> Iterator["Losing"]:
        yield self

    def check(self, out: Path, cells: Any) -> None:
        """There is nothing to refuse."""

    def begin(self, out: Path, cells: Any, jobs: int | None) -> int:
        return len(cells)

    def start(self, jobs: Sequence[Job]) -> None:
        self.jobs = [*jobs]

    def ended(self) -> dict[str, str | None]:
        self.looks += 1
        if self.looks == 3:
            return {job.name: None for job in self.jobs}
        for job in self.jobs:
            report = Reporter(job.report, 2)
            if self.looks == 2 and job is self.jobs[0]:
                report.note("warning: of the second process")
            report.note("warning: of all")
        return {}

    def stop(self) -> None:
        """There is nothing to stop."""


@pytest.mark.parametrize("seeds", [[0], [0, 1]])
def test_what_a_cell_tells_after_its_process_was_lost_is_told_and_told_once(
    seeds: list[int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write(tmp_path / "sweep.yaml", {"seed": seeds})
    assert run_sweep(load_sweep(config), tmp_path / "out", on=Losing()) == {}
    assert capsys.readouterr().err.splitlines() == [
        "0: warning: of all",
        "0: warning: of the second process",
        *["2 cells (0, 1): warning: of all"][: len(seeds) - 1],
    ]


@pytest.mark.slow
def test_a_sweep_runs_fails_in_part_resumes_and_reports(tmp_path: Path) -> None:
    """One cell cannot write its records; the others are kept, and it is played again."""
    config, out = write(tmp_path / "sweep.yaml", {"seed": [0, 1]}), tmp_path / "out"
    blocked = out / "cells" / "1"
    sweep, seen = load_sweep(config), []

    def interfere(name: str, done: int, total: int) -> None:
        if name == CELLS:
            assert (done, total) == (0, 2)
            blocked.mkdir(parents=True)
            (blocked / "mine.txt").write_text("a user's own file")

    progress = Progress(moved=interfere, ended=lambda *told: seen.append(told))
    failed = run_sweep(sweep, out, jobs=1, progress=progress)
    assert list(failed) == ["1"]
    assert "no run directory (mine.txt" in failed["1"]
    assert "no run directory" in (out / "failed" / "1.txt").read_text()
    assert [name for name, _ in seen] == ["0", "1"]
    assert (blocked / "mine.txt").read_text() == "a user's own file"
    page = write_report([out]).read_text()
    assert "Failed cell" in page
    before = metrics(out)
    assert list(before) == ["0"]

    (blocked / "mine.txt").unlink()
    with pytest.raises(RecordError, match="already holds a sweep"):
        run_sweep(sweep, out)
    assert run_sweep(sweep, out, resume=True) == {}
    after = metrics(out)
    assert {name: after[name] for name in before} == before
    assert list(after) == ["0", "1"]
    assert not (out / "failed" / "1.txt").exists()
    assert "Failed cell" not in write_report([out]).read_text()

    grown = load_sweep(write(config, {"seed": [3, 0, 1]}))
    with in_this_process():
        assert run_sweep(grown, out, resume=True) == {}
    assert {name: metrics(out)[name] for name in after} == after
    assert list(metrics(out)) == ["0", "1", "3"]
    assert json.loads((out / "sweep.json").read_text())["axes"]["seed"] == ["3", "0", "1"]

    altered = load_sweep(write(config, {"seed": [3, 0, 1]}), ["client.batch_size=7"])
    with pytest.raises(RecordError, match=r"cell 3 is another run: they differ in client\.batch_"):
        run_sweep(altered, out, resume=True)
    other = load_sweep(write(config, {"seed": [0, 3]}))
    with pytest.raises(RecordError, match="sweep of another config: this one has no cell 1"):
        run_sweep(other, out, resume=True)


def test_a_reference_reaches_the_report_and_may_come_later(tmp_path: Path) -> None:
    config, out = tmp_path / "sweep.yaml", tmp_path / "out"
    grid = {key: GRID[key] for key in ("attack",)}
    sweep = load_sweep(write(config, grid, rounds=1))
    with in_this_process():
        assert run_sweep(sweep, out) == {}
    assert SweepRecords.read(out).reference is None
    later = load_sweep(write(config, grid, rounds=1, reference="alie"))
    told: list[tuple[str, int, int]] = []
    progress = Progress(moved=lambda *moved: told.append(moved))
    assert run_sweep(later, out, resume=True, progress=progress) == {}
    assert told == [(CELLS, 2, 2)]
    assert SweepRecords.read(out).reference == "alie"


@pytest.mark.slow
def test_a_cell_sees_no_other_and_the_environment_of_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Although the processes of all cells are forks of one, which outlives a sweep."""
    (tmp_path / "told.py").write_text(
        "import os\nimport torch\n"
        "torch.seen = getattr(torch, 'seen', 0) + 1\n"
        "class Model(torch.nn.Linear):\n"
        "    def __init__(self):\n"
        "        super().__init__(1, 1)\n"
        "    def forward(self, x):\n"
        "        words = [os.environ.get('WORD'), os.environ.get('OLD'), torch.seen]\n"
        "        raise ValueError(str(words))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    path = write(tmp_path / "sweep.yaml", {"seed": [0, 1]}, model={"name": "told:Model"})
    monkeypatch.setenv("OLD", "old")
    for word, old in (("first", "'old'"), ("second", "None")):
        monkeypatch.setenv("WORD", word)
        failed = run_sweep(load_sweep(path), tmp_path / word, jobs=1)
        assert list(failed) == ["0", "1"]
        assert all(f"['{word}', {old}, 1]" in why for why in failed.values()), failed
        monkeypatch.delenv("OLD", raising=False)


@pytest.mark.long
def test_a_killed_sweep_goes_on(tmp_path: Path) -> None:
    """SIGKILL for the command, with one cell done and one under way, which ends with it."""
    config, cut = write(tmp_path / "sweep.yaml", {"seed": [0, 1]}, rounds=20), tmp_path / "cut"
    command = [sys.executable, "-m", "fedrobust", "sweep", str(config), "--out", str(cut)]
    process = subprocess.Popen([*command, "--jobs", "1"])
    deadline = time.monotonic() + 120
    while not (cut / "cells" / "0" / "summary.json").exists():
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.02)
    while not (cut / "cells" / "1" / "checkpoint.pt").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.kill()
    process.wait()
    with filelock.FileLock(cut / "cells" / "1" / ".lock", timeout=60):
        pass  # the cell has let go
    assert not (cut / "cells" / "1" / "summary.json").exists()
    done = (cut / "cells" / "0" / "metrics.jsonl").read_bytes()
    with in_this_process():
        ended = CliRunner().invoke(app, [*command[3:], "--resume"])
    assert ended.exit_code == 0, ended.output
    assert "2 of 2 cells are done" in ended.stdout
    assert (cut / "cells" / "0" / "metrics.jsonl").read_bytes() == done
    whole = load_sweep(config).cells[1]
    run(whole.experiment, tmp_path / "whole" / "cells" / whole.name)
    assert metrics(cut)["1"] == metrics(tmp_path / "whole")["1"]


def test_the_command_says_what_is_wrong(tmp_path: Path) -> None:
    plain = write(tmp_path / "plain.yaml", None)
    result = CliRunner().invoke(app, ["sweep", str(plain)])
    assert result.exit_code == 2
    assert "fedrobust run plays a single experiment" in result.output
    crowded = tmp_path / "crowded"
    crowded.mkdir()
    (crowded / "thesis.tex").write_text("years of work")
    good = write(tmp_path / "good.yaml", {"seed": [0]})
    result = CliRunner().invoke(app, ["sweep", str(good), "--out", str(crowded)])
    assert result.exit_code == 2
    assert "is not empty (thesis.tex" in result.output
    assert sorted(p.name for p in crowded.iterdir()) == ["thesis.tex"]


def test_cells_of_another_precision_are_not_taken_for_those_asked_for(
    tmp_path: Path,
) -> None:
    config, out = tmp_path / "sweep.yaml", tmp_path / "out"
    grid = {"seed": [0]}
    for asked in ({}, {"precision": "float32"}, {"batch": 7}):
        write(config, grid, rounds=1, execution=asked)
        with in_this_process():
            assert run_sweep(load_sweep(config), out, resume=out.exists()) == {}
    write(config, grid, rounds=1, execution={"precision": "bfloat16"})
    said = "differ in execution.precision: float32 there, bfloat16 here"
    with pytest.raises(RecordError, match=said):
        run_sweep(load_sweep(config), out, resume=True)


def test_cells_with_an_object_that_nothing_compares_go_on_only_in_the_same_sweep(
    tmp_path: Path,
) -> None:
    config, out = tmp_path / "sweep.yaml", tmp_path / "out"

    def play(scale: float, seeds: list[int]) -> dict[str, str]:
        rule = {"name": "locked_rule:Locked", "scale": scale}
        changes = {"malicious": 0, "attack": None, "rounds": 1, "aggregator": rule}
        sweep = load_sweep(write(config, {"seed": seeds}, **changes))
        with in_this_process():
            return run_sweep(sweep, out, resume=out.exists())

    assert play(1.0, [0]) == {}
    assert play(1.0, [0]) == {}
    assert play(1.0, [1, 0]) == {}
    with pytest.raises(RecordError, match="nothing tells whether aggregator"):
        play(-5.0, [0, 1])
    record = json.loads((out / "sweep.json").read_text())
    for config_there in ("[1]", "{", '{"base": 1, "grid": [[]]}', None, 7):
        (out / "sweep.json").write_text(json.dumps(record | {"config": config_there}))
        with pytest.raises(RecordError, match="nothing tells whether aggregator"):
            play(1.0, [0, 1])
    (out / "sweep.json").unlink()
    with pytest.raises(RecordError, match="nothing tells whether aggregator"):
        play(1.0, [0, 1])
