"""The page of a reproduction: ours beside the published figures, and what differs."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from fedrobust.errors import RecordError
from fedrobust.records.published import Published, differing, tables
from fedrobust.records.reading import json_of
from fedrobust.records.schema.reproduction import FILE, ReproductionRecord
from fedrobust.report import takeover
from fedrobust.report.figures import users
from fedrobust.report.run_page import user_numbers
from fedrobust.report.run_records import ReportRun
from fedrobust.report.sweep import figures
from fedrobust.report.sweep.page import DIFFERING, markdown
from fedrobust.report.sweep.records import Group, Spread, SweepCell, SweepRecords, shown
from fedrobust.report.wording import slug

AddFigure = Callable[..., dict[str, Any]]
_NONE = "–"
_SCORES = ("accuracy", "robust_accuracy")
CAPTION = (
    "Per cent of the test split, which is read once; accuracy, and robust accuracy under the "
    "evaluation's attack. Ours is the model of the round with the best robust accuracy on "
    "validation examples; the paper reports scores when its adversarial accuracy was highest. "
    "Points: ours minus the paper's. Over several seeds: the median, with the smallest and the "
    "largest value. The last columns are the model after the last round."
)

CLAIMS = (
    "The model that validation chose, on test examples, with 95 % intervals: robust accuracy under "
    "plain PGD, which papers report, and under the whole battery of an audit. The first seed."
)

FURTHER = (
    "Robust accuracy of the model that validation chose, under each attack alone, on the same test "
    "examples."
)


@dataclass(frozen=True)
class Place:
    """The cells at one place of a sweep, and the published row that they belong to, if any."""

    sweep: str
    group: Group
    row: Published | None
    alone: bool
    """Whether there is one sweep only, which need not be named."""

    @property
    def label(self) -> str:
        """The place in words: the sweep and the labels."""
        sweep = [] if self.alone and self.group.labels else [self.sweep]
        return ", ".join([*sweep, *self.group.labels])

    def ours(self, which: str, figure: str) -> Spread | None:
        """Return the spread of a figure of the ``best`` or the ``final`` model over the seeds."""

        def of(cell: SweepCell) -> float | None:
            found: float | None = cell.summary["test"][which][figure]
            return found

        return self.group.spread(of)

    def takeover(self) -> dict[str, Spread | None] | None:
        """Return the means after the paper's attack took over; None where it reports none."""
        if self.row is None or self.row.stabilises is None:
            return None
        return takeover.after(self.group, self.row.stabilises)


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
    places = [
        Place(name, group, _row(rows, group), len(record.sweeps) == 1)
        for name, records in read.items()
        for group in records.groups
    ]
    heads, body = _scores(places)
    content = {
        "name": record.title,
        "told": _told(record, read),
        "tables": [
            {"title": "Ours and the paper's", "heads": heads, "rows": body, "caption": CAPTION},
            *_takeovers(places),
            *_further(places),
        ],
        "axes": 2,
        "lists": list(_lists(record, rows, places)),
        "missing": missing,
        "failed": {f"{n}/{c}": why for n, r in read.items() for c, why in r.failed.items()},
        "troubles": [],
        "figures": [*_claims(places, figure), *_figures(read, figure), *_users(places, figure)],
    }
    files = {"table.md": markdown(heads, body).encode(), "table.json": _json(record, places)}
    return content, files


def _row(rows: Sequence[Published], group: Group) -> Published | None:
    """Return the published row that the cells of a group belong to, if there is one."""
    return next((row for row in rows if row.fits(group.cells[0].config)), None)


def _scores(places: list[Place]) -> tuple[list[str], list[list[str]]]:
    """Return the heads and the rows of the table."""
    heads = ["place", "published as", "seeds", "round"]
    for name in _SCORES:
        heads += [name.removesuffix("_accuracy"), "paper", "points"]
    heads += ["last accuracy", "last robust"]
    body = []
    for place in places:
        rounds = [cell.summary["best_round"] for cell in place.group.cells]
        cells = [
            place.label,
            _NONE if place.row is None else place.row.label,
            str(len(rounds)),
            " ".join(f"{number:,}" for number in rounds),
        ]
        for name in _SCORES:
            ours = place.ours("best", name)
            theirs = None if place.row is None else place.row.figures.get(name)
            cells += [shown(name.replace("_", " "), ours), *_beside(ours, theirs)]
        cells += [shown(name.replace("_", " "), place.ours("final", name)) for name in _SCORES]
        body.append(cells)
    return heads, body


def _beside(ours: Spread | None, theirs: float | None) -> list[str]:
    """Return the published figure, and ours minus it in points."""
    if ours is None or theirs is None:
        return [_NONE, _NONE]
    return [f"{100 * theirs:.1f}\u202f%", f"{100 * (ours.middle - theirs):+.1f}".replace("-", "−")]


