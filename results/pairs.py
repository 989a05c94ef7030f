"""Compare two sweeps place by place, in pairs of cells with the same seed.

``python results/pairs.py results/drfl/ring-early results/drfl/ring-learned`` prints a line for each
place, such as a rule and an attack, that both have: how much greater the error (in points) and ρ̂
are in the first sweep, as means over the seeds with 95 % t-intervals.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

from fedrobust.errors import RecordError
from fedrobust.report.sweep.paired import difference
from fedrobust.report.sweep.records import SweepRecords


def lines(first: Path, second: Path) -> Iterator[str]:
    """Yield the table. Raises: ``RecordError`` where the sweeps have other axes, or no place."""
    here, there = SweepRecords.read(first), SweepRecords.read(second)
    if here.axes != there.axes:
        raise RecordError(f"{first} has the axes {here.axes}, and {second} has {there.axes}")
    groups = {group.labels: group for group in there.groups}
    both = [group for group in here.groups if group.labels in groups]
    if not both:
        raise RecordError(f"{first} and {second} have no place in common")
    yield f"| {' | '.join(here.axes)} | error, points | ρ̂ |"
    yield "|---" * (len(here.axes) + 2) + "|"
    for group in both:
        other = groups[group.labels]
        gaps = (difference(group, other, name) for name in ("error", "ρ̂"))
        yield f"| {' | '.join([*group.labels, *gaps])} |"


if __name__ == "__main__":
    try:
        for line in lines(Path(sys.argv[1]), Path(sys.argv[2])):
            print(line)
    except RecordError as error:
        sys.exit(str(error))
