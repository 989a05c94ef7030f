"""The tables of a reproduction's page, and the same as JSON."""

import json
from collections.abc import Sequence
from statistics import median_low
from typing import Any

from fedrobust.records.schema.reproduction import ReproductionRecord
from fedrobust.report.reproduction import takeover
from fedrobust.report.reproduction.places import SCORES, Place
from fedrobust.report.sweep.columns import shown
from fedrobust.report.sweep.records import Spread

_NONE = "–"
CAPTION = (
    "Per cent of the test split, which is read once; accuracy, and robust accuracy under the "
    "evaluation's attack. Ours is the model of the round with the best robust accuracy on "
    "validation examples; the paper reports scores when its adversarial accuracy was highest. "
    "Points: ours minus the paper's. Over several seeds: the median, with the smallest and the "
    "largest value. The last columns are the model after the last round."
)
FURTHER = (
    "Robust accuracy of the model that validation chose, under each attack alone, on the same test "
    "examples."
)


def scores(places: list[Place]) -> tuple[list[str], list[list[str]]]:
    """Return the heads and the rows of the table."""
    heads = ["place", "published as", "seeds", "round"]
    for name in SCORES:
        heads += [name.removesuffix("_accuracy"), "paper", "points"]
    heads += ["last accuracy", "last robust"]
    body = []
    for place in places:
        rounds = [cell.summary["best_round"] for cell in place.group.cells]
        cells = [
            place.label,
            _NONE if place.row is None else place.row.label,
            str(len(rounds)),
            _rounds(rounds),
        ]
        for name in SCORES:
            ours = place.ours("best", name)
            theirs = None if place.row is None else place.row.figures.get(name)
            cells += [shown(name.replace("_", " "), ours), *_beside(ours, theirs)]
        cells += [shown(name.replace("_", " "), place.ours("final", name)) for name in SCORES]
        body.append(cells)
    return heads, body


def _rounds(rounds: list[int]) -> str:
    """Return the chosen rounds as the other columns show several seeds: 675 (625 to 1,000)."""
    middle, low, high = f"{median_low(rounds):,}", f"{min(rounds):,}", f"{max(rounds):,}"
    return middle if low == high else f"{middle} ({low} to {high})"


def _beside(ours: Spread | None, theirs: float | None) -> list[str]:
    """Return the published figure, and ours minus it in points."""
    if ours is None or theirs is None:
        return [_NONE, _NONE]
    return [f"{100 * theirs:.1f}\u202f%", f"{100 * (ours.middle - theirs):+.1f}".replace("-", "−")]


def takeovers(places: Sequence[Place]) -> list[dict[str, Any]]:
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


def further(places: Sequence[Place]) -> list[dict[str, Any]]:
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


def as_json(record: ReproductionRecord, places: list[Place]) -> bytes:
    """Return the rows of the page as JSON."""
    rows = []
    for place in places:
        entry: dict[str, Any] = {
            "sweep": place.sweep,
            "labels": list(place.group.labels),
            "cells": [cell.name for cell in place.group.cells],
            "best_rounds": [cell.summary["best_round"] for cell in place.group.cells],
        }
        for which in ("best", "final"):
            found = {name: place.ours(which, name) for name in SCORES}
            entry[which] = {name: vars(value) for name, value in found.items() if value is not None}
        if (means := place.takeover()) is not None:
            entry["takeover"] = {name: vars(value) for name, value in means.items() if value}
        if place.row is not None:
            entry["published"] = {"label": place.row.label, **place.row.figures}
            entry["differences"] = place.row.differences(place.group.cells[0].config)
        rows.append(entry)
    content = {"name": record.name, "scale": record.scale, "rows": rows}
    return f"{json.dumps(content, indent=1, ensure_ascii=False)}\n".encode()