def _takeovers(places: Sequence[Place]) -> list[dict[str, Any]]:
    """Return the table of what holds after an attack took the model over, where any did."""
    names = list(takeover.MEASURES)
    heads = ["place", "published as", "seeds", "from round"]
    for name in names:
        heads += [takeover.HEADS[name], *(["paper"] if name != "battery" else [])]
    body = []
    for place in places:
        if (means := place.takeover()) is None:
            continue
        row, cell = place.row, place.group.cells[0]
        assert row is not None
        assert row.stabilises is not None
        start = takeover.stable_from(cell.config, row.stabilises)
        cells = [place.label, row.label, str(len(place.group.cells)), f"{start:,}"]
        for name in names:
            cells.append(shown("accuracy", means[name]))
            if name != "battery":
                theirs = row.figures.get(name)
                cells.append(_NONE if theirs is None else f"{100 * theirs:.1f}\u202f%")
        body.append(cells)
    title = "After the takeover"
    table = {"title": title, "heads": heads, "rows": body, "caption": takeover.CAPTION}
    return [table] if body else []


def _further(places: Sequence[Place]) -> list[dict[str, Any]]:
    """Return the table of the further attacks on test examples, where any were tried."""
    found = {place.label: (place.group.cells, takeover.under(place.group)) for place in places}
    names = list(dict.fromkeys(name for _, under in found.values() for name in under))
    body = [
        [
            label,
            str(len(cells)),
            *(shown("accuracy", under[name]) if name in under else _NONE for name in names),
        ]
        for label, (cells, under) in found.items()
        if under
    ]
    heads = ["place", "seeds", *names]
    table = {"title": "Further attacks", "heads": heads, "rows": body, "caption": FURTHER}
    return [table] if body else []


def _claims(places: Sequence[Place], figure: AddFigure) -> Iterator[Any]:
    """Yield title, drawing and caption of apparent beside true robust accuracy, where audited."""
    found = [takeover.claim_of(place.label, place.group.cells) for place in places]
    if audited := [claim for claim in found if claim is not None]:
        title = "Is the robustness real?"
        drawn = figure("claims", title, partial(takeover.claims, audited))
        yield title, drawn, CLAIMS


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
        f"--scale {record.scale}{''.join(f' -s {text}' for text in record.settings)}."
    )


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.1f} hours" if seconds >= 3600 else f"{seconds / 60:.1f} minutes"


def _lists(
    record: ReproductionRecord, rows: Sequence[Published], places: list[Place]
) -> Iterator[tuple[str, list[str]]]:
    """Yield the numbered deviations, and the settings that differ from the published ones."""
    own = [f"Every cell was changed by -s {text}." for text in record.settings]
    if record.deviations or own:
        yield "Deviations from the paper", [*record.deviations, *own]
    played = [place.row for place in places]
    if waiting := [row.label for row in rows if row not in played]:
        yield "Published figures that this scale does not play, or not yet", waiting
    known = [(p.label, p.row, p.group.cells[0].config) for p in places if p.row is not None]
    if found := differing(known):
        yield DIFFERING, found


def _figures(read: Mapping[str, SweepRecords], figure: AddFigure) -> Iterator[Any]:
    """Yield title, drawing and caption of both curves of each sweep that was followed."""
    for name, records in read.items():
        if not figures.followed(records):
            continue
        for key, what in (("robust_accuracy", "Robust accuracy"), ("accuracy", "Accuracy")):
            draw = partial(figures.course, records, key=key)
            kind = "course" if key == "robust_accuracy" else "clean"
            title = f"{what} by round: {name}"
            yield (
                title,
                figure(f"{kind}-{slug(name)}", title, draw),
                f"{what} on validation examples.",
            )


def _users(places: Sequence[Place], figure: AddFigure) -> Iterator[Any]:
    """Yield title, drawing and caption of each published place whose clients are writers."""
    for number, place in enumerate(places):
        cell = place.group.cells[0]
        found = ReportRun.read(cell.path).users if place.row is not None else None
        if found is None or cell.config["partition"].get("name") != "by-writer":
            continue
        scores, who, source = found
        title = f"Accuracy of each writer: {place.label}"
        numbers = user_numbers(scores)
        caption = f"{source.capitalize()}: a dot for each of {numbers['count']} {who}."
        if numbers["correlation"] is not None:
            caption += f" Correlation of both accuracies: {numbers['correlation']}."
        drawn = figure(f"users-{number}-{slug(cell.name)}", title, partial(users, scores), False)
        yield title, drawn, caption


def _json(record: ReproductionRecord, places: list[Place]) -> bytes:
    rows = []
    for place in places:
        entry: dict[str, Any] = {
            "sweep": place.sweep,
            "labels": list(place.group.labels),
            "cells": [cell.name for cell in place.group.cells],
        }
        for which in ("best", "final"):
            found = {name: place.ours(which, name) for name in _SCORES}
            entry[which] = {name: vars(value) for name, value in found.items() if value is not None}
        if (means := place.takeover()) is not None:
            entry["takeover"] = {name: vars(value) for name, value in means.items() if value}
        if place.row is not None:
            entry["published"] = {"label": place.row.label, **place.row.figures}
            entry["differences"] = place.row.differences(place.group.cells[0].config)
        rows.append(entry)
    content = {"name": record.name, "scale": record.scale, "rows": rows}
    return f"{json.dumps(content, indent=1, ensure_ascii=False)}\n".encode()
