"""Records name the version of their format; what was written by older versions stays readable."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from damaged import refused
from demo import ROOT

from fedrobust.evaluation.auditing.result import Audit
from fedrobust.records import reading
from fedrobust.records.schema.formats import NEWEST, declared, with_format
from fedrobust.records.schema.run import Evaluation, Round, Summary
from fedrobust.records.schema.sweep import SweepRecord
from fedrobust.report.run_records import ReportRun
from fedrobust.runs.older_configs import completed

RESULTS = ROOT / "results"


def read(path: Path) -> dict[str, Any]:
    return reading.json_of(path, dict)


@pytest.mark.parametrize("name", NEWEST)
def test_a_format_of_tomorrow_is_told(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    newest = NEWEST[name]
    for there in ({"format": newest, "a": 1}, {"a": 1}):
        path.write_text(json.dumps(there))
        assert read(path) == there
    path.write_text(json.dumps({"format": newest + 1, "nothing": "that is known"}))
    for kind in (dict, Summary):
        said = refused(tmp_path, "is of format", lambda kind=kind: reading.json_of(path, kind))  # type: ignore[misc]
        assert said == (
            f"{path} is of format {newest + 1}, which this version of fedrobust does not know; "
            "update fedrobust"
        )


@pytest.mark.parametrize("format", [0, -1, True, 1.0, "1", None, [1], {}])
def test_a_format_that_is_none(tmp_path: Path, format: Any) -> None:
    path = tmp_path / "summary.json"
    path.write_text(json.dumps({"format": format}))
    refused(tmp_path, "summary.json is broken: format: it is no whole number", lambda: read(path))


def test_other_files_may_call_anything_a_format(tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    path.write_text('{"format": "wide"}')
    assert read(path) == {"format": "wide"}


def test_what_is_written_names_its_format_first() -> None:
    content = with_format("summary.json", {"rounds": 3})
    assert list(content.items()) == [("format", NEWEST["summary.json"]), ("rounds", 3)]


def committed(pattern: str, least: int) -> list[Path]:
    found = sorted(RESULTS.rglob(pattern))
    assert len(found) >= least, f"results/ holds {len(found)} {pattern}"
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pattern", "least", "read"),
    [
        ("summary.json", 600, lambda path: reading.json_of(path, Summary)),
        ("environment.json", 600, read),
        ("sweep.json", 14, lambda path: reading.json_of(path, SweepRecord)),
        ("audits/*/audit.json", 1, lambda path: Audit.from_json(read(path))),
        ("rounds.jsonl", 3, lambda path: reading.rounds_of(path, Round)),
        ("*.npz", 5, reading.arrays_of),
        ("*.safetensors", 400, reading.tensors_of),
    ],
)
def test_every_committed_record_is_read(
    pattern: str, least: int, read: Callable[[Path], object]
) -> None:
    for path in committed(pattern, least):
        read(path)


@pytest.mark.slow
def test_every_committed_run_is_read() -> None:
    """Its config, too, which a resumed run would be compared with: of every fifth of a sweep's
    cells, which are alike, since YAML takes 10 ms."""
    runs = [path.parent for path in committed("config.yaml", 600)]
    whole = 0
    for number, run in enumerate(runs):
        assert reading.rounds_of(run / "metrics.jsonl", Evaluation)
        if number % 5 == 0 or run.parent.name != "cells":
            config = reading.mapping_of(run / "config.yaml")
            completed(config)
            assert reading.evaluations_of(run / "metrics.jsonl", config)
        if (run / "rounds.jsonl").exists():
            ReportRun.read(run)
            whole += 1
    assert whole == 3


def test_a_record_with_a_key_that_its_declaration_lacks_is_not_written() -> None:
    content = {"round": 1, "malicious": [], "newest": 3}
    with pytest.raises(TypeError, match="Round does not declare newest"):
        declared(Round, content)
    del content["newest"]
    assert declared(Round, content) is content
