"""Sweeps with given scores, made up without playing or writing anything."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedrobust.report.sweep.records import Group, SweepCell, SweepRecords

Robust = Mapping[tuple[str, ...], Sequence[float]]


Audits = Mapping[tuple[str, ...], Sequence[tuple[str, float]]]
"""The verdict and the true robust accuracy of each seed at each place."""


def made(
    robust: Robust,
    axes: tuple[str, ...] = ("rule", "attack"),
    missing: tuple[str, ...] = (),
    audits: Audits | None = None,
) -> SweepRecords:
    """A sweep with these robust accuracies at each place, one for each seed.

    The ``audits`` are of 100 examples each; a place that they lack was not audited.
    """
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
                {"test": {"final": _scores(value, (audits or {}).get(labels, ()), seed)}},
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


def _scores(robust: float, audits: Sequence[tuple[str, float]], seed: int) -> dict[str, Any]:
    scores: dict[str, Any] = {"accuracy": 0.9, "robust_accuracy": robust, "examples": 1000}
    if audits:
        verdict, left = audits[seed]
        found = {"verdict": verdict, "claimed": robust, "robust": left, "examples": 100}
        scores["audit"] = found
    return scores
