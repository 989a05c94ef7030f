"""Audits during training: in the records, in the report, and refused where they make no sense."""

import json
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

import fedrobust
from fedrobust import Experiment, run
from fedrobust.compute.parameters import read
from fedrobust.config.component import from_config, to_config
from fedrobust.evaluation import audit
from fedrobust.evaluation.auditing.battery import WIDEST
from fedrobust.evaluation.auditing.in_training import Auditing
from fedrobust.experiment import load
from fedrobust.files import held, listing
from fedrobust.report import write_report
from fedrobust.runs import run as running
from fedrobust.runs import surrogates
from fedrobust.runs.audited_model import opened
from fedrobust.runs.examples import Examples
from fedrobust.runs.prepare import prepare

PGD = {"name": "pgd", "eps": 0.1, "step_size": 0.05, "steps": 4}


@pytest.mark.long
@pytest.mark.usefixtures("quick_pages")
def test_an_audit_follows_the_rounds(tmp_path: Path, tiny: Callable[..., Experiment]) -> None:
    idle = PGD | {"step_size": 0.001, "steps": 1, "random_start": False}
    looks = {"every": 30, "attack": idle, "samples": 60, "test_samples": 60}
    experiment = tiny(rounds=30, evaluation=looks | {"audit": {"samples": 12}})
    followed = run(experiment, tmp_path / "run")
    test = followed.summary.test
    for line in [*followed.metrics, test.best, test.final]:
        found = line["audit"]
        assert found["verdict"] in ("genuine", "masked", "inconclusive")
        assert found["robust"] <= found["claimed"] <= 1
        assert found["examples"] == 12
        assert found["signs"]["Square beats plain PGD"] <= 1
    # It says what an audit of the same examples says.
    ready = prepare(experiment)
    index = ready.choosing.some(12, ready.streams).index
    again = audit(
        followed.model,
        ready.chooses.images(index),
        ready.chooses.y[index],
        eps=0.1,
        claim=experiment.evaluation.attack,
        batch_size=load(tmp_path / "run" / "config.yaml").execution.batch,
        seed=experiment.seed,
    )
    told = followed.metrics[-1]["audit"]
    assert (told["claimed"], told["robust"]) == (again.claimed, again.robust)
    assert again.robust < again.claimed
    assert told["masked"] == [sign.name for sign in again.signs if sign.word == "masked"]
    # Nothing else changes, and without it nothing is said.
    plain = run(tiny(rounds=30, evaluation=looks))
    assert "audit" not in plain.metrics[0]
    assert [m["robust_accuracy"] for m in plain.metrics] == [
        m["robust_accuracy"] for m in followed.metrics
    ]
    page = write_report([tmp_path / "run"]).read_text()
    tested = followed.summary["test"]["final"]["audit"]
    (said,) = re.findall(r"Audit, last model, 12 test examples</dt><dd>([^<]*)<", page)
    assert said == (
        f"{tested['verdict']}: {100 * tested['claimed']:.1f}\u202f% claimed, "
        f"{100 * tested['robust']:.1f}\u202f% robust"
    )

    # A takeover, as the records would tell it.
    path = tmp_path / "run" / "metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[-1]["audit"] |= {"verdict": "masked", "claimed": 0.82, "robust": 0.03}
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    page = write_report([tmp_path / "run"]).read_text()
    assert "The robust accuracy is not real" in page
    assert "82.0\u202f%" in page
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    summary["test"]["final"]["audit"] |= {"verdict": "masked", "claimed": 0.71, "robust": 0.02}
    (tmp_path / "run" / "summary.json").write_text(json.dumps(summary))
    page = write_report([tmp_path / "run"]).read_text()
    assert "calls it masked: 71.0\u202f% claimed, 2.0\u202f% robust" in page
    best = summary["test"]["best"]["audit"]
    says = f"The audit calls this {best['verdict']}: {100 * best['robust']:.1f}\u202f% of 12 "
    assert says in page


