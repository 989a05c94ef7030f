"""The log of the rounds grows by the round, and outlives the damage of one of its two files."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from demo import PLAIN
from run_contents import contents

from fedrobust import run
from fedrobust.errors import RecordError
from fedrobust.experiment import Experiment
from fedrobust.progress import Progress
from fedrobust.runs import checkpoint
from fedrobust.runs.directory import RunDirectory
from fedrobust.runs.tally import Tally

pytestmark = pytest.mark.slow

FILES = ("checkpoint.rounds.jsonl", "rounds.jsonl")


class StoppedError(Exception):
    """Stands for the end of the process."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture
def straight(folder: Path, plain: Callable[..., Experiment]) -> Path:
    if not (folder / "straight").exists():
        run(plain(), folder / "straight")
    return folder / "straight"


@pytest.fixture
def stopped(folder: Path, plain: Callable[..., Experiment], tmp_path: Path) -> Path:
    """A copy of a run that was stopped after round 4 of 6, with lines beyond its checkpoint."""
    if not (folder / "stopped").exists():

        def stop(log: Any) -> None:
            if log.round == 5:
                raise StoppedError

        with pytest.raises(StoppedError):
            run(plain(), folder / "stopped", progress=Progress(played=stop))
    return Path(shutil.copytree(folder / "stopped", tmp_path / "stopped"))


def resumed(experiment: Experiment, out: Path) -> list[str]:
    told: list[str] = []
    run(experiment, out, resume=True, progress=Progress(repaired=told.append))
    return told


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_what_a_kill_left_beyond_the_checkpoint_is_played_again(
    straight: Path, stopped: Path, plain: Callable[..., Experiment]
) -> None:
    for name, more in zip(FILES, ('{"round": 5}\n{"rou', '{"round"'), strict=True):
        assert [line["round"] for line in lines(stopped / name)] == [1, 2, 3, 4]
        with (stopped / name).open("a") as file:
            file.write(more)
    assert resumed(plain(), stopped) == []
    assert contents(stopped) == contents(straight)
    assert (stopped / FILES[0]).read_bytes() == (stopped / FILES[1]).read_bytes()


