"""What a reader of a sweep must know of its cells: their troubles, and code that differs."""

import re

from fedrobust.records.own_code import mixed_code
from fedrobust.records.reading import json_of, present
from fedrobust.records.schema.run import Computed
from fedrobust.report.sweep.records import SweepRecords

_NUMBER = re.compile(r"[\d,.]*\d")
_NAMED = 4
"""The number of cells that are named for one trouble."""


def troubles(records: SweepRecords) -> list[str]:
    """Return the troubles of the cells, joined where they differ only in their numbers.

    Cells that were played with other versions of a user's own code come first.

    Raises: ``RecordError`` for a cell with a broken environment.json.
    """
    places = [(cell.name, cell.path / "environment.json") for cell in records.cells]
    played = [(name, json_of(path, Computed)) for name, path in places if present(path)]
    lines = [
        f"{_named(cells)}: played with another version of {module} than the other runs; if it "
        "computes something else, they are not comparable"
        for module, cells in mixed_code(played).items()
    ]
    told: dict[str, dict[str, str]] = {}
    for cell in records.cells:
        for text in cell.summary.get("troubles", []):
            told.setdefault(_NUMBER.sub("", text), {}).setdefault(cell.name, text)
    for alike in told.values():
        first, *others = alike.values()
        like = (
            "" if all(text == first for text in others) else " (the numbers are of the first cell)"
        )
        lines.append(f"{_named(list(alike))}: {first}{like}")
    return lines


def _named(cells: list[str]) -> str:
    more = f" and {len(cells) - _NAMED} more" if len(cells) > _NAMED else ""
    return ", ".join(cells[:_NAMED]) + more
