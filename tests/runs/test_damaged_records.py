"""The damages that records meet most often: named, nothing else changed, put right if possible."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cells_here import in_this_process
from damaged import Originals, cut, digest, records, refused, resumed
from run_contents import contents
from safetensors.torch import save_file

from fedrobust import run
from fedrobust.attacks.learned.policy_files import load_policy
from fedrobust.config.component import from_config
from fedrobust.errors import ConfigError
from fedrobust.experiment import Experiment
from fedrobust.report import write_report
from fedrobust.runs.audit import Asked, audited
from fedrobust.runs.directory import RunDirectory
from fedrobust.runs.grid import load_sweep
from fedrobust.runs.sweep import run_sweep

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_pages")]


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Originals:
    torch.set_num_threads(1)
    return records.make(tmp_path_factory.mktemp("records"))


@pytest.fixture
def copy(originals: Originals, tmp_path: Path) -> Callable[[str], Path]:
    """Makes a copy of one of the records to spoil."""
    return lambda name: Path(shutil.copytree(originals.folder / name, tmp_path / name))


@pytest.mark.long
def test_a_checkpoint_that_a_full_disk_cut(copy: Callable[[str], Path]) -> None:
    folder = copy("begun")
    cut(folder / "checkpoint.pt")
    said = refused(folder, r"checkpoint.pt is damaged: .*", lambda: resumed(folder))
    assert "put a copy back, or start again in a new --out" in said
    assert "metrics.jsonl, rounds.jsonl beside it stay as they are" in said


def test_a_bit_of_a_checkpoint_turned_over(copy: Callable[[str], Path]) -> None:
    """PyTorch reads such a file without a word."""
    folder = copy("begun")
    path = folder / "checkpoint.pt"
    content = bytearray(path.read_bytes())
    start = torch.load(path, weights_only=True)["best"].numpy().tobytes()
    at = bytes(content).index(start)
    content[at + 3] ^= 1
    path.write_bytes(content)
    torch.load(path, weights_only=True)
    said = r"checkpoint.pt is damaged: its content is not what was written"
    refused(folder, said, lambda: resumed(folder))


def test_a_full_disk_is_called_so_and_leaves_the_checkpoint(
    copy: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyTorch itself says "unexpected pos"."""
    folder = copy("begun")

    class Full:
        def __init__(self, file: Any) -> None:
            self.failure: OSError | None = None
            self.left = 5000

        def write(self, data: Any) -> int:
            self.left -= len(data)
            if self.left < 0:
                self.failure = OSError(28, "No space left on device")
                raise self.failure
            return len(data)

        def flush(self) -> None:
            pass

    monkeypatch.setattr("fedrobust.runs.checkpoint._Stream", Full)
    with RunDirectory(folder, resume=True) as directory:
        content = directory.load_checkpoint()
        assert content is not None
        said = r"cannot write .*checkpoint.pt: .*No space left"
        refused(folder, said, lambda: directory.save_checkpoint(content))


def test_a_checkpoint_is_missing(copy: Callable[[str], Path]) -> None:
    folder = copy("run")
    (folder / "checkpoint.pt").unlink()
    said = refused(
        folder, r"checkpoint.pt is missing, though metrics.jsonl", lambda: resumed(folder)
    )
    assert "Put it back, or start again in a new --out" in said


def test_a_checkpoint_of_another_run_on_the_same_data(
    copy: Callable[[str], Path], originals: Originals
) -> None:
    folder = copy("sweep")
    flip, none = (folder / "cells" / name for name in ("flip", "none"))
    shutil.copy(none / "checkpoint.pt", flip / "checkpoint.pt")
    experiment = load_sweep(originals.folder / "sweep.yaml").cells[1].experiment
    said = "checkpoint.pt is broken: it belongs to a run of another config: name: ring-none there"
    refused(folder, said, lambda: run(experiment, flip, resume=True))


def test_an_empty_summary(copy: Callable[[str], Path], originals: Originals) -> None:
    folder = copy("run")
    (folder / "summary.json").write_text("")
    said = refused(
        folder, "summary.json is broken: it is empty", lambda: write_report([folder], folder / "r")
    )
    assert "resume the run (--resume), which makes it again from checkpoint.pt" in said
    (told,) = resumed(folder)
    assert told.startswith("summary.json is made again from checkpoint.pt, and the old one kept as")
    assert (folder / "summary.json.damaged-1").read_text() == ""
    assert contents(folder) == contents(originals.run)
    assert resumed(folder) == []


def test_a_summary_of_another_run_is_kept_aside(
    copy: Callable[[str], Path], originals: Originals
) -> None:
    folder = copy("run")
    summary = folder / "summary.json"
    strange = json.loads(summary.read_text()) | {"rounds": 30}
    summary.write_text(json.dumps(strange))
    refused(folder, "summary.json is broken: it has 30 rounds", lambda: write_report([folder]))
    assert "it is of 30 rounds, and this run has 3" in resumed(folder)[0]
    assert json.loads((folder / "summary.json.damaged-1").read_text()) == strange
    assert contents(folder) == contents(originals.run)


def test_metrics_cut_in_their_last_line(copy: Callable[[str], Path], originals: Originals) -> None:
    folder = copy("run")
    cut(folder / "metrics.jsonl", 0.95)
    refused(folder, "metrics.jsonl, line 3 is broken", lambda: write_report([folder]))
    assert "metrics.jsonl is made again from checkpoint.pt" in resumed(folder)[0]
    assert contents(folder) == contents(originals.run)


def asked(where: Path, out: Path) -> Asked:
    return records.asked(where, out, resume=True)


