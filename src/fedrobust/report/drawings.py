"""The figures of a record's page as matplotlib figures, each drawn when it is asked for."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from fedrobust.config.text import shortened
from fedrobust.config.trust import NOTHING, Trusted
from fedrobust.errors import ConfigError
from fedrobust.report import figures
from fedrobust.report.run_page import section
from fedrobust.report.run_records import ReportRun
from fedrobust.report.style import WIDE, styled
from fedrobust.report.sweep.page import sweep_values

Drawings = Mapping[str, Callable[[float], Figure]]
"""By name, the functions that draw a figure at a width in inches."""


def of_run(run: ReportRun) -> Drawings:
    """Return the figures of a run's page."""
    found = dict[str, Callable[[float], Figure]]()
    label = str(run.config["name"])
    found["accuracy"] = partial(figures.accuracy, [run], [label])
    section(run, label, "", _collector(found))
    return found


def of_sweep(path: Path, trusted: Trusted = NOTHING) -> Drawings:
    """Return the figures of a sweep's page. Raises: ``RecordError``."""
    found = dict[str, Callable[[float], Figure]]()
    sweep_values(path, _collector(found), trusted)
    return found


def of_audit(path: Path) -> Drawings:
    """Return the figures of an audit's page. Raises: ``RecordError``."""
    from fedrobust.report.audit_page import audit_values  # loads the audit, only for this page

    found = dict[str, Callable[[float], Figure]]()
    audit_values(path, _collector(found))
    return found


def drawn(drawings: Drawings, name: str, width: float | None) -> Figure:
    """Draw one figure. Raises: ``ConfigError`` for a name that is not there."""
    if name not in drawings:
        there = ", ".join(drawings) or "none"
        raise ConfigError(f"there is no figure {shortened(name, 60)!r} here; there are: {there}")
    return styled(partial(drawings[name], width or WIDE))


def _collector(found: dict[str, Callable[[float], Figure]]) -> Callable[..., dict[str, Any]]:
    """Return a function that keeps how a figure is drawn, and draws nothing for a page."""

    def figure(
        name: str, alt: str, draw: Callable[[float], Figure], narrow: bool = True
    ) -> dict[str, Any]:
        found[name] = draw
        return {"name": name, "wide": "", "narrow": None}

    return figure
