"""The values for the template of an audit's page, and its two figures."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from numpy.typing import NDArray

from fedrobust.evaluation.auditing import Audit, Surface, wording
from fedrobust.evaluation.auditing.indicators import Indicator
from fedrobust.records.reading import shaped
from fedrobust.records.schema.audit import AuditRecord
from fedrobust.report.page_tables import PageTable
from fedrobust.report.style import ACCURACY, MUTED, NARROW, RIGHT, ROBUST, printable
from fedrobust.report.wording import number, percent
from fedrobust.runs.audit import stored, stored_words
from fedrobust.runs.own_audit import other_verdict

_SCALE = LinearSegmentedColormap.from_list("loss", ["#f2f5f9", "#56b4e9", "#0072b2", "#1f2933"])


def audit_values(
    folder: Path, figure: Callable[..., dict[str, Any]]
) -> tuple[dict[str, Any], list[PageTable]]:
    """Return all values that the page shows of the audit in ``folder``, and its tables."""
    found, about = stored(folder), stored_words(folder)
    own = shaped(AuditRecord, about).run
    shares = {name: percent(share.value) for name, share in found.shares.items()}
    values: dict[str, Any] = {
        "model": str(about.get("model", folder.name)),
        "data": str(about.get("data", "")),
        "verdict": found.verdict,
        "reason": found.reason,
        "notes": list(found.notes),
        "other": other_verdict(found, own),
        "cards": [
            {
                "title": title,
                "value": shares[name],
                "interval": f"{100 * found.shares[name].low:.1f} to "
                f"{percent(found.shares[name].high)}",
            }
            for name, title in wording.SHARES.items()
        ],
        "claims": found.claimed > 0,
        "signs": [_sign(sign, found.claimed) for sign in found.signs],
        "taken": [
            {
                "name": taken.name,
                "tried": f"{taken.tried:,}",
                "fell": f"{taken.fell:,}",
                "seconds": f"{taken.seconds:.1f}",
            }
            for taken in found.taken
        ],
        "settings": [
            ("share of the commonest label", percent(value))
            if name == "one answer" and isinstance(value, float)
            else (name, number(value))
            for name, value in found.settings.items()
        ],
        "examples": found.settings["examples"],
        "surface": figure("surface", _surface_words(found), partial(_surfaces, found.surface)),
        "signs_figure": figure("signs", _signs_words(found), partial(_signs, found)),
        "looked_at": found.surface.examples,
    }
    return values, [_checks(found), _attacks(values["taken"])]


def _checks(found: Audit) -> PageTable:
    """Return the checks for a paper: as numbers, where the page has sentences.

    All are in per cent: shares of examples, or how many more of them were broken than by plain PGD.
    """
    heads = ["check", "what was tried", "found (%)", "allowed up to (%)", "result", "what it means"]
    rows = [
        [
            wording.CHECKS[sign.name].title,
            wording.CHECKS[sign.name].tried,
            f"{100 * sign.value:.1f} ({100 * sign.low:.1f} to {100 * sign.high:.1f})",
            f"{100 * sign.limit:.3g}",
            wording.result(sign, found.claimed),
            wording.meaning(sign, found.claimed),
        ]
        for sign in found.signs
    ]
    numbers = [False, False, True, True, False, False]
    return PageTable("Can plain PGD be believed?", [heads], rows, numbers)


def _attacks(taken: list[dict[str, str]]) -> PageTable:
    """Return how many examples each attack broke."""
    heads = ["attack", "tried on", "broken", "seconds"]
    rows = [list(each.values()) for each in taken]
    numbers = [False, True, True, True]
    return PageTable("How many examples each attack broke", [heads], rows, numbers)


def _sign(sign: Indicator, claimed: float) -> dict[str, Any]:
    """Return a check for the template: what was tried, what was found, what it means."""
    return {
        "tried": wording.CHECKS[sign.name].tried,
        "found": wording.found(sign),
        "allowed": wording.allowed(sign),
        "word": sign.word,
        "result": wording.result(sign, claimed),
        "means": wording.meaning(sign, claimed),
    }


def _signs_words(found: Audit) -> str:
    return "The checks with their intervals and what is allowed. " + " ".join(
        f"{wording.CHECKS[sign.name].title}: {wording.found(sign)}, "
        f"allowed {wording.allowed(sign)}: {wording.result(sign, found.claimed)}."
        for sign in found.signs
    )


def _signs(found: Audit, width: float) -> Figure:
    """Draw each sign with its interval, and the limit above which it shows masking."""
    signs = found.signs[::-1]
    figure = Figure(figsize=(width, 0.3 * len(signs) + 0.7), layout="constrained")
    axes = figure.subplots()
    colours = {True: ROBUST, False: RIGHT, None: MUTED}
    markers = {True: "X", False: "o", None: "D"}
    for place, sign in enumerate(signs):
        colour = colours[sign.beyond]
        axes.plot([100 * sign.low, 100 * sign.high], [place, place], color=colour, linewidth=2.4)
        axes.plot(100 * sign.value, place, markers[sign.beyond], color=colour, markersize=6)
        axes.plot([100 * sign.limit] * 2, [place - 0.38, place + 0.38], color=MUTED, linewidth=1.4)
    names = [printable(wording.CHECKS[sign.name].title, 40) for sign in signs]
    axes.set_yticks(range(len(signs)), names)
    axes.grid(axis="y", visible=False)
    axes.axvline(0, color=MUTED, linewidth=0.8, alpha=0.6)
    whole = width > NARROW
    axes.set_xlabel("what shows masking, in % of the examples" if whole else "% of the examples")
    low = min(0.0, *(100 * sign.low for sign in signs))
    axes.set_xlim(max(low, -100.0) - 2, 102 if max(s.high for s in signs) > 0.5 else 55)
    return figure


def _surface_words(found: Audit) -> str:
    """Describe the pictures for readers who cannot see them."""
    middle = len(found.surface.ticks) // 2
    row = found.surface.loss[middle]
    wrong = found.surface.errors[middle]
    return (
        f"Around {found.surface.examples} examples. In the direction that lowers the margin the "
        f"median loss goes from {row[middle]} at the image to {row[-1]} at one radius, and the "
        f"share of mistakes from {wrong[middle]} to {wrong[-1]}."
    )


def _surfaces(surface: Surface, width: float) -> Figure:
    """Draw the cross-entropy, which PGD sees, beside the share of mistakes that there are."""
    figure = Figure(figsize=(width, 0.44 * width + 0.2), layout="constrained")
    left, right = figure.subplots(1, 2, sharex=True, sharey=True)
    narrow = width <= NARROW
    _map(left, surface, surface.loss, "What PGD sees" if narrow else "What PGD sees: the loss")
    _map(right, surface, surface.errors, "Mistakes" if narrow else "The share of mistakes", top=1.0)
    left.set_ylabel("random direction")
    right.tick_params(labelleft=False)
    return figure


def _map(
    axes: Axes,
    surface: Surface,
    values: list[list[float | None]],
    title: str,
    top: float | None = None,
) -> None:
    grid: NDArray[np.float64] = np.array(values, dtype=float)
    highest = top or max(float(np.nanmax(grid)) if np.isfinite(grid).any() else 0.0, 1e-6)
    shown = axes.contourf(
        surface.ticks,
        surface.ticks,
        np.clip(np.nan_to_num(grid, nan=highest), 0, highest),
        levels=np.linspace(0, highest, 13),
        cmap=_SCALE,
    )
    axes.plot(0, 0, "+", color=ACCURACY, markersize=9, markeredgewidth=1.6)
    axes.set_title(title)
    axes.set_aspect("equal")
    axes.grid(visible=False)
    axes.set_xlabel("direction of a falling margin")
    axes.set_xticks([-1, 0, 1], ["−ε", "0", "ε"])
    axes.set_yticks([-1, 0, 1], ["−ε", "0", "ε"])
    bar = axes.figure.colorbar(shown, ax=axes, shrink=0.85, ticks=[0, highest / 2, highest])
    bar.ax.set_yticklabels([number(round(v, 3)) for v in (0.0, highest / 2, highest)])
    bar.outline.set_visible(False)
