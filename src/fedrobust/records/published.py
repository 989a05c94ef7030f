"""The figures that papers publish, and which of them a run's settings belong to."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from fedrobust.config.shelf import shelf


@dataclass(frozen=True)
class Published:
    """One row of a published table.

    ``figures`` are shares from 0 to 1 by name. A run belongs to the row if its config has the
    values of ``match``, by dotted key; a list there holds the values that will do. ``setting`` are
    the published settings, by dotted key, which a run may differ from. ``stabilises`` is the number
    of rounds from the attack's first one on after which the paper takes means over the rounds, None
    where it reports one model.
    """

    paper: str
    table: str
    label: str
    match: Mapping[str, Any]
    setting: Mapping[str, Any]
    figures: Mapping[str, float] = field(default_factory=dict)
    stabilises: int | None = None

    def fits(self, config: Mapping[str, Any]) -> bool:
        """Whether a run with this config is one of the row."""
        found = ((at(config, key), value) for key, value in self.match.items())
        return all(
            ours in theirs if isinstance(theirs, list) else ours == theirs for ours, theirs in found
        )

    def differences(self, config: Mapping[str, Any]) -> list[str]:
        """Return each setting in which the run differs: "objective.attack.steps: 4 (40)"."""
        found = {key: at(config, key) for key in self.setting}
        return [
            f"{key}: {_text(value)} ({_text(self.setting[key])})"
            for key, value in found.items()
            if value != self.setting[key]
        ]


def _text(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, list) and value and all(_is_phase(each) for each in value):
        *first, last = value
        parts = [f"{_text(each['value'])} to round {each['until']:,}" for each in first]
        end = _text(last["value"])
        return ", ".join([*parts, f"then {end}" if parts else end])
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _is_phase(value: object) -> bool:
    """Whether this is a phase of a schedule by round, as a config holds it."""
    return isinstance(value, Mapping) and {"value", "until"} >= set(value) >= {"value"}


def at(config: Mapping[str, Any], key: str) -> Any:
    """Return the value at a dotted key; None where there is none. A number is a place in a list."""
    found: Any = config
    for step in key.split("."):
        if isinstance(found, list | tuple) and step.isdigit() and int(step) < len(found):
            found = found[int(step)]
        elif isinstance(found, Mapping):
            found = found.get(step)
        else:
            return None
    return found


@cache
def tables(paper: str) -> Mapping[str, tuple[Published, ...]]:
    """Return the tables of a paper by name, with their rows; none where fedrobust has no figures.

    The paper's file is results/published/PAPER.json, where figures are in per cent.
    """
    path = shelf("results", "published", f"{paper}.json")
    if not path.is_file():
        return {}
    content = json.loads(path.read_text("utf-8"))
    return {
        name: tuple(_row(paper, name, table["setting"], row) for row in table["rows"])
        for name, table in content["tables"].items()
    }


def _row(paper: str, table: str, setting: Mapping[str, Any], row: Mapping[str, Any]) -> Published:
    figures = {key: value / 100 for key, value in row.items() if isinstance(value, float)}
    whole = {**setting, **row["setting"]}
    stabilises = row.get("stabilises")
    return Published(paper, table, row["label"], row["match"], whole, figures, stabilises)


def row_of(config: Mapping[str, Any]) -> Published | None:
    """Return the first row of any paper to which a run with this config belongs, if any."""
    papers = sorted(path.stem for path in shelf("results", "published").glob("*.json"))
    rows = (row for paper in papers for table in tables(paper).values() for row in table)
    return next((row for row in rows if row.fits(config)), None)


def differing(places: Sequence[tuple[str, Published, Mapping[str, Any]]]) -> list[str]:
    """Return the settings in which runs differ from their published rows, with the published ones.

    ``places`` are labels, rows and configs. A setting that does not differ everywhere is followed
    by the labels where it does.
    """
    found = dict[str, list[str]]()
    for label, row, config in places:
        for text in row.differences(config):
            found.setdefault(text, []).append(label)
    return [
        text if len(where) == len(places) else f"{text}: {'; '.join(where)}"
        for text, where in found.items()
    ]
