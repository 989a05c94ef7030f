"""The table of a sweep's learned attacks: reconstructions, returns and time spent."""

from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

from fedrobust.report.sweep.columns import Columns
from fedrobust.report.sweep.records import SweepCell

_RETURN = (
    "The return is the return of the policy or plan in five episodes of the attacker's own "
    "simulation. These episodes were not used to choose it."
)
_RECONSTRUCTED = (
    "The W₁ columns give the distance to the true data of equally many own, reconstructed and "
    "further true examples; the last is the floor. Nearest real is the distance of "
    "reconstructions from the nearest real example, as a share of its norm. The mismatch of "
    "gradients is given at the start and at the end of an inversion, and for the newest "
    "reconstructions on the next, unused gradient. With soft labels it is what an inversion "
    "minimises; records of earlier versions have this at the end. The labels columns give half "
    "the ℓ1 distance of the label mix from the true one."
)


def caption(columns: Sequence[str]) -> str:
    """Return the caption of a table with these columns."""
    told = [_RECONSTRUCTED] * ("W₁ reconstructed" in columns) + [_RETURN] * ("return" in columns)
    return " ".join(told)


def _of(read: Callable[[Mapping[str, Any]], float | None]) -> Callable[[SweepCell], float | None]:
    """Apply ``read`` to the attack's report; None for a cell without a report or the figure."""

    def figure(cell: SweepCell) -> float | None:
        report = cell.summary.get("attack") or {}
        return read(report) if "observed_rounds" in report else None

    return figure


def _compared(name: str) -> Callable[[SweepCell], float | None]:
    return _of(lambda report: (report.get("comparison") or {}).get(name))


def _labels(report: Mapping[str, Any], whose: str) -> float | None:
    shares = (report.get("comparison") or {}).get("labels", {})
    if whose not in shares or len(shares[whose]) != len(shares.get("truth", ())):
        return None
    pairs = zip(shares[whose], shares["truth"], strict=True)
    return float(sum(abs(a - b) for a, b in pairs)) / 2


def _middle(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


LEARNED: Columns = {
    "W₁ own": _compared("own"),
    "W₁ reconstructed": _compared("learned"),
    "W₁ floor": _compared("floor"),
    "nearest real": _compared("nearest"),
    "mismatch at start": _of(lambda r: _middle([before for before, _ in r["matching"]])),
    "at end": _of(lambda r: _middle([after for _, after in r["matching"]])),
    "with soft labels": _of(lambda r: _middle(r.get("reached", []))),
    "on the unused": _of(lambda r: _middle(r["unused"])),
    "labels own": _of(lambda r: _labels(r, "own")),
    "labels reconstructed": _of(lambda r: _labels(r, "learned")),
    "return": _of(lambda r: r.get("value")),
    "simulated rounds": _of(lambda r: r["simulated_rounds"] or None),
    "minutes": _of(lambda r: r["seconds"] / 60),
}
