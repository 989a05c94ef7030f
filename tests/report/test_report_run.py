"""A run directory is read whole, or refused with one message that names what is wrong."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from synthetic_run import make_run

from fedrobust.errors import RecordError
from fedrobust.report import ReportRun
from fedrobust.runs.summary import best_of


def test_reads_a_finished_run(tmp_path: Path) -> None:
    run = ReportRun.read(make_run(tmp_path / "run", seed=7))
    assert len(run.evaluations) == 20
    assert len(run.rounds) == 500
    assert run.clients == 51
    best = max(run.evaluations, key=lambda e: e.robust_accuracy)
    assert run.chosen_round == best.round == run.chosen.round
    assert run.test is not None
    assert run.test.best.examples == 10000
    assert run.examples is not None
    assert run.examples.clean.shape == (8, 1, 28, 28)


def test_of_an_unfinished_run_the_first_most_robust_round_counts(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", finished=False, pictures=None)
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        line["robust_accuracy"] = 0.5 if line["round"] in (50, 75) else 0.25
        line["accuracy"] = 0.6
    (path / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    run = ReportRun.read(path)
    assert run.chosen_round == 50
    for line in lines:  # of equally robust ones, the more accurate one, as a run itself chooses
        line |= {"robust_accuracy": 0.0, "accuracy": 0.9 if line["round"] == 75 else 0.1}
    (path / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    run = ReportRun.read(path)
    assert run.chosen_round == best_of(lines)["round"] == 75
    assert run.test is None
    assert run.examples is None


def replace(name: str, before: str, after: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        text = (path / name).read_text()
        assert before in text
        (path / name).write_text(text.replace(before, after, 1))

    return change


def swap_rounds(path: Path) -> None:
    lines = (path / "rounds.jsonl").read_text().splitlines()
    (path / "rounds.jsonl").write_text("\n".join([lines[1], lines[0], *lines[2:]]))


def misfit_pictures(path: Path) -> None:
    with np.load(path / "examples.npz") as archive:
        arrays = dict(archive)
    np.savez(path / "examples.npz", **arrays | {"labels": np.arange(7)})


def truncate_pictures(path: Path) -> None:
    content = (path / "examples.npz").read_bytes()
    (path / "examples.npz").write_bytes(content[: len(content) // 2])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda p: (p / "config.yaml").unlink(), r"holds no config.yaml.*not a run directory"),
        (lambda p: (p / "metrics.jsonl").unlink(), r"no evaluations yet.*after its first"),
        (lambda p: (p / "metrics.jsonl").write_text(""), r"no evaluations yet"),
        (lambda p: (p / "rounds.jsonl").unlink(), r"cannot read .*rounds.jsonl"),
        (lambda p: (p / "environment.json").write_text("{"), r"environment.json is broken"),
        (lambda p: (p / "environment.json").write_bytes(b"\xff"), r"cannot read .*environment"),
        (replace("config.yaml", "data:", "data: ["), r"config.yaml is broken"),
        (replace("config.yaml", "aggregator:", "rule:"), r"its aggregator is missing"),
        (replace("config.yaml", "rounds: 500", "rounds: many"), r"its rounds is missing or no int"),
        (replace("metrics.jsonl", '"accuracy": 0', '"accuracy": 9'), r"line 1 is broken: accuracy"),
        (replace("metrics.jsonl", '"accuracy": 0', '"acc": 0'), r"accuracy: Field required"),
        (replace("metrics.jsonl", '"accuracy": 0', '"accuracy": NaN, "x": 0'), r"NaN is no JSON"),
        (replace("rounds.jsonl", "true}\n", "tru"), r"rounds.jsonl, line 1 is broken"),
        (swap_rounds, r"rounds.jsonl is broken: its rounds are not in order"),
        (replace("summary.json", '"best_round": ', '"best_round": 9'), r"was never evaluated"),
        (replace("summary.json", '"clients": 51', '"clients": 0'), r"summary.json is .*clients"),
        (misfit_pictures, r"examples.npz is broken: its arrays do not fit"),
        (truncate_pictures, r"examples.npz is broken"),
    ],
)
def test_what_is_broken_is_refused_by_name(
    tmp_path: Path, spoil: Callable[[Path], None], message: str
) -> None:
    path = make_run(tmp_path / "run", rounds=50)
    config, rounds = path / "config.yaml", path / "rounds.jsonl"
    config.write_text(config.read_text().replace("rounds: 50\n", "rounds: 500\n"))
    rounds.write_text(rounds.read_text().replace(', "reason": null', ""))
    ReportRun.read(path)
    spoil(path)
    with pytest.raises(RecordError, match=message) as error:
        ReportRun.read(path)
    assert str(path) in str(error.value)


def test_a_path_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"nowhere is not a folder.*`fedrobust run` wrote"):
        ReportRun.read(tmp_path / "nowhere")


def test_users_named_differently_in_two_scores_are_refused(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", rounds=25, users=3)
    replace("metrics.jsonl", '"f0001"', '"f0009"')(path)
    with pytest.raises(RecordError, match=r"name different users"):
        ReportRun.read(path)
