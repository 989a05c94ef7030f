"""The maps of a sweep: any two axes, the seeds' spread in each cell, outliers named."""

import math
from typing import Any

import pytest
from made_sweep import CROSSED, Audits, Robust, made

from fedrobust.report.sweep.columns import table
from fedrobust.report.sweep.heat_map import LEVELS, heat_maps, ramp
from fedrobust.report.sweep.records import SweepCell, SweepRecords, Unfinished
from fedrobust.report.sweep.rows import rows


def no_link(_: SweepCell) -> str | None:
    return None


def whole(records: SweepRecords) -> SweepRecords:
    """The same with an accuracy of each cell, which a map needs."""
    for cell in records.cells:
        cell.final["accuracy"] = 0.9  # type: ignore[index]
    return records


def maps_of(records: SweepRecords) -> dict[str, Any]:
    return heat_maps(whole(records), no_link)


def at(found: dict[str, Any], side: str, top: str, which: int = 0) -> dict[str, Any]:
    body = dict(found["maps"][which]["body"])
    cell: dict[str, Any] = body[side][found["maps"][which]["tops"].index(top)]
    return cell


def test_a_cell_has_the_median_and_the_range_over_the_seeds() -> None:
    found = maps_of(made(CROSSED))
    (shown,) = found["maps"]
    assert (shown["rows"], shown["columns"]) == ("attack", "rule")  # the longer axis makes the rows
    assert shown["tops"] == ["mean", "krum"]
    assert shown["spread"] == "the seeds"
    value = at(found, "alie", "mean")["shown"][0]
    assert (value["value"], value["range"]) == ("11.0", "10.0 to 12.0")
    names = [measure["name"] for measure in found["measures"]]
    assert names == ["robust accuracy", "accuracy", "error"]


def test_light_is_better_whatever_is_shown() -> None:
    records = made(CROSSED)
    for cell in records.cells:
        cell.final["accuracy"] = cell.final["robust_accuracy"]  # type: ignore[index]
    found = heat_maps(records, no_link)
    best, worst = (at(found, *place)["shown"] for place in (("none", "mean"), ("alie", "mean")))
    for measure in range(3):  # robust accuracy, accuracy, error
        assert (best[measure]["level"], worst[measure]["level"]) == (LEVELS - 1, 0)
    error = found["measures"][2]
    assert (error["dark"], error["light"]) == ("89.0\u202f%", "44.5\u202f%")


def test_three_axes_make_three_maps_and_say_what_is_pooled() -> None:
    robust = {(r, a, lr): [0.5] for r in "xy" for a in "pqr" for lr in ("1", "2")}
    robust["x", "p", "2"] = [0.9]
    found = maps_of(made(robust, ("rule", "attack", "lr")))
    assert [(m["rows"], m["columns"]) for m in found["maps"]] == [
        ("attack", "rule"),
        ("rule", "lr"),
        ("attack", "lr"),
    ]
    assert found["maps"][0]["spread"] == "lr"
    value = at(found, "p", "x")["shown"][0]
    assert (value["value"], value["range"]) == ("70.0", "50.0 to 90.0")


def test_one_axis_or_none_is_shown_seed_by_seed() -> None:
    one = maps_of(made({("0.1",): [0.5, 0.6], ("0.2",): [0.7, 0.8]}, ("rate",)))
    assert (one["maps"][0]["rows"], one["maps"][0]["columns"]) == ("rate", "seed")
    assert at(one, "0.1", "1")["shown"][0]["value"] == "60.0"
    assert one["maps"][0]["spread"] == ""
    none = maps_of(made({(): [0.5, 0.6]}, ()))
    assert at(none, "", "1")["shown"][0]["value"] == "60.0"


