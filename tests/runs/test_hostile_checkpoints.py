"""What may lie in place of a checkpoint, and of what else is read when a run goes on."""

import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from modest import modestly

from fedrobust import run
from fedrobust.errors import FormatError, RecordError
from fedrobust.experiment import Experiment
from fedrobust.progress import Progress
from fedrobust.runs import checkpoint


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture
def ended(folder: Path, tiny: Callable[..., Experiment], tmp_path: Path) -> Path:
    if not (folder / "run").exists():
        run(tiny(rounds=2), folder / "run")
    return Path(shutil.copytree(folder / "run", tmp_path / "run"))


def resumed(out: Path, experiment: Experiment) -> list[str]:
    told: list[str] = []
    run(experiment, out, resume=True, progress=Progress(repaired=told.append))
    return told


def pipe(path: Path) -> None:
    os.mkfifo(path)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2**40)


def packed(path: Path) -> None:
    """A gigabyte of zeros in a megabyte."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(2**26))


def spread(path: Path) -> None:
    """One number as a tensor of 10¹⁵."""
    torch.save({"best": torch.zeros(1).expand(10**15)}, path)


@pytest.mark.parametrize("what", [pipe, device, sparse, packed, spread])
def test_what_is_no_checkpoint_is_said_at_once(
    ended: Path, tiny: Callable[..., Experiment], what: Callable[[Path], None]
) -> None:
    (ended / "checkpoint.pt").unlink()
    what(ended / "checkpoint.pt")
    with (
        modestly(2**28),
        pytest.raises(RecordError, match=r"checkpoint.pt is damaged: it|a tensor"),
    ):
        resumed(ended, tiny(rounds=2))


@pytest.mark.parametrize("what", [pipe, device, sparse])
@pytest.mark.parametrize("name", ["metrics.jsonl", "rounds.jsonl", "checkpoint.rounds.jsonl"])
def test_what_can_be_made_again_is(
    ended: Path, tiny: Callable[..., Experiment], name: str, what: Callable[[Path], None]
) -> None:
    wanted = (ended / name).read_bytes()
    (ended / name).unlink()
    what(ended / name)
    with modestly(2**28):
        (said,) = resumed(ended, tiny(rounds=2))
    assert said.startswith(f"{name} is made again")
    assert "--resume" not in said
    assert (ended / name).read_bytes() == wanted


def test_a_summary_of_a_later_version_stays(ended: Path, tiny: Callable[..., Experiment]) -> None:
    content = json.loads((ended / "summary.json").read_text())
    assert content["format"] == 1
    text = json.dumps(content | {"format": 2})
    (ended / "summary.json").write_text(text)
    with pytest.raises(FormatError, match=r"is of format 2, which this version .* does not know"):
        resumed(ended, tiny(rounds=2))
    assert (ended / "summary.json").read_text() == text


def test_a_checkpoint_of_a_later_version_stays(
    ended: Path, tiny: Callable[..., Experiment]
) -> None:
    content: dict[str, Any] = checkpoint.read(ended / "checkpoint.pt", "")
    with (ended / "checkpoint.pt").open("wb") as file:
        checkpoint.write(content | {"format": 3, "more": 1}, file)
    with pytest.raises(RecordError, match="it is of format 3, which this version of fedrobust"):
        resumed(ended, tiny(rounds=2))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": [2]}, "it is of format"),
        ({"format": True}, "it is of format"),
        ({"log": {"rounds": 2, "size": -5, "sha256": ""}}, "a length below 0"),
        (
            {"log": {"rounds": 2, "size": 10**15, "sha256": "", "more": 1}},
            "both missing, or do not match",
        ),
        ({"log": {"rounds": "two", "size": 1, "sha256": ""}}, "its account of the rounds"),
        ({"tally": {"sent": "many"}}, "its account of the rounds"),
    ],
)
def test_a_forged_checkpoint_is_named(
    ended: Path, tiny: Callable[..., Experiment], changes: dict[str, Any], message: str
) -> None:
    """One that says that it is whole, as its digest can be made by anybody."""
    content: dict[str, Any] = checkpoint.read(ended / "checkpoint.pt", "")
    with (ended / "checkpoint.pt").open("wb") as file:
        checkpoint.write(content | changes, file)
    with pytest.raises(RecordError, match=message):
        resumed(ended, tiny(rounds=2))
