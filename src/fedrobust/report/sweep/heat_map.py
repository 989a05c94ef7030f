"""The heat maps of a sweep: its scores over any two of its axes, as tables in colour."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import matplotlib as mpl
from matplotlib.colors import to_hex

from fedrobust.report.sweep.columns import COLUMNS, PLAIN, SHARES, TRUE, chief, figure_text, spoken
from fedrobust.report.sweep.records import SEED, Spread, SweepCell, SweepRecords, spread

LEVELS = 21
MEASURES = (PLAIN, TRUE, "accuracy", "error", "ρ̂")
"""What a map can show. Until the reader chooses, it is what the sweep is judged by."""
_JUDGED = (PLAIN, TRUE)
"""The measures beside which a cell tells that an audit does not call it genuine."""
_MEANINGS = {
    TRUE: "It is the share of the audited test examples that withstand every attack of the audit.",
}
_WORSE_ABOVE = {"error"}
_NARROWEST = 0.1
"""The least difference between the ends of a colour scale of shares: seeds are no contrast."""
_FAR = 10.0
"""A value beyond so many times the median is named, and leaves the colours to the others."""

Link = Callable[[SweepCell], str | None]


@dataclass(frozen=True)
class Scale:
    """The colours of one measure: the values at both ends, and whether large values are bad."""

    low: float
    high: float
    worse_above: bool

    def level(self, value: float) -> int:
        """Return the colour of a value, from 0 (dark) to ``LEVELS`` - 1 (light)."""
        if not math.isfinite(value):
            at = 1.0
        else:
            at = min(1.0, max(0.0, (value - self.low) / ((self.high - self.low) or 1.0)))
        return round((1 - at if self.worse_above else at) * (LEVELS - 1))

    def beyond(self, value: float) -> bool:
        """Whether a value is off the scale."""
        return value > self.high * (1 + 1e-9)


def ramp() -> list[tuple[str, str]]:
    """Return the colour of each level, and the ink that is readable on it.

    The colours are those of cividis, which colour-blind readers see in the same order.
    """
    found = []
    for i in range(LEVELS):
        colour = mpl.colormaps["cividis"](i / (LEVELS - 1))
        parts = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour[:3]]
        light = sum(share * c for share, c in zip((0.2126, 0.7152, 0.0722), parts, strict=True))
        found.append((to_hex(colour), "#000000" if light > 0.179 else "#ffffff"))
    return found


def heat_maps(records: SweepRecords, link: Link) -> dict[str, Any]:
    """Return the maps for the template: one for each pair of axes, each with every measure."""
    measures = [
        name
        for name in sorted(MEASURES, key=lambda name: name != chief(records))
        if any(COLUMNS[name](cell) is not None for cell in records.cells)
    ]
    maps = [_map(records, rows, columns, measures, link) for rows, columns in _pairs(records)]
    scales = {name: _scale(name, maps) for name in measures}
    for found in maps:
        for _, cells in found["body"]:
            for cell in cells:
                _paint(cell, scales)
    return {
        "maps": maps,
        "measures": [_legend(name, scales[name], maps[0]) for name in measures],
        "ramp": ramp(),
        "pairs": len(maps),
    }


def _pairs(records: SweepRecords) -> list[tuple[str | None, str | None]]:
    """Return the pairs of axes, the longer one first: it makes the rows.

    A sweep with fewer than two axes is shown seed by seed.
    """
    axes: list[str | None] = list(records.axes)
    seeds = SEED if len(records.labels(SEED)) > 1 else None
    if len(axes) < 2:
        return [(axes[0] if axes else None, seeds)]
    count = {axis: len(records.labels(axis)) for axis in records.axes}
    return [
        (one, other) if count[one] >= count[other] else (other, one)
        for one, other in combinations(records.axes, 2)
    ]


def _map(
    records: SweepRecords,
    rows: str | None,
    columns: str | None,
    measures: Sequence[str],
    link: Link,
) -> dict[str, Any]:
    """Return one map: the labels of both axes, and the cells of each row."""
    tops = records.labels(columns) if columns else [""]
    sides = records.labels(rows) if rows else [""]
    done: dict[tuple[str, str], list[SweepCell]] = {}
    for cell in records.cells:
        done.setdefault(_place(cell.labels, rows, columns), []).append(cell)
    waiting: dict[tuple[str, str], list[str]] = {}
    for unfinished in records.unfinished.values():
        word = "failed" if unfinished.failure else "not finished"
        waiting.setdefault(_place(unfinished.labels, rows, columns), []).append(word)
    body = [
        (
            side,
            [_cell(done.get((side, top), []), waiting.get((side, top), []), measures, link)
             for top in tops],
        )
        for side in sides
    ]  # fmt: skip
    others = [axis for axis in records.axes if axis not in (rows, columns)]
    return {
        "rows": rows or "",
        "columns": columns or "",
        "tops": tops,
        "body": body,
        "spread": _over(others, columns == SEED, records.seeds),
    }


def _over(others: Sequence[str], by_seed: bool, seeds: int) -> str:
    """Say over what the median and the range of a cell are taken; empty for single runs."""
    over = [*others, *(["the seeds"] if seeds > 1 and not by_seed else [])]
    return " and ".join([", ".join(over[:-1]), over[-1]] if len(over) > 1 else over)


def _place(labels: Mapping[str, str], rows: str | None, columns: str | None) -> tuple[str, str]:
    return (labels.get(rows, "") if rows else "", labels.get(columns, "") if columns else "")


def _cell(
    cells: Sequence[SweepCell], waiting: Sequence[str], measures: Sequence[str], link: Link
) -> dict[str, Any]:
    """Return one cell of a map: its values by measure, its page, and what is not finished."""
    word = ""
    if waiting:
        word = "failed" if "failed" in waiting else "not finished"
        if cells:
            word = f"{len(cells)} of {len(cells) + len(waiting)}"
    return {
        "found": {name: spread(cells, COLUMNS[name]) for name in measures},
        "link": link(cells[0]) if len(cells) == 1 else None,
        "word": word,
        "doubt": _doubt(cells),
    }


def _doubt(cells: Sequence[SweepCell]) -> str:
    """Say how many of the cells an audit calls masked or inconclusive; empty where none."""
    verdicts = [audit["verdict"] for cell in cells if (audit := cell.final.get("audit"))]
    for verdict in ("masked", "inconclusive"):
        if found := verdicts.count(verdict):
            return verdict if found == len(cells) else f"{found} of {len(cells)} {verdict}"
    return ""


def _scale(name: str, maps: Sequence[Mapping[str, Any]]) -> Scale:
    """Return the colours of a measure: the same in all maps, and without outliers."""
    values = sorted(
        spread.middle
        for found in maps
        for _, cells in found["body"]
        for cell in cells
        if (spread := cell["found"][name]) is not None and math.isfinite(spread.middle)
    )
    if not values:
        return Scale(0.0, 1.0, name in _WORSE_ABOVE)
    low, high = values[0], values[-1]
    if name in SHARES:
        short = max(0.0, _NARROWEST - (high - low)) / 2
        low, high = max(0.0, low - short), min(1.0, high + short)
    elif (usual := values[(len(values) - 1) // 2]) > 0:
        high = max(value for value in values if value <= _FAR * usual)
    return Scale(low, high, name in _WORSE_ABOVE)


def _paint(cell: dict[str, Any], scales: Mapping[str, Scale]) -> None:
    """Add the texts and the colours of a cell."""
    cell["shown"] = [
        _text(name, cell["found"][name], scale, cell["doubt"] if name in _JUDGED else "")
        for name, scale in scales.items()
    ]


def _text(name: str, found: Spread | None, scale: Scale, doubt: str) -> dict[str, Any] | None:
    if found is None:
        return None
    low, high = figure_text(name, found.low), figure_text(name, found.high)
    return {
        "value": figure_text(name, found.middle),
        "range": "" if low == high else f"{low} to {high}",
        "level": scale.level(found.middle),
        "beyond": scale.beyond(found.middle),
        "doubt": doubt,
    }


def _legend(name: str, scale: Scale, shown: Mapping[str, Any]) -> dict[str, Any]:
    """Return a measure with the ends of its scale, and the places that are off it."""
    far = [
        f"{', '.join(filter(None, (side, top)))} ({figure_text(name, spread.middle)})"
        for side, cells in shown["body"]
        for top, cell in zip(shown["tops"], cells, strict=True)
        if (spread := cell["found"][name]) is not None and scale.beyond(spread.middle)
    ]
    unit = "\u202f%" if name in SHARES else ""
    ends = [figure_text(name, value) + unit for value in (scale.low, scale.high)]
    dark, light = reversed(ends) if scale.worse_above else ends
    return {
        "name": spoken(name),
        "meaning": _MEANINGS.get(name, ""),
        "dark": dark,
        "light": light,
        "unit": " in per cent" if unit else "",
        "far": far,
    }
