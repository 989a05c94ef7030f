"""A folder that is no leaderboard is told as one, with the one that was meant."""

import shutil
from pathlib import Path

import pytest
from demo import ROOT
from leaderboards import protocol
from typer.testing import CliRunner

from fedrobust.cli import app
from fedrobust.errors import ConfigError, RecordError
from fedrobust.records.leaderboard import results_in
from fedrobust.runs.leaderboard.entry import write_entry

BOARD = ROOT / "results" / "leaderboard"


def check(folder: Path) -> tuple[int, str]:
    """The exit code and the message of ``fedrobust leaderboard check``."""
    done = CliRunner().invoke(app, ["leaderboard", "check", str(folder)])
    return done.exit_code, " ".join(done.output.split())


def test_check_passes_results_only(tmp_path: Path) -> None:
    assert check(BOARD) == (0, f"{len(results_in(BOARD))} results: all are sound")
    code, told = check(tmp_path)
    assert code == 2
    assert "is no leaderboard, since it has no leaderboard.json: fedrobust leaderboard add" in told
    shutil.copy(BOARD / "leaderboard.json", tmp_path)
    code, told = check(tmp_path)
    assert (code, "has no results yet: fedrobust leaderboard add" in told) == (2, True)
    assert f"--out {tmp_path}" in told


def test_the_leaderboard_that_was_meant_is_named(tmp_path: Path) -> None:
    """Of the folder above it, the advice was to make a file of a benchmark anew."""
    board = tmp_path / "board"
    (board / "mnist").mkdir(parents=True)
    shutil.copy(BOARD / "leaderboard.json", board)
    for folder in (tmp_path, board / "mnist"):
        with pytest.raises(RecordError) as error:
            results_in(folder)
        wanted = f"{folder} is no leaderboard, since it has no leaderboard.json: name {board}"
        assert str(error.value) == wanted
    (tmp_path / "else").mkdir()
    (tmp_path / "else" / "x.json").write_text("{}")
    assert "name the folder of a leaderboard, or a new one" in check(tmp_path / "else")[1]


def test_a_result_beside_the_folders_of_the_protocols_is_noticed(tmp_path: Path) -> None:
    """It does not count, so nobody may take it for one that does."""
    board = shutil.copytree(BOARD, tmp_path / "board")
    result = board / "mnist" / "mean-none-0.json"
    result.rename(board / result.name)
    with pytest.raises(RecordError, match=r"its place is mnist/mean-none-0\.json; move it there"):
        results_in(board)


def test_what_is_refused_leaves_no_folder(tmp_path: Path) -> None:
    run = ROOT / "results" / "fat" / "mnist-bulyan-alie"
    out = tmp_path / "new" / "board"
    command = ["leaderboard", "add", str(run), "--by", "a test", "--out", str(out)]
    done = CliRunner().invoke(app, command)
    assert (done.exit_code, "it is no run of the protocol" in done.output) == (1, True)
    assert not out.parent.exists()
    path = protocol(tmp_path / "tiny.yaml")
    with pytest.raises(ConfigError, match="kruum"):
        write_entry(out / "a.yaml", path, ["aggregator={name: kruum}"])
    assert not out.parent.exists()


def test_a_file_whose_name_no_rule_can_have_is_refused_before_it_is_played(tmp_path: Path) -> None:
    path = protocol(tmp_path / "tiny.yaml")
    with pytest.raises(ConfigError, match="'my rule' cannot be the name of a rule"):
        write_entry(tmp_path / "my rule.yaml", path, ["aggregator={name: mean}"])
