"""Where the time of a run went: rounds, evaluations and audits, also after a stop."""

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedrobust import Experiment, Progress, run
from fedrobust.evaluation.auditing.in_training import Auditing
from fedrobust.report.run_page import _facts
from fedrobust.report.run_records import ReportRun
from fedrobust.runs import checkpoint, measure

ATTACK = {"name": "pgd", "eps": 0.1, "step_size": 0.1, "steps": 1}
EVALUATION = {"every": 1, "samples": 20, "test_samples": 20, "attack": ATTACK}
FOUND = {"verdict": "masked", "claimed": 0.5, "robust": 0.1, "examples": 20}


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """An audit takes 0.3 s, and an evaluation at least 0.1 s."""

    def look(self: Auditing, *given: Any, **named: Any) -> dict[str, Any]:
        time.sleep(0.3)
        return FOUND

    real = measure._scores

    def scores(*given: Any) -> Any:
        time.sleep(0.1)
        return real(*given)

    monkeypatch.setattr(Auditing, "look", look)
    monkeypatch.setattr(measure, "_scores", scores)


def times(out: Path) -> dict[str, float]:
    found = json.loads((out / "summary.json").read_text())["times"]
    return {part: spent["seconds"] for part, spent in found.items()}


@pytest.mark.slow
@pytest.mark.usefixtures("slow")
def test_the_audits_after_the_last_round_are_told_and_a_stop_loses_nothing(
    plain: Callable[..., Experiment], tmp_path: Path
) -> None:
    class StoppedError(Exception):
        pass

    def stop(log: Any) -> None:
        if log.round == 2:
            raise StoppedError

    experiment = plain(rounds=2, evaluation=EVALUATION | {"audit": "quick"})
    out = tmp_path / "run"
    with pytest.raises(StoppedError):
        run(experiment, out, progress=Progress(played=stop))
    shutil.copytree(out, tmp_path / "older")
    run(experiment, out, resume=True)
    found = times(out)
    tested = 1 if ReportRun.read(out).chosen_round == 2 else 2
    assert 0.3 * (2 + tested) <= found["audits"] < 0.3 * (2 + tested) + 0.3
    assert 0.1 * (2 + tested) <= found["evaluations"] < 0.1 * (2 + tested) + 0.6
    assert found["rounds"] > 0
    facts = dict(_facts(ReportRun.read(out)))
    assert facts["Time"] == f"{sum(found.values()):.0f}\u202fs"
    assert facts["Of this"].endswith(f", audits {found['audits']:.0f}\u202fs")

    # A run that an earlier version began has no times: nothing is said of them.
    older = tmp_path / "older"
    content = checkpoint.read(older / "checkpoint.pt", "")
    del content["times"]
    with (older / "checkpoint.pt").open("wb") as file:
        checkpoint.write(content, file)
    run(experiment, older, resume=True)
    assert "times" not in json.loads((older / "summary.json").read_text())
    assert "Of this" not in dict(_facts(ReportRun.read(older)))


def test_a_run_without_audits_does_not_speak_of_them(
    plain: Callable[..., Experiment], tmp_path: Path
) -> None:
    run(plain(rounds=1, evaluation=EVALUATION), tmp_path / "run")
    facts = dict(_facts(ReportRun.read(tmp_path / "run")))
    assert facts["Of this"].startswith("rounds ")
    assert "audits" not in facts["Of this"]
