"""The page of a sweep: its table, its figures, and the same table as JSON."""

import json
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from fedrobust.config.trust import CURE, NOTHING, Trusted
from fedrobust.records.published import differing, row_of
from fedrobust.report.sweep import effects, figures, learned, paired, plane, shift
from fedrobust.report.sweep.records import COLUMNS, Group, Spread, SweepRecords, shown, table

AddFigure = Callable[[str, str, Callable[[float], Figure]], dict[str, Any]]
DIFFERING = "Settings that differ, with the published ones in brackets"
_NUMBER = re.compile(r"[\d,.]*\d")
_NAMED = 4
"""The number of cells that are named for one trouble."""
_REACHED = " Points stand at the shift that was reached; a curve ends where a model has blown up."


def sweep_values(
    path: Path, figure: AddFigure, trusted: Trusted = NOTHING
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Return the template's values for the sweep at ``path``, and the tables as files.

    A figure that would need code that is not ``trusted`` is left out, and a line says so.

    Raises: ``RecordError`` for a folder that is broken or has no finished cell.
    """
    records = SweepRecords.read(path)
    tables, files = [], {}
    for name, title, columns, caption in (
        ("table", "Scores", COLUMNS, lambda _: _scores_caption(records)),
        ("learned", "Learned attacks", learned.LEARNED, learned.caption),
    ):
        found, rows = table(records, columns)
        if rows:
            heads = [*records.axes, *(["seeds"] if records.seeds > 1 else []), *found]
            body = [_row(records, found, *row) for row in rows]
            tables.append({"title": title, "heads": heads, "rows": body, "caption": caption(found)})
            files[f"{name}.md"] = markdown(heads, body).encode()
            files[f"{name}.json"] = _json(records, found, rows).encode()
    heads, against = paired.paired(records)
    if heads and against:
        heads = [*records.axes, "seeds", *heads]
        body = [[*g.labels, str(len(g.cells)), *texts] for g, texts in against]
        table_of = {"title": "How much harm each attack does", "heads": heads, "rows": body}
        tables.append(table_of | {"caption": paired.CAPTION})
        files["harm.md"] = markdown(heads, body).encode()
    left_out = _left_out(records, trusted)
    content = {
        "name": records.name,
        "told": _told(records),
        "lists": list(_lists(records)),
        "tables": tables,
        "axes": len(records.axes),
        "missing": records.missing,
        "failed": records.failed,
        "troubles": [*left_out, *_troubles(records)],
        "figures": list(_figures(records, figure, None if left_out else trusted)),
    }
    return content, files


def _lists(records: SweepRecords) -> Iterator[tuple[str, list[str]]]:
    """Yield the settings in which places of the sweep differ from their published rows."""
    rows = [(", ".join(g.labels), row_of(g.cells[0].config), g.cells[0]) for g in records.groups]
    known = [(label, row, cell.config) for label, row, cell in rows if row is not None]
    if found := differing(known):
        yield DIFFERING, found


def _told(records: SweepRecords) -> str:
    cells = sum(len(group.cells) for group in records.groups)
    return f"{cells} runs{f', up to {records.seeds} seeds a place' * (records.seeds > 1)}."


def _troubles(records: SweepRecords) -> list[str]:
    """Return the troubles of the cells, joined where they differ only in their numbers."""
    told: dict[str, dict[str, str]] = {}
    for group in records.groups:
        for cell in group.cells:
            for text in cell.summary.get("troubles", []):
                told.setdefault(_NUMBER.sub("", text), {}).setdefault(cell.name, text)
    lines = []
    for cells in told.values():
        first, *others = cells.values()
        like = (
            "" if all(text == first for text in others) else " (the numbers are of the first cell)"
        )
        lines.append(f"{_named(list(cells))}: {first}{like}")
    return lines


def _named(cells: list[str]) -> str:
    more = f" and {len(cells) - _NAMED} more" if len(cells) > _NAMED else ""
    return ", ".join(cells[:_NAMED]) + more


def _scores_caption(records: SweepRecords) -> str:
    seeds = (
        " Medians over the seeds, with the smallest and the largest value."
        if records.seeds > 1
        else ""
    )
    caption = f"The model after the last round, on the test split.{seeds}"
    if any(row_of(group.cells[0].config) for group in records.groups):
        caption += " Paper: the published figures; the settings that differ are listed below."
    if any(cell.wasserstein for group in records.groups for cell in group.cells):
        caption += (
            " A constant answer has ρ̂ = 0, so read ρ̂ with the error and the largest class answered."
        )
    return caption


def _row(
    records: SweepRecords, columns: list[str], group: Group, values: list[Spread | None]
) -> list[str]:
    seeds = [str(len(group.cells))] if records.seeds > 1 else []
    return [*group.labels, *seeds, *map(shown, columns, values)]


def markdown(heads: list[str], body: list[list[str]]) -> str:
    """Return a table as Markdown."""
    lines = [heads, ["---"] * len(heads), *body]
    return "".join("| " + " | ".join(map(_cell, line)) + " |\n" for line in lines)


def _cell(text: str) -> str:
    """Escape ``text`` for a cell of a Markdown table, where it could be HTML or end the cell."""
    plain = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;")
    return plain.replace("\\", "\\\\").replace("|", "\\|")


def _json(
    records: SweepRecords, columns: list[str], rows: list[tuple[Group, list[Spread | None]]]
) -> str:
    data = [
        {
            "labels": dict(zip(records.axes, group.labels, strict=True)),
            "cells": [cell.name for cell in group.cells],
        }
        | {name: _plain(v) for name, v in zip(columns, values, strict=True)}
        for group, values in rows
    ]
    text = json.dumps({"name": records.name, "rows": data}, indent=1, ensure_ascii=False)
    return f"{text}\n"


def _plain(value: Spread | None) -> dict[str, Any] | None:
    """Return a figure as JSON, with "infinite" for infinity, which JSON does not have."""
    if value is None:
        return None
    return {k: v if math.isfinite(v) else "infinite" for k, v in asdict(value).items()}


def _left_out(records: SweepRecords, trusted: Trusted) -> list[str]:
    """Return why decision boundaries are missing, if they need code that is not trusted."""
    refused = plane.refused(records, trusted) if plane.plane(records) else ""
    return [f"The decision boundaries are not drawn. {refused}; {CURE}."] if refused else []


def _figures(records: SweepRecords, figure: AddFigure, trusted: Trusted | None) -> Any:
    """Yield title, drawing and caption of every figure for which the records have data.

    Without ``trusted`` there are no decision boundaries.
    """
    cells = [cell for group in records.groups for cell in group.cells]
    spread = " Bands reach from the smallest to the largest seed." if records.seeds > 1 else ""
    sides = [{group.labels[i] for group in records.groups} for i in range(len(records.axes))]
    if len(sides) == 2 and min(map(len, sides)) > 3:
        drawn = figure("matrix", "Accuracy at every place", partial(figures.matrix, records))
        yield (
            "Accuracy",
            drawn,
            "Accuracy of the last model on the test split, in per cent." + spread,
        )
    if effects.design(records) is not None:
        title = "What each setting changes"
        yield title, figure("effects", title, partial(effects.drawn, records)), effects.CAPTION
    if figures.followed(records):
        drawn = figure("course", "Robust accuracy by round", partial(figures.course, records))
        caption = "Share of held-out examples right both clean and attacked, during training."
        if any("audit" in m for cell in cells for m in cell.metrics):
            caption += " Dashed: the share that withstands the whole battery of an audit."
        yield "Robust accuracy", drawn, caption + spread
    if trusted is not None and plane.plane(records):
        ring = plane.Plane.of(records, trusted)
        draw = partial(plane.boundaries, ring, records)
        drawn = figure("boundaries", "Decision boundaries", draw)
        caption = "The lines where each model changes its answer, and points of both classes."
        if constant := ring.constant():
            caption += f" These models have no boundary, as their answer is constant: {constant}."
        yield "Decision boundaries", drawn, caption
    shifts = [cell.final.get("shift") or [] for cell in cells]
    for method, how in (
        ("pgd", "each test example is moved by at most √ρ, by PGD in ℓ2"),
        ("wrm", "test examples are moved to T_γ, the price γ solved for the level"),
    ):
        if not all(any(s["method"] == method for s in found) for found in shifts):
            continue
        curves = partial(shift.shift, records, method, "error")
        drawn = figure(f"error-{method}", f"Error against shift by {method}", curves)
        yield (
            f"Error under shift ({method.upper()})",
            drawn,
            f"Share of test examples that the last model gets wrong; {how}. The dashed line is ρ̂ "
            "of the unattacked model. The dotted line is the error of a constant answer."
            + _REACHED
            + spread,
        )
    if all(any(s["method"] == "wrm" for s in found) for found in shifts):
        bounded = partial(shift.shift, records, "wrm", "loss", certificate=True)
        drawn = figure("loss-wrm", "Loss against shift", bounded)
        yield (
            "Loss under shift, and the certificate",
            drawn,
            "Mean loss of the last model on test examples moved by WRM. Dashed: the bound "
            "γρ + φ. Where the model is certified (see the table), the bound includes the gap and "
            "is proved. A model whose loss is over a hundred times that of any unattacked one is "
            "only named." + _REACHED,
        )
