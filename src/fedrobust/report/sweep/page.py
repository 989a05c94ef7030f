"""The page of a sweep: its first sentence, its maps and figures, its table, and that as JSON."""

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from fedrobust.config.trust import CURE, NOTHING, Trusted
from fedrobust.records.published import differing, row_of
from fedrobust.report.sweep import effects, figures, learned, paired, plane, shift
from fedrobust.report.sweep.columns import chief, shown, spoken, table
from fedrobust.report.sweep.headline import headline
from fedrobust.report.sweep.heat_map import heat_maps
from fedrobust.report.sweep.records import Group, Spread, SweepRecords
from fedrobust.report.sweep.rows import link_from, rows
from fedrobust.report.sweep.setup import meanings, setup, varied
from fedrobust.report.sweep.troubles import troubles
from fedrobust.report.wording import measure

AddFigure = Callable[..., dict[str, Any]]
DIFFERING = "Settings that differ, with the published ones in brackets"
_NAMED_ONLY = " A curve that would flatten all others is named with its range and not drawn."
_REACHED = " Points stand at the shift that was reached; a curve ends where a model has blown up."


def sweep_values(
    path: Path, figure: AddFigure, trusted: Trusted = NOTHING, out: Path | None = None
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Return the template's values for the sweep at ``path``, and the tables as files.

    A figure that would need code that is not ``trusted`` is left out, and a line says so. ``out``
    is the folder of the page, from which it links to the pages of the cells.

    Raises: ``RecordError`` for a folder that is broken or has no finished cell.
    """
    records = SweepRecords.read(path)
    link = link_from(out, records)
    further, files = list[dict[str, Any]](), dict[str, bytes]()
    found, places = table(records)
    for name, columns, lines in (
        ("table", found, places),
        ("learned", *table(records, learned.LEARNED)),
    ):
        if not lines:
            continue
        heads = [*records.axes, *(["seeds"] if records.seeds > 1 else []), *columns]
        body = [_row(records, columns, *line) for line in lines]
        files[f"{name}.md"] = markdown(heads, body).encode()
        files[f"{name}.json"] = _json(records, columns, lines).encode()
        if name == "learned":
            further.append(_further("Learned attacks", heads, body, learned.caption(columns)))
    heads, against = paired.paired(records)
    if heads and against:
        heads = [*records.axes, "seeds", *heads]
        body = [[*g.labels, str(len(g.cells)), *texts] for g, texts in against]
        further.append(
            _further("How much harm each attack does", heads, body, paired.caption(heads))
        )
        files["harm.md"] = markdown(heads, body).encode()
    left_out = _left_out(records, trusted)
    content = {
        "name": records.name,
        "headline": headline(records),
        "told": _told(records),
        "heat": heat_maps(records, link),
        "setup": setup(records),
        "varied": varied(records),
        "meanings": meanings(records),
        "lists": list(_lists(records)),
        "tables": further,
        "rows": rows(records, found, places, link),
        "caption": _scores_caption(records),
        "axes": len(records.axes),
        "failed": records.failed,
        "unfinished": list(_unfinished(records)),
        "troubles": [*left_out, *troubles(records)],
        "figures": list(_figures(records, figure, None if left_out else trusted)),
    }
    return content, files


def _further(title: str, heads: list[str], body: list[list[str]], caption: str) -> dict[str, Any]:
    """Return a further table: each value with its range, which stands below it."""
    rows = [[apart(text) for text in line] for line in body]
    return {"title": title, "heads": heads, "rows": rows, "caption": caption}


def apart(text: str) -> tuple[str, str]:
    """Return a value with its unit, and its range, of a text such as 93.4 (92.8 to 94.0) %."""
    value, _, rest = text.partition(" (")
    inner, _, after = rest.partition(")")
    return (value, inner + after) if after.startswith(",") else (value + after, inner)


def _lists(records: SweepRecords) -> Iterator[tuple[str, list[str]]]:
    """Yield the settings in which places of the sweep differ from their published rows."""
    rows = [(", ".join(g.labels), row_of(g.cells[0].config), g.cells[0]) for g in records.groups]
    known = [(label, row, cell.config) for label, row, cell in rows if row is not None]
    if found := differing(known):
        yield DIFFERING, found


def _told(records: SweepRecords) -> str:
    cells = records.cells
    least = min(len(group.cells) for group in records.groups)
    most = "up to " if least < records.seeds else ""
    seeds = f", {most}{records.seeds} seeds a place" if records.seeds > 1 else ", one seed a place"
    attacks = dict.fromkeys(measure(cell.config.get("evaluation") or {}) for cell in cells)
    how = f" under {next(iter(attacks))}" if len(attacks) == 1 and "" not in attacks else ""
    told = (
        f"{len(cells)} run{'s' * (len(cells) > 1)}{seeds}. Robust accuracy is that of the model "
        f"after the last round, on the test split{how}."
    )
    audits = [found for cell in cells if (found := cell.final.get("audit"))]
    if not audits:
        return told
    examples = {f"{found['examples']:,}" for found in audits}
    some = f"{examples.pop()} " if len(examples) == 1 else ""
    verdicts = [found["verdict"] for found in audits]
    counts = ", ".join(
        f"{verdicts.count(word)} {word}" for word in ("genuine", "inconclusive", "masked")
    )
    of = "" if len(audits) == len(cells) else f" of {len(cells)}"
    return (
        f"{told} True robust accuracy is the share of {some}test examples that withstand every "
        f"attack of an audit. Verdicts of {len(audits)}{of} runs: {counts}."
    )


def _unfinished(records: SweepRecords) -> Iterator[str]:
    """Yield which cells were begun and are not finished, and which were not begun."""
    open_ = {name: cell for name, cell in records.unfinished.items() if cell.failure is None}
    for begun, words in ((True, "Begun, but not finished"), (False, "Not begun yet")):
        if names := [name for name, cell in open_.items() if cell.begun is begun]:
            yield f"{words}: {', '.join(names)}."
    if records.unfinished:
        yield "The same fedrobust sweep command with --resume plays what is missing."


def _scores_caption(records: SweepRecords) -> str:
    seeds = (
        " Medians over the seeds, with the smallest and the largest value."
        if records.seeds > 1
        else ""
    )
    caption = f"The model after the last round, on the test split.{seeds}"
    if any(row_of(group.cells[0].config) for group in records.groups):
        caption += " Paper: the published figures; the settings that differ are listed above."
    if any(cell.summary.get("malicious_kept") is not None for cell in records.cells):
        caption += (
            " Malicious rows kept: the share of the malicious clients' updates (rows) that the "
            "rule selected, over all rounds; the page of a run says what a blind choice would keep."
        )
    if any(cell.final.get("audit") for cell in records.cells):
        caption += (
            " The audit's verdicts are counted, run by run. A masked model has less robustness "
            "than its audit could show."
        )
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
    cells = records.cells
    spread = " Bands reach from the smallest to the largest seed." if records.seeds > 1 else ""
    if len(records.axes) == 2:
        # The page shows this map as a table. The figure is a file beside it, for papers.
        title = f"{spoken(chief(records)).capitalize()} at every place"
        figure("matrix", title, partial(figures.matrix, records), False)
    records = figures.turned(records)
    drawn = figure("course", "Robust accuracy by round", partial(figures.course, records))
    caption = "Share of held-out examples right both clean and attacked, during training."
    if any("audit" in m for cell in cells for m in cell.metrics):
        caption += (
            " Dashed, or a second mark: the share that withstands the whole battery of an audit."
        )
    yield "Robust accuracy by round", drawn, caption + spread
    if (levels := effects.design(records)) is not None:
        title = "What each setting changes"
        yield (
            title,
            figure("effects", title, partial(effects.drawn, records)),
            effects.caption(levels),
        )
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
            + _NAMED_ONLY
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
            "is proved." + _NAMED_ONLY + _REACHED,
        )
