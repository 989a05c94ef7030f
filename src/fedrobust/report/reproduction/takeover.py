"""Whether robustness is real: means after a takeover, and apparent beside true robust accuracy."""

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean, median
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedrobust.evaluation.intervals import Share
from fedrobust.report.style import MALICIOUS, MUTED, NARROW, PAPER, ROBUST, printable
from fedrobust.report.sweep.records import Group, Spread, SweepCell

Measure = Callable[[Mapping[str, Any]], float | None]


def _under(words: str) -> Measure:
    """Return the accuracy under the attacks of an audit whose names begin with ``words``.

    Where there are several, such as the transfer from each surrogate, it is the lowest.
    """

    def of(line: Mapping[str, Any]) -> float | None:
        under = line["audit"].get("under", {})
        return min((v for name, v in under.items() if name.startswith(words)), default=None)

    return of


MEASURES: Mapping[str, Measure] = {
    "accuracy": lambda line: line["accuracy"],
    "robust_accuracy": lambda line: line["robust_accuracy"],
    "transfer": _under("transfer "),
    "logit_scaled": _under("rescaled PGD"),
    "battery": lambda line: line["audit"]["robust"],
}
"""What is averaged over the rounds after a takeover, by the name that published figures have."""
HEADS: Mapping[str, str] = {
    "accuracy": "accuracy",
    "robust_accuracy": "apparent",
    "transfer": "transfer",
    "logit_scaled": "rescaled",
    "battery": "battery",
}
CAPTION = (
    "Means over the evaluations from the given round on, on validation examples. Apparent: robust "
    "accuracy under the evaluation's PGD. Transfer: under adversarial examples of the auditor's "
    "own networks, the stronger of the two. Rescaled: under PGD on logits whose scale hides no "
    "gradient. Battery: under every attack of the audit. Over several seeds: the median, with the "
    "smallest and the largest value."
)


def stable_from(config: Mapping[str, Any], stabilises: int) -> int:
    """Return the first round of the means: ``stabilises`` rounds after the attack's first one."""
    start: int = (config.get("attack") or {}).get("start", 1)
    return start + stabilises


def after(group: Group, stabilises: int) -> dict[str, Spread | None] | None:
    """Return the spread over the seeds of each mean; None where no evaluation made an audit."""
    lines = {
        cell.name: [
            line
            for line in cell.metrics
            if "audit" in line and line["round"] >= stable_from(cell.config, stabilises)
        ]
        for cell in group.cells
    }
    if not all(lines.values()):
        return None

    def mean_of(measure: Measure) -> Callable[[SweepCell], float | None]:
        def of(cell: SweepCell) -> float | None:
            found = [v for line in lines[cell.name] if (v := measure(line)) is not None]
            return fmean(found) if len(found) == len(lines[cell.name]) else None

        return of

    return {name: group.spread(mean_of(measure)) for name, measure in MEASURES.items()}


def under(group: Group) -> dict[str, Spread]:
    """Return the chosen model's robust accuracy under each of the further attacks, by name."""
    shares = [
        (cell.summary["test"]["best"].get("under") or {}).get("robust_accuracy", {})
        for cell in group.cells
    ]
    names = dict.fromkeys(name for one in shares for name in one)
    columns = {name: [one[name] for one in shares if name in one] for name in names}
    return {
        name: Spread(median(found), min(found), max(found), len(found))
        for name, found in columns.items()
        if len(found) == len(shares)
    }


class Claim(NamedTuple):
    """The apparent and the true robust accuracy of one run, and how many examples say so."""

    claimed: float
    robust: float
    examples: int
    masked: bool


def claims_of(cells: Sequence[SweepCell]) -> list[Claim]:
    """Return the audits of the cells' chosen models on test examples; empty without any."""
    audits = [cell.summary["test"]["best"].get("audit") for cell in cells]
    return [
        Claim(found["claimed"], found["robust"], found["examples"], found["verdict"] == "masked")
        for found in audits
        if found is not None
    ]


_APART = 0.5
"""How far apart the seeds of a place are drawn; places are 1 apart."""


def _draw(axes: Axes, at: float, claim: Claim, size: float) -> None:
    line = MALICIOUS if claim.masked else MUTED
    axes.plot([claim.robust, claim.claimed], [at, at], color=line, lw=2, alpha=0.5, zorder=1)
    for value, colour, filled in ((claim.claimed, MUTED, False), (claim.robust, ROBUST, True)):
        share = Share(round(value * claim.examples), claim.examples)
        axes.plot([share.low, share.high], [at, at], color=colour, lw=1, zorder=2)
        face = colour if filled else PAPER
        axes.plot(value, at, "o", color=colour, mfc=face, ms=size, mew=1.8, zorder=3, clip_on=False)


def claims(found: Mapping[str, Sequence[Claim]], width: float) -> Figure:
    """Draw apparent and true robust accuracy at each place, a line a seed, with 95 % intervals."""
    more = sum(map(len, found.values())) - len(found)
    figure = Figure(figsize=(width, 0.42 * len(found) + 0.2 * more + 1.1), layout="constrained")
    axes = figure.subplots()
    at, ticks = 0.0, list[float]()
    for place in found.values():
        ticks.append(at)
        for i, claim in enumerate(place):
            _draw(axes, ticks[-1] + _APART * i, claim, 8 if len(place) == 1 else 6)
        at = ticks[-1] + _APART * (len(place) - 1) + 1
    length = 24 if width <= NARROW else 48
    axes.set_yticks(ticks, [printable(label, length) for label in found])
    axes.set_ylim(at - 0.4, -0.6)
    axes.set_xlim(-0.02, 1.02)  # else a marker at 0 % would touch its label
    axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    axes.grid(axis="x")
    axes.grid(visible=False, axis="y")
    title = "Robust accuracy: ○ under plain PGD, ● under all attacks of the audit"
    axes.set_title("○ plain PGD, ● audit" if width <= NARROW else title)
    return figure