@pytest.mark.long
def test_the_auditors_own_networks_are_trained_once_and_tried(
    tmp_path: Path, tiny: Callable[..., Experiment], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(surrogates, "ROUNDS", 2)
    monkeypatch.setenv("FEDROBUST_CACHE", str(tmp_path / "cache"))
    looks = {"every": 2, "attack": PGD, "samples": 60, "test_samples": 60}
    asked = {"samples": 20, "test_samples": 50, "surrogates": True}
    experiment = tiny(rounds=2, evaluation=looks | {"audit": asked})
    kept = tmp_path / "cache" / "surrogates"
    with ThreadPoolExecutor() as pool:
        with held(kept, "busy"):  # another cell of a sweep trains the same networks
            waiting = pool.submit(run, experiment, tmp_path / "run")
            with pytest.raises(TimeoutError):
                waiting.result(timeout=1.5)
            assert listing(kept) == []
        followed = waiting.result(timeout=60)
    folders = sorted(kept.glob("*-*"))
    assert [folder.name.split("-")[0] for folder in folders] == ["natural", "robust"]
    others = [opened(str(folder), None, None, last=True).model for folder in folders]
    assert not torch.equal(read(others[0]), read(others[1]))
    ready = prepare(experiment)
    for told, x, y in (
        (followed.metrics[-1]["audit"], *examples(ready.choosing.some(20, ready.streams))),
        (
            followed.summary["test"]["final"]["audit"],
            *examples(ready.testing.some(50, ready.streams)),
        ),
    ):
        again = audit(
            followed.model,
            x,
            y,
            eps=0.1,
            claim=experiment.evaluation.attack,
            surrogates=others,
            batch_size=load(tmp_path / "run" / "config.yaml").execution.batch,
            seed=experiment.seed,
        )
        right = again.shares["clean"].count
        fell = {taken.name: taken.fell for taken in again.taken}
        for name in ("plain PGD", "rescaled PGD", "Square", "transfer 1", "transfer 2"):
            assert told["under"][name] == (right - fell[name]) / len(x)
        assert told["examples"] == len(x)
        whole = {taken.name for taken in again.taken if taken.tried == right}
        assert set(told["under"]) == whole - {WIDEST}, "not in another ball, not on a part only"
    assert {WIDEST, "APGD-CE"} <= {taken.name for taken in again.taken}
    assert "APGD-CE" not in told["under"]
    before = {path: path.stat().st_mtime_ns for path in kept.rglob("*")}
    run(experiment)
    read_again = run(experiment, tmp_path / "run", resume=True)
    assert read_again.summary == fedrobust.open(tmp_path / "run").summary
    assert {path: path.stat().st_mtime_ns for path in kept.rglob("*") if path in before} == before


@pytest.mark.slow
def test_a_finished_run_trains_no_networks_any_more(
    tmp_path: Path, tiny: Callable[..., Experiment], monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = {"every": 2, "attack": PGD, "samples": 10, "test_samples": 10}
    experiment = tiny(rounds=2, evaluation=looks | {"audit": {"samples": 3, "surrogates": True}})
    monkeypatch.setattr(running, "surrogates", lambda *words, **keys: [])
    run(experiment, tmp_path / "run")
    monkeypatch.delattr(running, "surrogates")
    assert run(experiment, tmp_path / "run", resume=True).summary["rounds"] == 2


def examples(some: Examples) -> tuple[torch.Tensor, torch.Tensor]:
    return some.split.images(some.index), some.split.y[some.index]


@pytest.mark.long
@pytest.mark.usefixtures("quick_pages")
def test_audits_may_be_rarer_than_evaluations(
    tmp_path: Path, tiny: Callable[..., Experiment]
) -> None:
    looks = {"every": 1, "attack": PGD, "samples": 10, "test_samples": 10}
    asked = {"samples": 5, "every": 2}
    followed = run(tiny(rounds=5, evaluation=looks | {"audit": asked}), tmp_path / "run")
    assert [m["round"] for m in followed.metrics if "audit" in m] == [2, 4, 5]
    assert "audit" in followed.summary["test"]["best"]
    assert write_report([tmp_path / "run"]).is_file()


def test_a_name_is_short_for_a_budget(tiny: Callable[..., Experiment]) -> None:
    experiment = tiny(evaluation={"every": 2, "attack": PGD, "audit": "standard"})
    assert experiment.evaluation.audit == Auditing(budget="standard")
    assert from_config(Experiment, to_config(experiment)) == experiment


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"audit": "quick", "attack": PGD | {"box": False}}, "attack must be PGD"),
        ({"audit": "quick", "attack": {"name": "square", "eps": 0.1}}, "attack must be PGD"),
        ({"audit": "quick", "attack": PGD | {"eps": 0.0}}, "attack must be PGD"),
        ({"audit": "full", "attack": PGD}, "audit is full: in training it is quick or standard"),
        ({"audit": "quik", "attack": PGD}, "quick"),
        ({"audit": {"sample": 3}, "attack": PGD}, "sample"),
    ],
)
def test_what_makes_no_sense_is_refused(
    changes: dict[str, object], message: str, tiny: Callable[..., Experiment]
) -> None:
    with pytest.raises(ValueError, match=message):
        tiny(evaluation={"every": 2} | changes)
