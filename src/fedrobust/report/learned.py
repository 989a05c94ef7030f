"""What the page shows of a learned attack: observing, training, and what it reconstructed."""

import zipfile
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
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked

from fedrobust.component import Size
from fedrobust.errors import RecordError
from fedrobust.report.drawing import ACCURACY, MALICIOUS, MUTED, NARROW, ROBUST, SERIES
from fedrobust.report.run import ReportRun

_OPEN = ConfigDict(extra="ignore")


@checked(frozen=True, config=_OPEN)
class Compared:
    """W₁ to the truth of equally many examples, and the shares of the classes."""

    own: float
    learned: float
    floor: float
    examples: int
    nearest: float
    labels: dict[str, tuple[float, ...]]


@checked(frozen=True, config=_OPEN)
class LearnedReport:
    """What a learned attack says of itself in summary.json."""

    observed_rounds: Size
    reconstructed: Size
    distances: tuple[float, ...]
    matching: tuple[tuple[float, float], ...]
    unused: tuple[float, ...]
    returns: tuple[float, ...]
    checks: tuple[tuple[float, float], ...]
    simulated_rounds: Size
    seconds: float
    acts: bool
    comparison: Compared | None = None
    value: float | None = None
    source: str | None = None
    acts_from: Size | None = None

    @property
    def kept(self) -> int | None:
        """The step of the check that was best, whose policy acts; None where only one was there."""
        if len(self.checks) < 2:
            return None
        return int(max(self.checks, key=lambda check: check[1])[0])


@dataclass(frozen=True)
class Pictures:
    """Reconstructed images [b, c, h, w], the nearest real ones, and the labels given to them."""

    learned: NDArray[np.float32]
    nearest: NDArray[np.float32]
    labels: NDArray[np.int64]


def learned_report(run: ReportRun) -> LearnedReport | None:
    """The report of the run's learned attack; None where it has none.

    Raises: ``RecordError`` where it is broken.
    """
    content = run.summary.attack if run.summary else None
    if content is None or "observed_rounds" not in content:
        return None
    try:
        return TypeAdapter(LearnedReport).validate_python(content)
    except ValidationError as error:
        first = error.errors()[0]
        raise RecordError(
            f"{run.path / 'summary.json'} is broken: attack.{first['loc'][0]}: {first['msg']}"
        ) from error


def pictures_of(path: Path) -> Pictures | None:
    """The reconstructions that a run kept. Raises: ``RecordError`` where the file is broken."""
    file = path / "attack.npz"
    if not file.exists():
        return None
    try:
        with file.open("rb") as opened, np.load(opened, allow_pickle=False) as archive:
            found = Pictures(**{name: archive[name] for name in Pictures.__dataclass_fields__})
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise RecordError(f"{file} is broken: {error}") from error
    shape = found.learned.shape
    if len(shape) != 4 or found.nearest.shape != shape or found.labels.shape != shape[:1]:
        raise RecordError(f"{file} is broken: its arrays do not fit together")
    return found


def learned_section(
    run: ReportRun, prefix: str, figure: Callable[..., dict[str, Any]], png: Callable[[Any], str]
) -> dict[str, Any] | None:
    """What the template shows, or None for a run without a learned attack."""
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
    """Distances over the observed rounds, the label mix, and the returns of the training."""
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
    """The legend under the axes, where it hides nothing."""
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(-0.02, -0.2))
