"""A run directory is never overwritten, never shared, and never taken for another run's."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Event
from time import sleep
from typing import Any

import pytest
from run_contents import contents

from fedrobust import run
from fedrobust.errors import RecordError, UserError
from fedrobust.experiment import Experiment
from fedrobust.files import atomically, held, listing
from fedrobust.progress import Progress
from fedrobust.runs.directory import BEGUN


def test_nothing_is_overwritten(tmp_path: Path, tiny: Callable[..., Experiment]) -> None:
    run(tiny(rounds=2), tmp_path / "run")
    before = contents(tmp_path / "run")
    with pytest.raises(RecordError, match=r"already holds a run.*--resume"):
        run(tiny(rounds=2), tmp_path / "run")
    with pytest.raises(RecordError, match=r"another config.*differ in seed: 0 there, 5 here"):
        run(tiny(rounds=2, seed=5), tmp_path / "run", resume=True)
    batch = tiny(rounds=2).client.batch_size
    client = replace(tiny(rounds=2).client, batch_size=batch + 1)
    told = rf"differ in client.batch_size: {batch} there, {batch + 1} here$"
    with pytest.raises(RecordError, match=told):
        run(replace(tiny(rounds=2), client=client), tmp_path / "run", resume=True)
    assert contents(tmp_path / "run") == before
    other = tmp_path / "letters"
    other.mkdir()
    (other / "dear.txt").write_text("dear")
    for resume in (True, False):
        with pytest.raises(RecordError, match=r"dear.txt"):
            run(tiny(), other, resume=resume)
    assert [p.name for p in other.iterdir() if p.name != ".lock"] == ["dear.txt"]


def test_a_users_own_config_in_the_folder_is_not_taken_for_a_run_begun(
    tmp_path: Path, tiny: Callable[..., Experiment]
) -> None:
    (tmp_path / "config.yaml").write_text("name: mine\n")
    for resume in (False, True):
        with pytest.raises(RecordError):
            run(tiny(), tmp_path, resume=resume)
    assert (tmp_path / "config.yaml").read_text() == "name: mine\n"


def test_other_data_under_the_same_config_are_refused(
    tmp_path: Path, tiny: Callable[..., Experiment], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tiny(rounds=2), tmp_path / "run")
    monkeypatch.setattr("fedrobust.runs.prepare._digest", lambda *_: "0" * 16)
    with pytest.raises(RecordError, match="other data"):
        run(tiny(rounds=2), tmp_path / "run", resume=True)


def test_a_damaged_checkpoint_is_named(tmp_path: Path, tiny: Callable[..., Experiment]) -> None:
    run(tiny(rounds=2), tmp_path / "run")
    checkpoint = tmp_path / "run" / "checkpoint.pt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:-1000])
    with pytest.raises(RecordError, match=r"checkpoint.pt is damaged"):
        run(tiny(rounds=2), tmp_path / "run", resume=True)


def test_two_processes_do_not_write_to_one_directory(
    tmp_path: Path, tiny: Callable[..., Experiment]
) -> None:
    def second(log: Any) -> None:
        with pytest.raises(RecordError, match="another process"):
            run(tiny(rounds=2), tmp_path / "run", resume=True)

    run(tiny(rounds=2), tmp_path / "run", progress=Progress(played=second))


def test_a_directory_that_cannot_be_written_is_refused_before_training(
    tmp_path: Path, tiny: Callable[..., Experiment]
) -> None:
    (tmp_path / "file").write_text("")
    played: list[Any] = []
    with pytest.raises(RecordError, match=r"cannot write to .*choose another --out"):
        run(tiny(), tmp_path / "file" / "run", progress=Progress(played=played.append))
    assert not played


def test_a_full_disk_keeps_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "metrics.jsonl"
    atomically(target, lambda file: file.write(b"old"))

    def full(file: Any) -> None:
        file.write(b"ne")
        raise OSError(28, "No space left on device")

    with pytest.raises(RecordError, match="No space left"):
        atomically(target, full)
    assert target.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_files_that_only_look_like_a_run_begun_are_left(
    tmp_path: Path, tiny: Callable[..., Experiment]
) -> None:
    (tmp_path / "config.yaml").write_text("name: mine\n")
    for text, said in (('{"mine": 1}', "is not empty"), ("{", r"environment.json is broken")):
        (tmp_path / "environment.json").write_text(text)
        with pytest.raises(RecordError, match=said):
            run(tiny(), tmp_path)
        assert (tmp_path / "config.yaml").read_text() == "name: mine\n"
        assert (tmp_path / "environment.json").read_text() == text


def test_a_run_that_is_refused_leaves_no_folder_and_one_that_has_begun_is_kept(
    tmp_path: Path, tiny: Callable[..., Experiment]
) -> None:
    too_many = tiny(partition={"name": "iid", "clients": 4000})
    with pytest.raises(UserError, match="clients"):
        run(too_many, tmp_path / "new" / "run")
    assert list(tmp_path.iterdir()) == []

    def stop(log: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tiny(rounds=2), tmp_path / "run", progress=Progress(played=stop))
    assert {*BEGUN} <= {path.name for path in (tmp_path / "run").iterdir()}
    run(tiny(rounds=2), tmp_path / "run", resume=True)


@pytest.mark.parametrize("remove", [False, True])
def test_what_fails_leaves_no_empty_folder_and_no_folder_of_others_is_removed(
    tmp_path: Path, remove: bool
) -> None:
    def failing(folder: Path, write: bool) -> None:
        with held(folder, "busy", remove=remove):
            if write:
                (folder / "kept.txt").write_text("kept")
            raise KeyError

    def fails(folder: Path, write: bool) -> None:
        with pytest.raises(KeyError):
            failing(folder, write)

    fails(tmp_path / "new" / "run", write=False)
    assert list(tmp_path.iterdir()) == [], "nor the folders around it"
    fails(tmp_path / "new" / "run", write=True)
    assert (tmp_path / "new" / "run" / "kept.txt").exists()
    (tmp_path / "own").mkdir()
    fails(tmp_path / "own", write=False)
    fails(tmp_path / "own" / "run", write=False)
    assert (tmp_path / "own").is_dir()
    assert not (tmp_path / "own" / "run").exists()
    with held(tmp_path / "fine", "busy", remove=remove):
        pass
    assert (tmp_path / "fine").is_dir(), "what succeeds keeps its folder"


def test_who_waits_for_a_folder_gets_it_where_the_first_one_fails(tmp_path: Path) -> None:
    folder, held_by_first = tmp_path / "new" / "cache", Event()

    def fails() -> None:
        with held(folder, "busy"):
            held_by_first.set()
            sleep(0.3)  # while the others try it again and again
            raise KeyError

    def waits(number: int) -> None:
        held_by_first.wait()
        with held(folder, "busy", wait=True):
            (folder / f"{number}.txt").write_text("written")

    with ThreadPoolExecutor() as pool:
        first, others = pool.submit(fails), pool.map(waits, range(3))
        assert isinstance(first.exception(), KeyError)
        list(others)
    assert listing(folder) == ["0.txt", "1.txt", "2.txt"]


def test_where_no_folder_can_be_made_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nowhere(*_: Any, **__: Any) -> None:
        raise FileNotFoundError(2, "No such file or directory")  # as in /proc

    monkeypatch.setattr(Path, "mkdir", nowhere)
    with (
        pytest.raises(RecordError, match=r"cannot write to .*No such file"),
        held(tmp_path / "run", "busy", wait=True),
    ):
        pass
