"""The page of a reproduction: ours beside the published figures, and what differs."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from shlex import quote
from typing import Any

from fedrobust.errors import RecordError
from fedrobust.records.published import Published, differing, tables
from fedrobust.records.reading import json_of
from fedrobust.records.schema.reproduction import FILE, ReproductionRecord
from fedrobust.report.reproduction.figures import AddFigure, drawn
from fedrobust.report.reproduction.places import Place, places
from fedrobust.report.reproduction.tables import CAPTION, as_json, further, scores, takeovers
from fedrobust.report.sweep.page import DIFFERING, apart, markdown
from fedrobust.report.sweep.records import SweepRecords
from fedrobust.report.sweep.troubles import troubles


def reproduction_values(path: Path, figure: AddFigure) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Return the template's values for the reproduction at ``path``, and its table as files.

    Raises: ``RecordError`` for a folder that is broken or has no finished cell.
    """
    record = json_of(path / FILE, ReproductionRecord)
    read, missing = dict[str, SweepRecords](), list[str]()
    for name in record.sweeps:
        if not any((path / name / "cells").glob("*/summary.json")):
            missing.append(f"{name}: no cell is finished yet")
            continue
        read[name] = SweepRecords.read(path / name)
        missing += [f"{name}/{cell}" for cell in read[name].missing]
    if not read:
        raise RecordError(f"{path}: no cell of this reproduction is finished yet")
    rows = tables(record.paper).get(record.table, ())
    found = places(read, rows, alone=len(record.sweeps) == 1)
    heads, body = scores(found)
    content = {
        "name": record.title,
        "told": _told(record, read),
        "tables": [
            _on_screen(table)
            for table in (
                {"title": "Ours and the paper's", "heads": heads, "rows": body, "caption": CAPTION},
                *takeovers(found),
                *further(found),
            )
        ],
        "lists": list(_lists(record, rows, found)),
        "missing": missing,
        "failed": {f"{n}/{c}": why for n, r in read.items() for c, why in r.failed.items()},
        "troubles": [
            text if len(read) == 1 else f"{name}: {text}"
            for name, records in read.items()
            for text in troubles(records)
        ],
        "figures": list(drawn(found, read, figure)),
    }
    files = {"table.md": markdown(heads, body).encode(), "table.json": as_json(record, found)}
    return content, files


def _on_screen(table: Mapping[str, Any]) -> dict[str, Any]:
    """Return a table as a page shows it: the scores first, so that a phone has them.

    A row's head is its place, and below it what it is published as. The range of a value stands
    below the value.
    """
    heads: list[str] = table["heads"]
    label = [i for i, head in enumerate(heads) if head in ("place", "published as")]
    counts = [i for i, head in enumerate(heads) if head in ("seeds", "round", "from round")]
    order = [i for i in range(len(heads)) if i not in label + counts] + counts
    rows = [
        {
            "label": [row[i] for i in label],
            "values": [apart(row[i]) for i in order],
        }
        for row in table["rows"]
    ]
    return {
        "title": table["title"],
        "caption": table["caption"],
        "label": [heads[i] for i in label],
        "heads": [heads[i] for i in order],
        "rows": rows,
    }


def _told(record: ReproductionRecord, read: Mapping[str, SweepRecords]) -> str:
    """Return the line under the title: scale, cells, seeds, time and machine."""
    cells = [cell for r in read.values() for group in r.groups for cell in group.cells]
    seconds = sum(cell.summary["seconds"] for cell in cells)
    machines = dict.fromkeys(
        f"{found.get('device')}, {found.get('cores')} cores, torch {found.get('torch')}"
        for cell in cells
        if (found := json_of(cell.path / "environment.json", dict))
    )
    return (
        f"{record.name} at scale {record.scale}: {len(cells)} runs, {_hours(seconds)} of "
        f"processes ({'; '.join(machines)}). Play it again: fedrobust reproduce {record.name} "
        f"--scale {record.scale}{''.join(f' -s {quote(text)}' for text in record.settings)}."
    )


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.1f} hours" if seconds >= 3600 else f"{seconds / 60:.1f} minutes"


def _lists(
    record: ReproductionRecord, rows: Sequence[Published], found: list[Place]
) -> Iterator[tuple[str, list[str]]]:
    """Yield the numbered deviations, and the settings that differ from the published ones."""
    others = "in all cells whose grid does not set it"
    own = [f"Played with -s {text}, {others}." for text in record.settings]
    if record.deviations or own:
        yield "Deviations from the paper", [*record.deviations, *own]
    played = [place.row for place in found]
    if waiting := [row.label for row in rows if row not in played]:
        yield "Published figures that this scale does not play, or not yet", waiting
    known = [(p.label, p.row, p.group.cells[0].config) for p in found if p.row is not None]
    if texts := differing(known):
        yield DIFFERING, texts
