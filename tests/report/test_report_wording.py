"""What the report says in words."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from synthetic_run import PGD, make_run

from fedrobust.records.schema.run import Audited
from fedrobust.report import ReportRun
from fedrobust.report.compare import differences, unique_labels, unlike
from fedrobust.report.wording import (
    component,
    duration,
    interval,
    measure,
    number,
    threat,
    title,
    verdict,
    warnings,
    whole_name,
)
from fedrobust.runs.tally import Tally


def run(path: Path, **options: Any) -> ReportRun:
    return ReportRun.read(make_run(path, pictures=None, **options))


def plain(text: str) -> str:
    return text.replace("\u202f", " ").replace("\u00a0", " ")


def test_the_verdict_gives_the_chosen_models_test_scores(tmp_path: Path) -> None:
    found = run(tmp_path / "a", seed=7)
    assert found.test is not None
    best, last = found.test.best, found.test.final
    assert found.chosen_round < 500
    begin = "After 500 rounds under A Little Is Enough from 12 of 51 clients, Bulyan’s model"
    scores = (
        f"is {100 * best.accuracy:.1f} % accurate and {100 * best.robust_accuracy:.1f} % robust on "
        "the test set (PGD ℓ∞, ε 0.3, 40 × 0.01)."
    )
    assert plain(verdict(found)) == (
        f"{begin} of round {found.chosen_round}, which validation chose, {scores} The model of the "
        f"last round is {100 * last.accuracy:.1f} % accurate and "
        f"{100 * last.robust_accuracy:.1f} % "
        "robust."
    )
    audit = Audited("inconclusive", claimed=0.3, robust=0.2, examples=100)
    assert found.summary is not None
    test = replace(found.test, final=replace(last, audit=audit))
    audited = replace(found, summary=replace(found.summary, test=test))
    assert plain(verdict(audited)).endswith(
        "robust. The audit calls that inconclusive: 20.0 % withstand it."
    )
    rounds = found.evaluations[: 1 + [e.round for e in found.evaluations].index(found.chosen_round)]
    ended = replace(found, evaluations=rounds)
    assert plain(verdict(ended)) == f"{begin} {scores}"


def test_the_verdict_on_an_unfinished_run_without_adversary(tmp_path: Path) -> None:
    rule = {"name": "median"}
    found = run(tmp_path / "a", finished=False, malicious=0, attack=None, aggregator=rule)
    assert plain(verdict(found)).startswith(
        "So far, after 325 of 500 rounds with 51 honest clients, Median’s model is "
    )
    assert "on the validation set" in verdict(found)
    assert threat(found) is None


def test_a_wrapper_is_named_with_what_it_wraps(tmp_path: Path) -> None:
    """A delayed attack alone says nothing of what was done."""
    attack = {"name": "delayed", "start": 31, "attack": {"name": "sign-flip", "scale": 3.0}}
    rule = {"name": "bucketing", "s": 2, "rule": {"name": "krum", "f": 5}}
    found = run(tmp_path / "a", attack=attack, aggregator=rule)
    assert "under Delayed (Sign Flip) from 12 of 51 clients, Bucketing (Krum)’s" in verdict(found)
    nested = {"name": "budgeted", "attack": attack}
    assert whole_name(nested) == "Budgeted (Delayed (Sign Flip))"


def test_the_threat_is_a_sentence(tmp_path: Path) -> None:
    assert threat(run(tmp_path / "a", rounds=25)) == (
        "The adversary knows: the colluders' honest updates; it does not know: benign updates, "
        "the server's rule, the number of clients."
    )


def test_warnings_name_rounds_reasons_and_clients(tmp_path: Path) -> None:
    found = run(
        tmp_path / "a",
        finished=False,
        idle=dict.fromkeys([3, 4, 5, 9], "Bulyan needs n ≥ 4f + 3"),
        dropped={3: [2], 9: [7, 8]},
    )
    unfinished, idle, dropped = warnings(found)
    assert "has not finished" in unfinished
    assert idle == "No step was applied in rounds 3 to 5, 9: Bulyan needs n ≥ 4f + 3."
    assert dropped == (
        "3 rows were dropped because they were not finite or had another shape, in rounds 3, 9 "
        "(clients 2, 7, 8)."
    )


def test_refusals_of_real_clients_are_told_by_client_and_reason(tmp_path: Path) -> None:
    found = run(tmp_path / "a", dropped={3: [2], 4: [2], 9: [2, 7, 8]})
    why = {3: {"2": "no reply."}, 4: {"2": "no reply."}, 9: {"2": "an error", "7": "x" * 500}}
    lines = tuple(replace(r, refused=why.get(r.round, {})) for r in found.rounds)
    told = warnings(replace(found, rounds=lines))
    assert told[:2] == [
        "Nothing of client 2 was used in rounds 3, 4: no reply.",
        "Nothing of client 2 was used in round 9: an error.",
    ]
    assert told[2].startswith("Nothing of client 7 was used in round 9: xxx")
    assert len(told[2]) < 300
    assert told[3].endswith("in round 9 (client 8).")
    many = tuple(
        replace(r, refused={str(c): f"reason {r.round}" for c in range(5)}, dropped=(*range(5),))
        for r in lines[:3]
    )
    assert warnings(replace(found, rounds=many))[8] == "7 more refusals are in rounds.jsonl."
    used = tuple(replace(r, refused={"3": "not connected"}, dropped=()) for r in lines[:3])
    assert warnings(replace(found, rounds=used)) == [], "an attack sent a row in its name"


def test_a_quiet_finished_run_has_no_warnings(tmp_path: Path) -> None:
    assert warnings(run(tmp_path / "a", rounds=50)) == []


@pytest.mark.parametrize(
    ("share", "examples", "expected"),
    [(0.5, 100, "40.4 to 59.6 %"), (0.0, 10, "0.0 to 27.8 %"), (1.0, 10, "72.2 to 100.0 %")],
)
def test_interval_is_wilsons(share: float, examples: int, expected: str) -> None:
    assert plain(interval(share, examples)) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (8 / 255, "8/255"),
        (0.3, "0.3"),
        (-1.5, "−1.5"),
        (3.2171e-13, "3.217e−13"),
        (-1 / 255, "−0.003922"),
        (float("inf"), "inf"),
        (0.005, "0.005"),
        (1 / 3, "0.3333"),
        (5000, "5,000"),
        (True, "yes"),
        (None, "none"),
        ("linf", "linf"),
    ],
)
def test_number(value: object, expected: str) -> None:
    assert number(value) == expected


def test_names_components_and_durations() -> None:
    assert title("a-little-is-enough") == "A Little Is Enough"
    assert title("own.rules:MyRule") == "MyRule"
    assert title("pgd") == "PGD"
    mixing = {"name": "bucketing", "s": 2, "rule": {"name": "krum", "f": 3}, "seed": None}
    assert component(mixing) == "Bucketing, s 2, rule (Krum, f 3)"
    assert component({"opaque": "notebook:Own"}) == "Own"
    assert plain(measure({"attack": {**PGD, "norm": "l2", "eps": 8 / 255, "restarts": 5}})) == (
        "PGD ℓ2, ε 8/255, 40 × 0.01, 5 restarts"
    )
    assert [plain(duration(s)) for s in (7.4, 1320, 7260)] == ["7 s", "22 min", "2 h 01 min"]


def test_differences_name_whole_components_once(tmp_path: Path) -> None:
    a = run(tmp_path / "a", rounds=25, name="one")
    b = run(tmp_path / "b", rounds=25, name="two", seed=1, aggregator={"name": "krum", "f": 24})
    c = run(tmp_path / "c", rounds=25, name="two", attack={"name": "a-little-is-enough", "k": -2.0})
    found = differences([a, b, c])
    assert found == {
        "attack.k": ["−1", "−1", "−2"],
        "aggregator": ["Bulyan, f 12", "Krum, f 24", "Bulyan, f 12"],
    }
    assert unique_labels([a, b, c]) == ["one", "two (b)", "two (c)"]
    assert unlike([a, b, c]) == []


def test_runs_measured_by_different_attacks_do_not_compare(tmp_path: Path) -> None:
    a = run(tmp_path / "a", rounds=50)
    weaker = {"every": 50, "samples": 1000, "split": "validation", "attack": {**PGD, "steps": 10}}
    b = run(tmp_path / "b", rounds=50, evaluation=weaker)
    assert unlike([a, b]) == ["evaluation.attack.steps"]


def test_all_troubles_of_a_run_are_told_and_none_twice(tmp_path: Path) -> None:
    """Those of rows and steps are told from the rounds; the words are the tally's."""
    line = {"round": 1, "malicious": [1], "kept": None, "dropped": [2], "applied": False}
    tally = Tally.of([{**line, "reason": "too few", "acted": False}]).troubles()
    assert len(tally) == 3
    found = run(tmp_path / "a", rounds=50)
    assert found.summary is not None
    troubles = (*tally, "the attack: no plan was found", "the model has no finite loss")
    told = warnings(replace(found, summary=replace(found.summary, troubles=troubles)))
    assert told == [
        "The attack sent the honest updates in the one round with malicious clients, so that this "
        "run is one without an attack.",
        "The attack: no plan was found.",
        "The model has no finite loss.",
    ]
    older = replace(found.summary, attack={"troubles": ["no plan was found"]})
    assert warnings(replace(found, summary=older)) == ["The attack: no plan was found."]