def spoil(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "missing":
        path.unlink()
    elif how == "cut":
        path.write_bytes(content[:-30])
    elif how == "longer":
        path.write_bytes(bytes(content) + b'{"round": 7}\n')
    else:
        content[12] ^= 1
        path.write_bytes(content)


@pytest.mark.parametrize("how", ["missing", "cut", "turned", "longer"])
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_made_again_from_the_other(
    straight: Path,
    stopped: Path,
    tmp_path: Path,
    plain: Callable[..., Experiment],
    name: str,
    how: str,
) -> None:
    ended = Path(shutil.copytree(straight, tmp_path / "ended"))
    for place in (stopped, ended):
        spoil(place / name, how)
        damaged = (place / name).read_bytes() if how != "missing" else b""
        told = resumed(plain(), place)
        assert contents(place) == contents(straight)
        assert (place / FILES[0]).read_bytes() == (place / FILES[1]).read_bytes()
        if how == "missing":
            assert len(told) == (place is ended and name == "rounds.jsonl")
        elif how != "longer" or place is ended:
            other = FILES[1 - FILES.index(name)]
            (said,) = told
            assert said.startswith(f"{name} is made again from {other}, and the old one kept as")
            assert (place / f"{name}.damaged-1").read_bytes() == damaged
        assert resumed(plain(), place) == []


def test_where_both_are_damaged_it_is_said_and_nothing_is_changed(
    stopped: Path, plain: Callable[..., Experiment]
) -> None:
    for name in FILES:
        spoil(stopped / name, "turned")
    before = {path.name: path.read_bytes() for path in stopped.iterdir()}
    with pytest.raises(RecordError, match=r"rounds.jsonl and checkpoint.rounds.jsonl beside it"):
        resumed(plain(), stopped)
    assert {path.name: path.read_bytes() for path in stopped.iterdir()} == before


def as_before(place: Path) -> None:
    """What an earlier version left, which kept all rounds in the checkpoint."""
    content = checkpoint.read(place / "checkpoint.pt", "")
    content["rounds"] = lines(place / "rounds.jsonl")[: content["log"]["rounds"]]
    for key in ("format", "log", "tally"):
        del content[key]
    with (place / "checkpoint.pt").open("wb") as file:
        checkpoint.write(content, file)
    (place / "checkpoint.rounds.jsonl").unlink()


@pytest.mark.parametrize("left", [4, 2, 0])
def test_a_checkpoint_of_an_earlier_version_goes_on(
    straight: Path, stopped: Path, tmp_path: Path, plain: Callable[..., Experiment], left: int
) -> None:
    """Where a kill had cut its log off, which was written after it, too."""
    ended = Path(shutil.copytree(straight, tmp_path / "ended"))
    for place in (stopped, ended):
        as_before(place)
    text = (stopped / "rounds.jsonl").read_text().splitlines(keepends=True)
    (stopped / "rounds.jsonl").write_text("".join(text[:left]))
    for place in (stopped, ended):
        assert resumed(plain(), place) == []
        assert contents(place) == contents(straight)


def test_a_checkpoint_does_not_grow_with_the_rounds(
    tmp_path: Path, plain: Callable[..., Experiment], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is the log written anew: each save writes what was played since the last one."""
    monkeypatch.setattr("fedrobust.runs.loop.SAVE_EVERY", 0.0)
    written = dict[int, int]()
    real = RunDirectory.save_checkpoint

    def spied(self: RunDirectory, content: Any) -> None:
        real(self, content)
        written[content["state"]["round"]] = (self.path / "checkpoint.pt").stat().st_size

    monkeypatch.setattr(RunDirectory, "save_checkpoint", spied)
    evaluation = PLAIN["evaluation"] | {"every": 100}
    run(plain(rounds=20, evaluation=evaluation), tmp_path / "run")
    assert len(written) == 20
    assert written[19] - written[2] < 200
    assert (tmp_path / "run" / "rounds.jsonl").stat().st_size > 2000


def test_a_tally_is_that_of_the_lines() -> None:
    """Counted by the round or at once, and through what a checkpoint holds."""
    rounds: list[dict[str, Any]] = [
        {"round": 1, "malicious": [3], "kept": [3, 4], "dropped": [], "applied": True},
        {"round": 2, "malicious": [3, 5], "kept": [4], "dropped": [5], "applied": True},
        {"round": 3, "malicious": [], "kept": None, "dropped": [2, 5], "applied": False}
        | {"reason": "too few"},
        {"round": 4, "malicious": [1], "kept": None, "dropped": [], "applied": False}
        | {"reason": "still too few"},
    ]
    tally = Tally.of(rounds)
    assert tally.kept_share == 1 / 3
    assert tally.troubles(least=2) == [
        "rows of clients 2, 5 were refused in 2 rounds, the first 2: they were not finite, "
        "or no dense rows [d] of real numbers",
        "2 rounds made no step, the first 3: too few",
        "in 2 of the rounds with malicious clients fewer than 2 took part, too few for the "
        "attack, the first time in round 1",
    ]
    assert Tally().kept_share is None
    assert Tally().troubles() == []


@pytest.mark.parametrize("names", [FILES[:1], FILES[1:], FILES])
def test_a_log_that_is_changed_while_the_run_goes_on(
    straight: Path, tmp_path: Path, plain: Callable[..., Experiment], names: tuple[str, ...]
) -> None:
    """It is made again from the other; where both are lost the run says so at its end."""
    out = tmp_path / "run"

    def spoil_them(log: Any) -> None:
        if log.round == 5:
            for name in names:
                spoil(out / name, "cut" if len(names) == 1 else "missing")

    told, made = list[str](), list[str]()
    watch = Progress(played=spoil_them, unkept=told.append, repaired=made.append)
    ended = run(plain(), out, progress=watch)
    if len(names) == 1:
        assert ended.unkept is None
        (said,) = made
        assert said.startswith(f"{names[0]} is made again from")
        assert contents(out) == contents(straight)
    else:
        assert ended.unkept is not None
        assert "were changed by somebody else" in ended.unkept
        assert not (out / "summary.json").exists()
        assert len(told) == 1
