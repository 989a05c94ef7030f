"""Sweeps with given scores, made up without playing or writing anything."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from fedrobust.report.sweep.records import Group, SweepCell, SweepRecords

Robust = Mapping[tuple[str, ...], Sequence[float]]


def made(
    robust: Robust, axes: tuple[str, ...] = ("rule", "attack"), missing: tuple[str, ...] = ()
) -> SweepRecords:
    """A sweep with these robust accuracies at each place, one for each seed."""
    groups = []
    for labels, values in robust.items():
        named = dict(zip(axes, labels, strict=True))
        config = {"malicious": int(named.get("attack", "none") != "none")}
        cells = tuple(
            SweepCell(
                "-".join([*labels, str(seed)]),
                named | {"seed": str(seed)},
                Path(),
                config,
                {"test": {"final": {"robust_accuracy": value, "examples": 1000}}},
            )
            for seed, value in enumerate(values)
        )
        groups.append(Group(labels, cells))
    return SweepRecords(Path(), "made", axes, tuple(groups), missing, {})


CROSSED: Robust = {
    ("mean", "none"): [0.55, 0.56],
    ("mean", "flip"): [0.50, 0.51],
    ("mean", "alie"): [0.10, 0.12],
    ("krum", "none"): [0.48, 0.49],
    ("krum", "flip"): [0.45, 0.46],
    ("krum", "alie"): [0.47, 0.48],
}
