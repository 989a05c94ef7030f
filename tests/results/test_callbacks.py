"""Callbacks see every event in order, and an object that would never be called is refused."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import rich.console

from fedrobust import Callback, Experiment, Run, run
from fedrobust.errors import ConfigError
from fedrobust.progress import Progress
from fedrobust.results import play


class Diary(Callback):
    def __init__(self) -> None:
        self.told: list[Any] = []

    def on_start(self, experiment: Experiment, round: int) -> None:
        self.told.append(("start", experiment.name, round))

    def on_round(self, log: Any) -> None:
        self.told.append(log.round)

    def on_evaluation(self, metrics: dict[str, Any]) -> None:
        self.told.append(("evaluation", metrics["round"], metrics.pop("accuracy")))

    def on_end(self, run: Run) -> None:
        self.told.append(("end", run.summary.rounds, run.path and run.path.name))


@pytest.mark.slow
def test_every_event_in_order(tiny: Callable[..., Experiment], tmp_path: Path) -> None:
    diary, experiment = Diary(), tiny(rounds=4)
    found = run(experiment, tmp_path / "run", callbacks=[diary])
    scores = [m["accuracy"] for m in found.metrics]  # a callback gets a copy, and may change it
    assert diary.told == [
        ("start", "tiny", 0),
        1, 2, ("evaluation", 2, scores[0]),
        3, 4, ("evaluation", 4, scores[1]),
        ("end", 4, "run"),
    ]  # fmt: skip
    again = Diary()
    run(experiment, tmp_path / "run", resume=True, callbacks=[again])
    assert again.told == [("start", "tiny", 4), ("end", 4, "run")]


class OnlyRounds:
    """An object of anybody's, with one of the methods."""

    def __init__(self) -> None:
        self.rounds = 0

    def on_round(self, log: object) -> None:
        self.rounds += 1


def test_one_method_is_enough_and_the_progress_hears_it_too(
    tiny: Callable[..., Experiment],
) -> None:
    mine, heard = OnlyRounds(), list[int]()
    run(tiny(rounds=3), callbacks=[mine], progress=Progress(played=lambda log: heard.append(1)))
    assert mine.rounds == len(heard) == 3


class Misspelt:
    def on_evaluate(self, metrics: object) -> None: ...


@pytest.mark.parametrize(
    ("callbacks", "message"),
    [
        ([Misspelt()], "Misspelt has on_evaluate, which is never called; the events are on_start"),
        ([object()], r"object has none of the methods on_start\(experiment, round\), on_round"),
        ([Diary], r"Diary is a class; give an object: Diary\(\)"),
        (3, "callbacks must be a list of objects; it is 3"),
        ([print], "none of the methods"),
        (
            [type("Late", (), {"on_round": lambda self, log, run: None})()],
            r"on_round of Late takes \(log, run\), but is called as on_round\(log\)$",
        ),
        (
            [type("Bare", (), {"on_failure": lambda: None})()],
            r"on_failure of Bare takes \(\), but is called as on_failure\(error\): the first",
        ),
    ],
)
def test_what_would_never_be_called_is_refused_before_the_first_round(
    tiny: Callable[..., Experiment], callbacks: Any, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        run(tiny(), callbacks=callbacks)


@pytest.mark.parametrize("progress", ["yes", 1])
def test_a_progress_is_a_switch_or_a_progress(
    tiny: Callable[..., Experiment], progress: Any
) -> None:
    with pytest.raises(ConfigError, match="progress must be True, False or a Progress"):
        run(tiny(), progress=progress)


@pytest.mark.parametrize(("asked", "shown"), [(True, True), (False, False), (None, False)])
def test_progress_is_shown_where_asked_and_not_in_a_file(
    tiny: Callable[..., Experiment],
    capsys: pytest.CaptureFixture[str],
    asked: bool | None,
    shown: bool,
) -> None:
    run(tiny(rounds=2), progress=asked)
    out, err = capsys.readouterr()
    assert not out
    assert ("(round 2 of 2)" in err) is shown


def test_a_notebook_without_widgets_gets_lines(
    tiny: Callable[..., Experiment],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also where the notebook says that its output is a terminal, as some do."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr(rich.console, "_is_jupyter", lambda: True)
    monkeypatch.setattr(play, "find_spec", lambda name: None)
    monkeypatch.delitem(sys.modules, "ipywidgets", raising=False)
    run(tiny(rounds=2))
    err = capsys.readouterr().err
    assert "(round 2 of 2)" in err
    assert "\x1b" not in err


class Fails(Callback):
    """Fails at one event, and notes what it hears after that."""

    def __init__(self, event: str) -> None:
        self.event, self.heard = event, list[str]()

    def on_evaluation(self, metrics: dict[str, Any]) -> None:
        metrics["kept"].clear()
        if self.event == "on_evaluation":
            raise InterruptedError("enough")

    def on_end(self, run: Run) -> None:
        self.heard.append("end")
        if self.event == "on_end":
            raise OSError("no network")

    def on_failure(self, error: BaseException) -> None:
        self.heard.append(str(error))


def test_a_callback_that_fails_at_the_end_loses_no_result(tiny: Callable[..., Experiment]) -> None:
    first, second = Fails("on_end"), Fails("on_end")
    with pytest.raises(OSError, match="no network") as error:
        run(tiny(rounds=2), callbacks=[first, second])
    assert first.heard == second.heard == ["end"]
    found = error.value.run
    assert found.summary.rounds == 2
    assert found.metrics[0]["kept"], "a callback got the record itself"
    assert "another callback failed too" in "".join(error.value.__notes__)


def test_callbacks_hear_of_what_stops_a_run(tiny: Callable[..., Experiment]) -> None:
    stops, other = Fails("on_evaluation"), Fails("")
    with pytest.raises(InterruptedError):
        run(tiny(rounds=2), callbacks=[other, stops])
    assert stops.heard == other.heard == ["enough"]
