"""How much harm an attack does beside others: differences seed by seed, with their intervals."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

from fedrobust.evaluation.intervals import of_mean
from fedrobust.report.sweep.paired import caption, paired
from fedrobust.report.sweep.records import Group, SweepCell, SweepRecords

pytestmark = pytest.mark.slow


def cell(seed: int, attack: str, error: float, rho: float | None) -> SweepCell:
    wasserstein = {} if rho is None else {"rho": rho}
    return SweepCell(
        f"mean-{attack}-{seed}",
        {"rule": "mean", "attack": attack, "seed": str(seed)},
        Path(),
        {"malicious": int(attack != "none"), "seed": seed},
        {"test": {"final": {"accuracy": 1 - error, "wasserstein": wasserstein}}},
    )


def made(errors: dict[str, list[float]], rhos: dict[str, list[float]]) -> SweepRecords:
    groups = tuple(
        Group(("mean", name), tuple(cell(i, name, e, r) for i, (e, r) in enumerate(pairs)))
        for name, pairs in ((n, list(zip(errors[n], rhos[n], strict=True))) for n in errors)
    )
    return SweepRecords(Path(), "made", ("rule", "attack"), groups, (), {})


def test_a_grid_without_an_axis_of_seeds_is_paired_by_its_seed() -> None:
    """A list of grids may have one with seeds, and one without, whose cells have seed 0."""
    errors = {"none": [0.1, 0.2, 0.3], "flip": [0.3, 0.4, 0.6], "noise": [0.1, 0.2, 0.4]}
    records = made(errors, {name: [0.5, 0.5, 0.5] for name in errors})
    whole = paired(records)
    groups = []
    for group in records.groups:
        first = group.cells[0]
        labels = {axis: label for axis, label in first.labels.items() if axis != "seed"}
        groups.append(replace(group, cells=(replace(first, labels=labels), *group.cells[1:])))
    heads, rows = paired(replace(records, groups=tuple(groups)))
    assert heads == whole[0]
    assert [texts for _, texts in rows] == [texts for _, texts in whole[1]]


def test_attacks_are_compared_seed_by_seed() -> None:
    """By hand: differences −.02, −.04, −.06 have mean −.04, deviation .02, t(2) = 4.303."""
    errors = {
        "none": [0.9, 0.9, 0.9],
        "best": [0.10, 0.30, 0.50],
        "worse": [0.08, 0.26, 0.44],
        "alike": [0.12, 0.28, 0.49],
        "rare": [0.9, 0.9],
    }
    rhos = {name: [0.5] * len(e) for name, e in errors.items()} | {"alike": [0.1, 0.1, 0.1]}
    heads, rows = paired(made(errors, rhos))
    assert heads[0] == "error, against no attack"
    assert heads[1:] == ["error, against the greatest", "ρ̂, against the least"]
    calm = {group.labels[1]: texts.pop(0) for group, texts in rows}
    assert calm["alike"].startswith("-60.3 (")
    found = {group.labels[1]: texts for group, texts in rows}
    assert set(found) == {"best", "worse", "alike"}
    half = 4.30265 * 0.02 / 3**0.5
    low, high = 100 * (-0.04 - half), 100 * (-0.04 + half)
    assert found["worse"][0] == f"-4.0 ({low:+.1f} to {high:+.1f}), a tie"
    assert found["best"] == ["reference", "+0.400 (+0.400 to +0.400)"]
    assert found["alike"][0].endswith(", a tie")
    assert found["alike"][1] == "reference"
    assert of_mean([-0.02, -0.04, -0.06]) == pytest.approx((-0.04, half), rel=1e-4)
    errors["worse"] = [0.05, 0.26, 0.44]
    steady = {"best": [0.1, 0.3, 0.5], "worse": [0.05, 0.25, 0.449]}
    _, rows = paired(made(steady, {n: [0.5] * 3 for n in steady}))
    assert "tie" not in {g.labels[1]: t for g, t in rows}["worse"][0]


def test_the_config_may_name_the_attack_that_the_others_are_compared_with() -> None:
    errors = {"none": [0.1] * 3, "a": [0.5, 0.6, 0.7], "b": [0.4, 0.5, 0.6], "c": [0.4, 0.5, 0.8]}
    rhos = {name: [0.5] * 3 for name in errors} | {"b": [0.1, 0.2, 0.3]}
    records = replace(made(errors, rhos), reference="b")
    heads, rows = paired(records)
    assert heads[3:] == ["error, against b", "ρ̂, against b"]
    found = {group.labels[1]: texts[3:] for group, texts in rows}
    assert found["b"] == ["reference", "reference"]
    assert found["a"][0] == "+10.0 (+10.0 to +10.0)"
    half = 4.30265 * 0.1 / 3**0.5  # ρ̂ is above b's by 0.4, 0.3, 0.2
    assert found["a"][1] == f"+0.300 (+{0.3 - half:.3f} to +{0.3 + half:.3f})"
    assert found["c"][0].endswith(", a tie")
    assert paired(replace(records, reference="none"))[0] == heads[:3]


def test_a_lead_by_a_model_that_blew_up_has_no_interval() -> None:
    errors = {"a": [0.5, 0.5, 0.5], "b": [0.4, 0.4, 0.5]}
    _, rows = paired(made(errors, {"a": [math.inf, 1.0, 1.0], "b": [0.9, 0.9, 0.9]}))
    assert {g.labels[1]: t for g, t in rows}["a"] == ["reference", "–"]


def test_one_attack_alone_is_compared_with_none() -> None:
    errors = {"none": [0.02, 0.02, 0.03], "fang": [0.025, 0.024, 0.033], "few": [0.9, 0.9]}
    heads, rows = paired(made(errors, {name: [1.0] * len(e) for name, e in errors.items()}))
    assert heads == ["error, against no attack"]
    ((group, texts),) = rows
    half = 4.30265 * 0.1 / 3**0.5  # 0.5, 0.4 and 0.3 points
    assert group.labels == ("mean", "fang")
    assert texts == [f"+0.4 (+{0.4 - half:.1f} to +{0.4 + half:.1f})"]
    assert "The first column compares with no attack. The next columns" in caption(heads)


def test_the_caption_names_no_column_that_is_not_there() -> None:
    errors = {"a": [0.1] * 3, "b": [0.2] * 3}
    heads, _ = paired(made(errors, {name: [0.5] * 3 for name in errors}))
    assert heads == ["error, against the greatest", "ρ̂, against the least"]
    assert "no attack" not in caption(heads)


def test_two_seeds_are_not_enough_for_an_interval() -> None:
    errors = {"a": [0.5, 0.5], "b": [0.4, 0.4]}
    assert paired(made(errors, {"a": [1.0, 1.0], "b": [1.0, 1.0]}))[1] == []


def test_the_reference_has_all_seeds_of_its_panel() -> None:
    """Over its three seeds ``few`` has the least mean, and on these seeds ``whole`` has less."""
    errors = {"few": [0.1] * 3, "whole": [0.1] * 5}
    rhos = {"few": [0.2, 0.2, 0.2], "whole": [0.1, 0.1, 0.1, 0.9, 0.9]}
    heads, rows = paired(made(errors, rhos))
    found = {group.labels[1]: dict(zip(heads, texts, strict=True)) for group, texts in rows}
    assert found["whole"]["ρ̂, against the least"] == "reference"
    assert found["few"]["ρ̂, against the least"] == "+0.100 (+0.100 to +0.100)"


def test_a_difference_over_fewer_seeds_says_over_how_many() -> None:
    errors = {"none": [0.1] * 3, "a": [0.2] * 5}
    heads, rows = paired(made(errors, {name: [0.5] * len(e) for name, e in errors.items()}))
    ((_, texts),) = rows
    assert heads[0] == "error, against no attack"
    assert texts[0] == "+10.0 (+10.0 to +10.0) over 3 seeds"
