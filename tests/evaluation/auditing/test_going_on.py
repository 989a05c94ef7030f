"""An audit that was interrupted goes on, and gives what it would have given."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from planted import EPS, Times, digits, natural, robust
from safetensors.torch import save_file
from torch import Tensor, nn
from typer.testing import CliRunner

from fedrobust.cli import app
from fedrobust.compute.units import shared_by
from fedrobust.data import Digits
from fedrobust.errors import RecordError
from fedrobust.evaluation import Audit, audit
from fedrobust.models import DigitsCnn, build_model

pytestmark = pytest.mark.slow


class Counted(nn.Module):
    """Counts the examples that it is asked about, and can fail after so many."""

    def __init__(self, model: nn.Module, fails_after: float = float("inf")) -> None:
        super().__init__()
        self.model, self.asked, self.fails_after = model, 0, fails_after

    def forward(self, x: Tensor) -> Tensor:
        self.asked += len(x)
        if self.asked > self.fails_after:
            raise RuntimeError("the machine went away")
        logits: Tensor = self.model(x)
        return logits


def figures(found: Audit) -> dict[str, Any]:
    """Everything but the seconds."""
    content = found.to_json()
    for taken in content["taken"]:
        del taken["seconds"]
    return content


@pytest.mark.long
def test_what_was_done_is_not_done_again(tmp_path: Path) -> None:
    _, _, x, y = digits()
    keys: dict[str, Any] = {"eps": EPS, "batch_size": 8}
    x, y, journal = x[:16], y[:16], tmp_path / "progress.jsonl"
    whole = Counted(robust())
    expected = audit(whole, x, y, **keys)
    broken = Counted(robust(), fails_after=whole.asked * 0.75)
    with pytest.raises(RuntimeError, match="went away"):
        audit(broken, x, y, **keys, journal=journal)
    lines = journal.read_text().splitlines()
    assert len(lines) > 6
    later = Counted(robust())
    found = audit(later, x, y, **keys, journal=journal)
    assert figures(found) == figures(expected)
    assert later.asked < whole.asked * 0.5
    assert journal.read_text().splitlines()[: len(lines)] == lines
    # All of it is there, and one line that a kill cut in two is done again.
    text = journal.read_text()
    idle = Counted(robust())
    assert figures(audit(idle, x, y, **keys, journal=journal)) == figures(expected)
    assert idle.asked < whole.asked * 0.02
    journal.write_text(text[:-7])
    assert figures(audit(robust_again(), x, y, **keys, journal=journal)) == figures(expected)
    assert journal.read_text() == text


def robust_again() -> nn.Module:
    return Counted(robust())


def test_the_journal_of_another_audit_is_refused_and_left(tmp_path: Path) -> None:
    _, _, x, y = digits()
    x, y, journal = x[:12], y[:12], tmp_path / "progress.jsonl"
    # A factor of 1 or 3 is no weight: only the logits tell it.
    first: dict[str, Any] = {"model": Counted(Times(natural(), 1.0)), "x": x, "y": y, "eps": EPS}
    audit(**first, journal=journal)
    before = journal.read_bytes()
    others: list[dict[str, Any]] = [
        {"model": Counted(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)))},
        {"model": Counted(Times(natural(), 3.0))},
        {"eps": 0.11},
        {"seed": 1},
        {"batch_size": 7},
        {"budget": "standard"},
        {"x": x * 0.99},
        {"y": (y + 1) % 10},
    ]
    for change in others:
        with pytest.raises(RecordError, match="another model, of other examples or with other"):
            audit(**first | change, journal=journal)
        assert journal.read_bytes() == before, change


def test_an_audit_goes_on_with_other_threads_and_any_whole_labels(tmp_path: Path) -> None:
    _, _, x, y = digits()
    journal = tmp_path / "progress.jsonl"
    first = audit(natural(), x[:12], y[:12], eps=EPS, journal=journal)
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join(lines[: len(lines) // 2]))
    with shared_by(3):
        again = audit(natural(), x[:12], y[:12].int(), eps=EPS, journal=str(journal))
    assert (again.robust, again.signs) == (first.robust, first.signs)


def test_a_broken_journal_is_named(tmp_path: Path) -> None:
    _, _, x, y = digits()
    journal = tmp_path / "progress.jsonl"
    for text in ("nonsense\n", "3\n"):
        journal.write_text(text)
        with pytest.raises(RecordError, match="cannot be read"):
            audit(natural(), x[:12], y[:12], eps=EPS, journal=journal)


@pytest.mark.long
def test_a_killed_audit_goes_on_from_the_command_line(tmp_path: Path) -> None:
    data = Digits().load()
    model = build_model(DigitsCnn(), data.shape, data.classes, torch.Generator().manual_seed(3))
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(weights, tmp_path / "w.safetensors")
    words = [sys.executable, "-m", "fedrobust", "audit", str(tmp_path / "w.safetensors")]
    words += ["--model", "digits-cnn", "--data", "digits", "--eps", "0.05", "--samples", "25"]
    words += ["--batch", "5"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    journal = tmp_path / "out" / "progress.jsonl"
    process = subprocess.Popen(
        [*words, "--out", str(tmp_path / "out")], env=environment, stderr=subprocess.DEVNULL
    )
    until = time.monotonic() + 120
    while time.monotonic() < until and process.poll() is None:
        if journal.exists() and len(journal.read_text().splitlines()) > 8:
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it ended before it could be killed"
    assert journal.exists()
    assert not (tmp_path / "out" / "audit.json").exists()
    for out, more in (("out", ["--resume"]), ("whole", [])):
        done = CliRunner().invoke(app, [*words[3:], "--out", str(tmp_path / out), *more])
        assert done.exit_code == 0, done.output
    found, expected = (
        figures(Audit.from_json(json.loads((tmp_path / name / "audit.json").read_text())))
        for name in ("out", "whole")
    )
    assert found == expected
    assert not journal.exists()