def test_a_place_that_is_not_finished_says_why() -> None:
    records = made(CROSSED, missing=("krum-zero-0", "mean-zero-0", "krum-flip-2"))
    places = {"krum-zero-0": "no memory", "mean-zero-0": None}
    for name, why in places.items():
        rule, attack, _ = name.split("-")
        records.unfinished[name] = Unfinished(  # type: ignore[index]
            {"rule": rule, "attack": attack, "seed": "0"}, True, why
        )
    more = {"rule": "krum", "attack": "flip", "seed": "2"}
    records.unfinished["krum-flip-2"] = Unfinished(more)  # type: ignore[index]
    found = maps_of(records)
    assert at(found, "zero", "krum")["word"] == "failed"
    assert at(found, "zero", "mean")["word"] == "not finished"
    assert at(found, "flip", "krum")["word"] == "2 of 3"
    assert at(found, "none", "krum")["word"] == ""


@pytest.mark.parametrize("far", [2000.0, math.inf])
def test_an_outlier_is_named_and_leaves_the_colours_to_the_others(far: float) -> None:
    records = whole(made(CROSSED))
    for i, cell in enumerate(records.cells):
        rho = far if cell.labels["attack"] == "alie" and cell.labels["rule"] == "mean" else i / 100
        cell.final["wasserstein"] = {"rho": rho}  # type: ignore[index]
    found = heat_maps(records, no_link)
    names = [measure["name"] for measure in found["measures"]]
    measure = names.index("ρ̂")
    assert at(found, "alie", "mean")["shown"][measure]["beyond"]
    levels = {
        at(found, attack, rule)["shown"][measure]["level"]
        for rule, attack in CROSSED
        if (rule, attack) != ("mean", "alie")
    }
    assert {0, LEVELS - 1} <= levels
    assert found["measures"][measure]["far"] == [f"alie, mean ({'2,000' if far < 1e9 else 'inf'})"]


def test_text_is_readable_on_every_colour() -> None:
    def light(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return sum(a * b for a, b in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    assert len(ramp()) == LEVELS
    for colour, ink in ramp():
        dark, bright = sorted(map(light, (colour, ink)))
        assert (bright + 0.05) / (dark + 0.05) > 4.5, colour


def test_the_audited_share_is_shown_first_where_all_cells_have_one_with_its_verdicts() -> None:
    places: Robust = {("a", "x"): [0.9, 0.8], ("b", "x"): [0.7, 0.6]}
    audits: dict[tuple[str, ...], list[tuple[str, float]]] = {
        ("a", "x"): [("masked", 0.1), ("genuine", 0.5)],
        ("b", "x"): [("inconclusive", 0.4), ("inconclusive", 0.4)],
    }
    found = heat_maps(made(places, audits=audits), no_link)
    names = [measure["name"] for measure in found["measures"]]
    assert names[:2] == ["true robust accuracy", "robust accuracy"]
    assert "withstand every attack" in found["measures"][0]["meaning"]
    true, plain, accuracy = at(found, "a", "x")["shown"][:3]
    assert (true["value"], plain["value"]) == ("30.0", "85.0")
    assert (true["doubt"], plain["doubt"], accuracy["doubt"]) == ("1 of 2 masked",) * 2 + ("",)
    assert at(found, "b", "x")["shown"][0]["doubt"] == "inconclusive"
    del audits["b", "x"]
    found = heat_maps(made(places, audits=audits), no_link)
    names = [measure["name"] for measure in found["measures"]]
    assert names[:2] == ["robust accuracy", "true robust accuracy"]
    assert at(found, "b", "x")["shown"][1] is None


def test_the_table_counts_the_verdicts() -> None:
    places: Robust = {("a", "x"): [0.9, 0.8, 0.7]}
    audits: Audits = {("a", "x"): [("masked", 0.1), ("inconclusive", 0.5), ("inconclusive", 0.5)]}
    records = made(places, audits=audits)
    names, lines = table(records)
    found = rows(records, names, lines, no_link)
    assert found["heads"][:2] == ["audit: robust", "robust accuracy"]
    texts = dict(zip(found["heads"], (v["text"] for v in found["body"][0]["values"]), strict=True))
    counted = {name: texts[f"audit: {name}"] for name in ("genuine", "inconclusive", "masked")}
    assert counted == {"genuine": "0", "inconclusive": "2", "masked": "1"}
