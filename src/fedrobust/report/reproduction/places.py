"""The places of a reproduction: the cells of each, and the published row that they belong to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fedrobust.records.published import Published
from fedrobust.report.reproduction import takeover
from fedrobust.report.sweep.records import Group, Spread, SweepCell, SweepRecords

SCORES = ("accuracy", "robust_accuracy")


@dataclass(frozen=True)
class Place:
    """The cells at one place of a sweep, and the published row that they belong to, if any."""

    sweep: str
    group: Group
    row: Published | None
    alone: bool
    """Whether there is one sweep only, which need not be named."""

    @property
    def label(self) -> str:
        """The place in words: the sweep and the labels."""
        sweep = [] if self.alone and self.group.labels else [self.sweep]
        return ", ".join([*sweep, *self.group.labels])

    def ours(self, which: str, figure: str) -> Spread | None:
        """Return the spread of a figure of the ``best`` or the ``final`` model over the seeds."""

        def of(cell: SweepCell) -> float | None:
            found: float | None = cell.summary["test"][which][figure]
            return found

        return self.group.spread(of)

    def takeover(self) -> dict[str, Spread | None] | None:
        """Return the means after the paper's attack took over; None where it reports none."""
        if self.row is None or self.row.stabilises is None:
            return None
        return takeover.after(self.group, self.row.stabilises)


def places(read: Mapping[str, SweepRecords], rows: Sequence[Published], alone: bool) -> list[Place]:
    """Return the places of all sweeps. ``alone`` says that the reproduction has one sweep only."""
    return [
        Place(name, group, _row(rows, group), alone)
        for name, records in read.items()
        for group in records.groups
    ]


def _row(rows: Sequence[Published], group: Group) -> Published | None:
    """Return the published row that the cells of a group belong to, if there is one."""
    return next((row for row in rows if row.fits(group.cells[0].config)), None)
