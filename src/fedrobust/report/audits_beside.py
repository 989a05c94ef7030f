"""The audits that lie in a run's own folder, where their verdict is another than the run's."""

from collections.abc import Iterator
from pathlib import Path

from fedrobust.errors import RecordError
from fedrobust.evaluation.auditing.two_verdicts import Seen, disagreement
from fedrobust.files import listing
from fedrobust.records.reading import json_of, present
from fedrobust.records.schema.audit import AuditRecord
from fedrobust.report.run_records import ReportRun
from fedrobust.runs.own_audit import audit_of


def disagreeing(run: ReportRun) -> Iterator[str]:
    """Yield what to make of each audit in the run's folder that has another verdict.

    An audit is of this run's model if it was made beside the very audit that the run's record has.
    """
    if run.test is None or not run.path.is_dir():
        return  # a run in memory has no folder
    config = run.path / "config.yaml"
    for name in listing(run.path):
        folder = run.path / name
        if folder.is_symlink() or not folder.is_dir() or not present(folder / "audit.json"):
            continue
        try:
            yield from _disagreeing(folder, run, config)
        except RecordError as error:
            yield f"An audit in this run's folder was left out: {error}."


def _disagreeing(folder: Path, run: ReportRun, config: Path) -> Iterator[str]:
    assert run.test is not None
    record = json_of(folder / "audit.json", AuditRecord)
    last = isinstance(record.asked, dict) and bool(record.asked.get("last"))
    own = audit_of(run.test.final if last else run.test.best, run.config, config)
    if own is None or record.run != own:
        return
    model = "last" if last else "chosen"
    here = Seen.of(f"this run's own audit of its {model} model", own)
    examples, budget = record.settings["examples"], str(record.settings.get("budget", ""))
    there = Seen(
        f"the audit in its folder {folder.name}",
        record.verdict,
        record.robust,
        int(examples),
        budget,
        len(record.taken),
    )
    if told := disagreement(here, there):
        yield told
