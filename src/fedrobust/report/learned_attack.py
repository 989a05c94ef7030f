"""The part of the page about a learned attack: observing, training, and reconstructions."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator, PercentFormatter, StrMethodFormatter
from numpy.typing import NDArray

from fedrobust.records.pictures import require_pictures
from fedrobust.records.reading import arrays_of, broken, present, shaped
from fedrobust.records.schema.learned import Compared, LearnedReport
from fedrobust.report.run_records import ReportRun
from fedrobust.report.style import ACCURACY, MALICIOUS, MUTED, NARROW, ROBUST, SERIES


@dataclass(frozen=True)
class Pictures:
    """Reconstructed images [b, c, h, w], the nearest real images, and the assigned labels."""

    learned: NDArray[np.float32]
    nearest: NDArray[np.float32]
    labels: NDArray[np.int64]


def learned_report(run: ReportRun) -> LearnedReport | None:
    """Return the report of the run's learned attack; None for a run without one.

    Raises: ``RecordError`` where it is broken.
    """
    content = run.summary.attack if run.summary else None
    if content is None or "observed_rounds" not in content:
        return None
    try:
        return shaped(LearnedReport, content)
    except ValueError as error:
        raise broken(run.path / "summary.json", f"attack.{error}") from error


def pictures_of(path: Path) -> Pictures | None:
    """Return a run's stored reconstructions. Raises: ``RecordError`` where the file is broken."""
    file = path / "attack.npz"
    if not present(file):
        return None
    found = Pictures(**arrays_of(file, *Pictures.__dataclass_fields__))
    require_pictures(file, (found.learned, found.nearest), (found.labels,))
    return found


def learned_section(
    run: ReportRun, prefix: str, figure: Callable[..., dict[str, Any]], png: Callable[[Any], str]
) -> dict[str, Any] | None:
    """Return the template's values, or None for a run without a learned attack."""
    found = learned_report(run)
    if found is None:
        return None
    drawn = None
    if found.matching or found.returns:
        alt = "The attacker's observing, the labels that it reconstructed, and its training."
        drawn = figure(f"{prefix}learned", alt, partial(course, found))
    kept = pictures_of(run.path)
    shown = [] if kept is None else list(zip(kept.labels, kept.learned, kept.nearest, strict=True))
    return {
        "report": found,
        "figure": drawn,
        "pictures": [(int(label), png(ours), png(real)) for label, ours, real in shown],
    }


def course(found: LearnedReport, width: float) -> Figure:
    """Draw distances over the observed rounds, the label mix, and the returns of the training."""
    draws: list[Callable[[Axes], None]] = []
    if found.matching:
        draws.append(partial(_observed, found))
    if found.comparison is not None:
        draws.append(partial(_labels, found.comparison))
    if found.returns:
        draws.append(partial(_returns, found))
    across = len(draws) if width > NARROW else 1
    down = -(-len(draws) // across)
    figure = Figure(figsize=(width, 3.4 * down), layout="constrained")
    for axes, draw in zip(figure.subplots(down, across, squeeze=False).flat, draws, strict=True):
        draw(axes)
    return figure


def _observed(found: LearnedReport, axes: Axes) -> None:
    axes.set_title("Observing")
    rounds = np.arange(1, len(found.matching) + 1)
    end = [after for _, after in found.matching]
    axes.plot(rounds, end, color=MALICIOUS, marker="s", ms=4, label="gradient matched")
    if found.reached and list(found.reached) != end:
        axes.plot(rounds, found.reached, color=MUTED, marker="v", ms=4, label="with soft labels")
    if found.unused:
        later = rounds[-len(found.unused) :]
        axes.plot(later, found.unused, color=ROBUST, marker="^", ms=4, label="unused gradient")
    if found.distances:
        later = rounds[-len(found.distances) :]
        axes.plot(later, found.distances, color=ACCURACY, marker="o", ms=4, label="pool to pool")
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.set_xlabel("inversion")
    _below(axes)


def _labels(found: Compared, axes: Axes) -> None:
    axes.set_title("Labels")
    places = np.arange(max(map(len, found.labels.values())))
    for i, (name, colour) in enumerate(
        zip(found.labels, (MUTED, SERIES[5], MALICIOUS), strict=False)
    ):
        shares = np.array(found.labels[name])
        axes.bar(places[: len(shares)] + 0.27 * (i - 1), shares, 0.25, color=colour, label=name)
    axes.set_xticks(places if len(places) <= 10 else places[::10])
    axes.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    axes.set_xlabel("class")
    _below(axes)


def _returns(found: LearnedReport, axes: Axes) -> None:
    axes.set_title("Training")
    axes.plot(found.returns, color=MUTED, lw=1, label="seen while it trained")
    if found.checks and found.returns:
        last = max(step for step, _ in found.checks) or 1
        places = [step / last * (len(found.returns) - 1) for step, _ in found.checks]
        values = [value for _, value in found.checks]
        axes.plot(places, values, color=MALICIOUS, marker="o", ms=4, label="without noise")
    low = float(np.quantile(found.returns, 0.1))
    axes.set_ylim(bottom=min(-0.1, low))
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.set_xlabel("episode")
    _below(axes)


def _below(axes: Axes) -> None:
    """Put the legend under the axes, where it hides nothing."""
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(-0.02, -0.2))
