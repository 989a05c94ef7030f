"""What launchers share: how a cell reports, what is refused, and how cores are given out."""

import json
from pathlib import Path

import filelock
import pytest
from grids import written_grid
from typer.testing import CliRunner

from fedrobust.cli import app
from fedrobust.cluster.probe import Node
from fedrobust.errors import ConfigError
from fedrobust.files import let_go
from fedrobust.runs.launchers import report
from fedrobust.runs.launchers.on_ray import _cores_each
from fedrobust.runs.launchers.report import Reporter, read
from fedrobust.runs.launchers.slurm_arguments import arguments


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written_grid(tmp_path_factory.mktemp("grid"))


def test_a_report_tells_how_often_a_process_was_lost_without_a_further_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "EVERY", 0.0)
    path = tmp_path / "0.json"
    deaths = []
    for reached in (5, 5, 4, 6, 6):
        reporter = Reporter(path, 10)
        deaths.append(reporter.report.deaths)
        for done in range(3, reached + 1):  # from the last checkpoint
            reporter.moved(done)
    assert deaths == [0, 1, 2, 3, 1]
    assert (said := read(path)) is not None
    assert (said.done, said.furthest, said.rounds, said.ended) == (6, 6, 10, False)
    reporter.end("it failed")
    assert (said := read(path)) is not None
    assert (said.ended, said.failure) == (True, "it failed")
    assert Reporter(path, 10).report.deaths == 0  # one that ended was not lost


def test_rounds_are_reported_at_most_twice_a_second(tmp_path: Path) -> None:
    reporter = Reporter(tmp_path / "0.json", 10_000)
    before = (tmp_path / "0.json").stat().st_ino
    for done in range(200):
        reporter.moved(done)
    assert (tmp_path / "0.json").stat().st_ino == before
    assert reporter.report.done == 199


@pytest.mark.parametrize("text", ["", "{", '{"done": 3, "rou', "[]", '{"done": -1, "rounds": 2}'])
def test_a_report_that_cannot_be_read_is_as_none(text: str, tmp_path: Path) -> None:
    path = tmp_path / "0.json"
    path.write_text(text)
    assert read(path) is None
    Reporter(path, 10)
    assert json.loads(path.read_text())["rounds"] == 10


def test_a_report_that_cannot_be_written_is_told_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reporter = Reporter(tmp_path / "away" / "0.json", 10)
    reporter.end(None)
    assert capsys.readouterr().err.count("0: warning: cannot write") == 1


def test_a_lock_is_waited_for_within_bounds(tmp_path: Path) -> None:
    with filelock.FileLock(tmp_path / ".lock"):
        assert not let_go(tmp_path, 0.1)
    assert let_go(tmp_path, 0.1)


def test_cores_are_given_out_so_that_all_cells_fit() -> None:
    there = [Node("a", "a", 16, 0), Node("b", "b", 8, 0), Node("c", "c", 0, 0)]
    assert [_cores_each(there, n) for n in (1, 2, 3, 4, 6, 24, 100)] == [16, 8, 8, 5, 4, 1, 1]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("partition=gpu", r"there is no 'partition' \(did you mean 'slurm_partition'\?\); there"),
        ("timeout_min=soon", "--slurm-arg timeout_min='soon': Input should be a valid integer"),
        ("mem_gb=-1", "greater than 0"),
        ("cpus_per_task", "write cpus_per_task=VALUE"),
        ("cluster=here", "Input should be 'slurm' or 'local'"),
        ("slurm_array_parallelism=4", "--jobs says how many run at a time"),
    ],
)
def test_a_wrong_argument_gets_one_message(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        arguments([text])


def test_arguments_are_read_as_what_they_are() -> None:
    read = arguments(["timeout_min=60", "mem_gb=1.5", "slurm_partition=gpu", "gpus_per_node=0"])
    assert read == {
        "timeout_min": 60,
        "mem_gb": 1.5,
        "slurm_partition": "gpu",
        "gpus_per_node": 0,
    }


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--on", "rey"], "there is no such launcher (did you mean 'ray'?)"),
        (["--address", "here:1"], "add --on ray"),
        (["--slurm-arg", "mem_gb=1"], "add --on slurm"),
        (["--on", "slurm"], "there is no SLURM on this machine (no command sbatch)"),
        (
            ["--on", "slurm", "--slurm-arg", "cluster=local", "--out", "100%"],
            "choose another --out",
        ),
    ],
)
def test_the_command_says_what_is_wrong(
    options: list[str], words: str, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "slurm" in options:
        pytest.importorskip("submitit")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))  # where there is no SLURM
    result = CliRunner().invoke(app, ["sweep", str(config), *options])
    assert result.exit_code == 2
    assert words in result.output
    assert not list(tmp_path.glob("**/sweep.json"))
