"""The figures of a reproduction's page."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from fedrobust.report.figures import users
from fedrobust.report.reproduction import takeover
from fedrobust.report.reproduction.places import Place
from fedrobust.report.run_page import user_numbers
from fedrobust.report.run_records import ReportRun
from fedrobust.report.sweep import effects, figures
from fedrobust.report.sweep.records import SweepRecords
from fedrobust.report.wording import slug

AddFigure = Callable[..., dict[str, Any]]
CLAIMS = (
    "The model that validation chose, on test examples, with 95 % intervals: robust accuracy under "
    "plain PGD, which papers report, and under the whole battery of an audit. A line for each seed."
)


def drawn(
    places: Sequence[Place], read: Mapping[str, SweepRecords], figure: AddFigure
) -> Iterator[Any]:
    """Yield title, drawing and caption of every figure for which the records have data."""
    yield from _claims(places, figure)
    yield from _courses(read, figure)
    yield from _users(places, figure)


def _claims(places: Sequence[Place], figure: AddFigure) -> Iterator[Any]:
    """Yield title, drawing and caption of apparent beside true robust accuracy, where audited."""
    found = {place.label: takeover.claims_of(place.group.cells) for place in places}
    if audited := {label: claims for label, claims in found.items() if claims}:
        title = "Is the robustness real?"
        drawing = figure("claims", title, partial(takeover.claims, audited))
        yield title, drawing, CLAIMS


def _courses(read: Mapping[str, SweepRecords], figure: AddFigure) -> Iterator[Any]:
    """Yield title, drawing and caption of both curves of each sweep."""
    for name, records in read.items():
        if (levels := effects.design(records)) is not None:
            title, draw = f"What each setting changes: {name}", partial(effects.drawn, records)
            yield title, figure(f"effects-{slug(name)}", title, draw), effects.caption(levels)
        records = figures.turned(records)
        audited = any("audit" in line for cell in records.cells for line in cell.metrics)
        audits = " Dashed, or a second mark: what withstands the whole battery of an audit."
        for key, what in (("robust_accuracy", "Robust accuracy"), ("accuracy", "Accuracy")):
            draw = partial(figures.course, records, key=key)
            kind = "course" if key == "robust_accuracy" else "clean"
            title = f"{what} by round: {name}"
            yield (
                title,
                figure(f"{kind}-{slug(name)}", title, draw),
                f"{what} on validation examples.{audits * (audited and kind == 'course')}",
            )


def _users(places: Sequence[Place], figure: AddFigure) -> Iterator[Any]:
    """Yield title, drawing and caption of each published place whose clients are writers."""
    for number, place in enumerate(places):
        cell = place.group.cells[0]
        found = ReportRun.read(cell.path, lean=True).users if place.row is not None else None
        if found is None or cell.config["partition"].get("name") != "by-writer":
            continue
        scores, who, source = found
        title = f"Accuracy of each writer: {place.label}"
        numbers = user_numbers(scores)
        caption = f"{source.capitalize()}: a dot for each of {numbers['count']} {who}."
        if numbers["correlation"] is not None:
            caption += f" Correlation of both accuracies: {numbers['correlation']}."
        drawing = figure(f"users-{number}-{slug(cell.name)}", title, partial(users, scores), False)
        yield title, drawing, caption