def test_an_audit_cut(copy: Callable[[str], Path], originals: Originals) -> None:
    folder = copy("audit")
    cut(folder / "audit.json")
    said = "audit.json is broken: .*; audit again in a new --out"
    refused(folder, said, lambda: write_report([folder]))
    refused(folder, said, lambda: audited(asked(originals.run, folder)))


def test_the_progress_of_an_audit_cut(copy: Callable[[str], Path], originals: Originals) -> None:
    """It goes on from what is whole; a line that is not as it was written is said."""
    folder = copy("progress")
    journal = folder / "progress.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join([*lines[:-1], lines[-1][: len(lines[-1]) // 2]]))
    found = audited(asked(originals.run, folder)).to_json()
    wanted = audited(asked(originals.run, originals.audit)).to_json()
    for taken in (*found["taken"], *wanted["taken"]):
        del taken["seconds"]
    assert found == wanted

    (folder / "audit.json").unlink()
    journal.write_text("".join([*lines[:1], lines[1].replace("[", "[1, ", 1), *lines[2:]]))
    said = "progress.jsonl, line 2, cannot be read: .*; remove that line"
    refused(folder, said, lambda: audited(asked(originals.run, folder)))


def test_a_cell_without_its_summary(copy: Callable[[str], Path], originals: Originals) -> None:
    folder = copy("sweep")
    cell = folder / "cells" / "flip"
    summary = cell / "summary.json"
    before = summary.read_bytes()
    summary.unlink()
    assert "Begun, but not finished: flip" in write_report([folder]).read_text()
    shutil.rmtree(folder / "report")
    other = digest(folder / "cells" / "none")
    with in_this_process():
        assert run_sweep(load_sweep(originals.folder / "sweep.yaml"), folder, resume=True) == {}
    assert without_seconds(summary.read_bytes()) == without_seconds(before)
    assert digest(folder / "cells" / "none") == other


def test_a_sweep_whose_record_is_lost(copy: Callable[[str], Path], originals: Originals) -> None:
    folder, sweep = copy("sweep"), load_sweep(originals.folder / "sweep.yaml")
    (folder / "sweep.json").write_text("[")
    refused(
        folder, "sweep.json is broken: .*; remove it and", lambda: run_sweep(sweep, folder, True)
    )
    (folder / "sweep.json").unlink()
    refused(folder, "is not empty", lambda: run_sweep(sweep, folder))
    with in_this_process():
        assert run_sweep(sweep, folder, resume=True) == {}
    made, wanted = (json.loads((f / "sweep.json").read_text()) for f in (folder, originals.sweep))
    assert made | {"threads": 0} == wanted | {"threads": 0}
    assert digest(folder / "cells") == digest(originals.sweep / "cells")


def without_seconds(content: bytes) -> Any:
    from run_contents import without_seconds

    return without_seconds(json.loads(content))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("nonsense", "it is not a mapping"),
        ("", "it is not a mapping"),
        ("rounds: [", "it is not valid YAML"),
        ("name: tiny\nrounds: many\n", ""),
    ],
)
def test_a_config_edited_to_nonsense(
    copy: Callable[[str], Path], originals: Originals, text: str, why: str
) -> None:
    folder = copy("run")
    (folder / "config.yaml").write_text(text)
    out = folder / "audit"
    for read in (
        lambda: write_report([folder]),
        lambda: audited(Asked(str(folder), samples=10)),
    ):
        refused(folder, f"config.yaml is broken: {why}", read)
    said = f"config.yaml is broken: {why}|another config" if why else "another config"
    refused(folder, said, lambda: resumed(folder))
    assert not out.exists()


def test_the_best_model_of_another_network(
    copy: Callable[[str], Path], originals: Originals
) -> None:
    folder = copy("run")
    best = folder / "best.safetensors"
    save_file({"weight": torch.zeros(3, 3)}, best)
    strange = best.read_bytes()
    said = refused(
        folder,
        "best.safetensors holds the weights of another network: there is no ",
        lambda: audited(Asked(str(folder), samples=10)),
    )
    assert "resume the run (--resume)" in said
    assert "best.safetensors is made again" in resumed(folder)[0]
    assert (folder / "best.safetensors.damaged-1").read_bytes() == strange
    assert contents(folder) == contents(originals.run)


def test_broken_pictures(copy: Callable[[str], Path], originals: Originals) -> None:
    folder = copy("run")
    cut(folder / "examples.npz")
    refused(folder, "examples.npz is broken", lambda: write_report([folder]))
    assert "examples.npz is made again" in resumed(folder)[0]
    assert contents(folder) == contents(originals.run)


def test_pictures_with_impossible_labels(copy: Callable[[str], Path], originals: Originals) -> None:
    """What a page refuses is made again when the run is resumed."""
    folder = copy("run")
    with np.load(folder / "examples.npz") as archive:
        arrays = dict(archive)
    np.savez(folder / "examples.npz", **arrays | {"labels": arrays["labels"] - 100})
    refused(folder, "it has labels outside 0 to", lambda: write_report([folder]))
    assert "examples.npz is made again" in resumed(folder)[0]
    assert contents(folder) == contents(originals.run)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_a_policy_cut(copy: Callable[[str], Path], share: float) -> None:
    folder = copy("policy")
    file = folder / "p.safetensors"
    cut(file, share)
    said = "p.safetensors cannot be read as a policy"
    refused(folder, said, lambda: load_policy(file))
    attack = records.RING["attack"] | {"policy": str(file)}
    refused(folder, said, lambda: from_config(Experiment, records.RING | {"attack": attack}))


def test_a_bit_of_a_policy_turned_over(copy: Callable[[str], Path]) -> None:
    file = copy("policy") / "p.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(ConfigError, match="its content is not what was written"):
        load_policy(file)
