"""The columns of a sweep's table: what each shows of a cell, and how a value is written."""

import math
from collections.abc import Callable, Mapping
from typing import TypeAlias

from fedrobust.records.published import row_of
from fedrobust.report.sweep.records import Group, Spread, SweepCell, SweepRecords, count, spread

Columns: TypeAlias = Mapping[str, Callable[["SweepCell"], float | None]]

COLUMNS: Columns = {
    "accuracy": lambda cell: cell.final["accuracy"],
    "robust accuracy": lambda cell: cell.final["robust_accuracy"],
    "paper: accuracy": lambda cell: published_figure(cell, "accuracy"),
    "paper: robust accuracy": lambda cell: published_figure(cell, "robust_accuracy"),
    "error": lambda cell: 1 - cell.final["accuracy"],
    "ρ̂": lambda cell: certified_figure(cell, "rho"),
    "ρ̂, training": lambda cell: certified_figure(cell, "rho", "training_wasserstein"),
    "worst-case loss": lambda cell: certified_figure(cell, "worst_case_loss"),
    "largest class answered": lambda cell: max(cell.wasserstein.get("answers") or [0]) or None,
    "certified": lambda cell: float(cell.wasserstein["certified"]) if cell.wasserstein else None,
    "malicious rows kept": lambda cell: cell.summary.get("malicious_kept"),
    "audit: claimed": lambda cell: audited_figure(cell, "claimed"),
    "audit: robust": lambda cell: audited_figure(cell, "robust"),
    "audit: genuine": lambda cell: verdict_figure(cell, "genuine"),
    "audit: inconclusive": lambda cell: verdict_figure(cell, "inconclusive"),
    "audit: masked": lambda cell: verdict_figure(cell, "masked"),
}
SHARES = {
    "paper: accuracy",
    "paper: robust accuracy",
    "audit: claimed",
    "audit: robust",
    "certified",
    "accuracy",
    "robust accuracy",
    "error",
    "largest class answered",
    "malicious rows kept",
}
"""The columns that hold shares, from 0 to 1."""
COUNTS = {"audit: genuine", "audit: inconclusive", "audit: masked"}
"""The columns that count the cells of a place, in the place of a median."""
PLAIN, TRUE = "robust accuracy", "audit: robust"


def chief(records: SweepRecords) -> str:
    """Return the column that a sweep is judged by: the audit's, if every finished cell has it."""
    audited = all(cell.final.get("audit") is not None for cell in records.cells)
    return TRUE if audited else PLAIN


def spoken(column: str) -> str:
    """Return what a reader calls a column."""
    return "true robust accuracy" if column == TRUE else column


def audited_figure(cell: SweepCell, name: str) -> float | None:
    """Return a figure of the last model's audit; None where there is none."""
    found = cell.final.get("audit")
    return None if found is None else found[name]


def verdict_figure(cell: SweepCell, verdict: str) -> float | None:
    """Return 1 where the audit of the last model has this verdict, and else 0."""
    found = cell.final.get("audit")
    return None if found is None else float(found["verdict"] == verdict)


def published_figure(cell: SweepCell, name: str) -> float | None:
    """Return a figure of the published row to which the cell belongs; None where there is none."""
    row = row_of(cell.config)
    return None if row is None else row.figures.get(name)


def certified_figure(cell: SweepCell, name: str, on: str = "wasserstein") -> float | None:
    """Return a figure of the certificate; infinity for the null that JSON holds in its place."""
    found = cell.final.get(on)
    if not found:
        return None
    value: float | None = found.get(name)
    return math.inf if value is None else value


def table(
    records: SweepRecords, columns: Columns = COLUMNS
) -> tuple[list[str], list[tuple[Group, list[Spread | None]]]]:
    """Return the ``columns`` that any group has, and the rows of the groups that have any."""
    found = {
        name: [
            (count if name in COUNTS else spread)(group.cells, figure) for group in records.groups
        ]
        for name, figure in columns.items()
    }
    present = [name for name, column in found.items() if any(column)]
    rows = [(group, [found[name][i] for name in present]) for i, group in enumerate(records.groups)]
    return present, [row for row in rows if any(row[1])]


def shown(name: str, value: Spread | None) -> str:
    """Return a figure as the table shows it: 93.4 (92.8 to 94.0) % over several seeds."""
    if value is None:
        return "–"
    unit = "\u202f%" if name in SHARES else ""
    middle, low, high = (figure_text(name, v) for v in (value.middle, value.low, value.high))
    if value.seeds == 1 or low == high:
        return middle + unit
    return f"{middle} ({low} to {high}){unit}"


def figure_text(name: str, value: float) -> str:
    """Return one value of a column without its unit: a share in per cent, or a short number."""
    if name in SHARES:
        return f"{100 * value:.1f}"
    if name in COUNTS:
        return f"{value:.0f}"
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.3g}"
