"""An audit in its folder."""

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from markupsafe import escape
from matplotlib.figure import Figure

from fedrobust.evaluation.auditing import Audit
from fedrobust.report import drawings
from fedrobust.report.page import write_report
from fedrobust.results.frames import frame
from fedrobust.runs.audit import stored

if TYPE_CHECKING:
    import pandas as pd


class StoredAudit:
    """A finished audit. ``result`` is what :func:`fedrobust.evaluation.audit` returned."""

    def __init__(self, path: Path) -> None:
        """Open the audit at ``path``. Raises: ``RecordError`` where audit.json is broken."""
        self.path, self.result = path, stored(path)

    @property
    def verdict(self) -> str:
        """Whether the robustness is ``genuine`` or ``masked``, or ``inconclusive``."""
        return self.result.verdict

    @property
    def figures(self) -> tuple[str, ...]:
        """The names of the figures that :meth:`figure` draws."""
        return tuple(self._drawings)

    @cached_property
    def _drawings(self) -> drawings.Drawings:
        return drawings.of_audit(self.path)

    def figure(self, name: str = "signs", width: float | None = None) -> Figure:
        """Return a figure of the audit's page as a matplotlib figure, ``width`` inches wide.

        Raises: ``ConfigError`` for a name that is not among ``figures``.
        """
        return drawings.drawn(self._drawings, name, width)

    def report(self, out: Path | str | None = None) -> Path:
        """Write the page of the audit, by default to ``report`` in its folder; return its path."""
        return write_report([self.path], None if out is None else Path(out))

    def to_pandas(self) -> "pd.DataFrame":
        """Return one line for each sign of masking: its value, its interval, limit and word.

        Raises: ``ConfigError`` where pandas is not installed.
        """
        return frame(
            [
                {
                    "sign": sign.name,
                    "value": sign.value,
                    "low": sign.low,
                    "high": sign.high,
                    "limit": sign.limit,
                    "word": sign.word,
                }
                for sign in self.result.signs
            ]
        )

    def __repr__(self) -> str:
        found: Audit = self.result
        return (
            f"<StoredAudit: {found.verdict}; {found.clean:.1%} accurate, {found.claimed:.1%} "
            f"claimed robust, {found.robust:.1%} robust>"
        )

    def _repr_html_(self) -> str:
        """Return the verdict and its reason for a notebook."""
        return f"<pre>{escape(str(self.result))}</pre>"
