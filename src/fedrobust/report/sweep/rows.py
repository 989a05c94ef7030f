"""The last table of a sweep's page: a row for each place, with links to the pages of its cells."""

import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fedrobust.report.sweep.columns import PLAIN, SHARES, chief, figure_text
from fedrobust.report.sweep.records import SEED, Group, Spread, SweepCell, SweepRecords

_FIRST = (PLAIN, "accuracy")
"""The columns that a phone shows without scrolling, after that by which the sweep is judged."""


def link_from(folder: Path | None, records: SweepRecords) -> Callable[[SweepCell], str | None]:
    """Return how a page in ``folder`` links to the page of a cell; None where it has no page.

    Only a page within the sweep's own folder has links: wherever the folder goes, they still lead
    to the cells.
    """
    home = os.path.realpath(records.path)
    at = None if folder is None else os.path.realpath(folder)
    inside = at is not None and os.path.commonpath([home, at]) == home

    def link(cell: SweepCell) -> str | None:
        if not inside or not os.path.isfile(cell.path / "report" / "index.html"):
            return None
        return "/".join([*_up(home, str(at)), "cells", cell.name, "report", "index.html"])

    return link


def _up(home: str, at: str) -> list[str]:
    """Return the steps from the folder ``at`` up to ``home``."""
    below = os.path.relpath(at, home)
    return [] if below == os.curdir else [os.pardir] * len(Path(below).parts)


def rows(
    records: SweepRecords,
    columns: Sequence[str],
    found: Sequence[tuple[Group, list[Spread | None]]],
    link: Callable[[SweepCell], str | None],
) -> dict[str, Any]:
    """Return the table: its heads, and its rows with the values to sort by.

    The row's head is the place in words. What the sweep is judged by comes first.
    """
    first = list(dict.fromkeys([chief(records), *_FIRST]))
    order = sorted(
        range(len(columns)),
        key=lambda i: first.index(columns[i]) if columns[i] in first else len(first),
    )
    heads = [columns[i] for i in order]
    body = list[dict[str, Any]]()
    linked = False
    for group, values in found:
        pages = [(cell.labels.get(SEED) or cell.name, link(cell)) for cell in group.cells]
        linked = linked or any(page for _, page in pages)
        body.append(
            {
                "labels": [label or "–" for label in group.labels] or ["all runs"],
                "link": pages[0][1] if len(pages) == 1 else None,
                "seeds": len(pages),
                "pages": pages if len(pages) > 1 else [],
                "values": [_value(columns[i], values[i]) for i in order],
            }
        )
    return {
        "axes": list(records.axes) or ["runs"],
        "heads": heads,
        "body": body,
        "seeds": records.seeds > 1,
        "linked": linked,
    }


def _value(name: str, spread: Spread | None) -> dict[str, str]:
    """Return a value, its range over the seeds, and the number to sort it by."""
    if spread is None:
        return {"text": "–", "range": "", "key": ""}
    low, high = figure_text(name, spread.low), figure_text(name, spread.high)
    unit = "\u202f%" if name in SHARES else ""
    return {
        "text": figure_text(name, spread.middle) + unit,
        "range": "" if spread.seeds == 1 or low == high else f"{low} to {high}",
        "key": f"{spread.middle:.9g}" if math.isfinite(spread.middle) else "1e308",
    }
