"""The published figures, and which of the committed runs belong to each."""

import pytest

from fedrobust.records import published
from fedrobust.records.published import at, tables
from fedrobust.runs.reproduce import SCALES, known, load_reproduction


def test_values_are_found_by_dotted_keys() -> None:
    config = {"a": {"b": [{"c": 3}]}, "d": None}
    keys = ("a.b.0.c", "a.b.1.c", "d", "d.e", "x")
    assert [at(config, key) for key in keys] == [3, *[None] * 4]


RULES = ("no rule, no attack", "trimmed mean, no attack", "Bulyan, no attack", "Krum, no attack")
BROKEN = ("trimmed mean, convergence", "Bulyan, convergence")
MNIST = {f"MNIST, {place}" for place in (*RULES, *BROKEN)}
KRUM = {"MNIST, Krum, distillation"}
BOTH = {
    f"{data}, {how}" for data in ("MNIST", "Fashion-MNIST") for how in ("centralised", "51 clients")
}
ALL = {
    label.replace("MNIST", data) for label in MNIST | KRUM for data in ("MNIST", "Fashion-MNIST")
}
PLAYED = {
    ("fat-table1", "smoke"): {"MNIST, centralised", "MNIST, 51 clients"},
    ("fat-table1", "cpu"): BOTH | {"CIFAR-10, centralised", "CIFAR-10, 51 clients"},
    ("fat-table1", "paper"): BOTH | {"CIFAR-10, centralised", "CIFAR-10, 51 clients"},
    ("fat-table2", "smoke"): {"FedAvg", "FAT-0.8"},
    ("fat-table2", "paper"): {"FedAvg", "FAT-0.5", "FAT-0.8", "Cent-AT"},
    ("fat-table2", "cpu"): {"FedAvg", "FAT-0.5", "FAT-0.8", "Cent-AT"},
    ("fat-sensitivity", "cpu"): set[str](),
    ("fat-table3", "smoke"): MNIST | KRUM,
    ("fat-table3", "cpu"): ALL,
    ("fat-table3", "paper"): ALL,
}


@pytest.mark.slow
def test_every_committed_scale_loads_and_no_place_is_published_twice() -> None:
    definitions = known()
    assert set(definitions) >= {"fat-table2", "fat-table3"}
    for name, definition in definitions.items():
        rows = tables(definition.paper).get(definition.table, ())
        for scale in (scale for scale in SCALES if scale in definition.scales):
            played = set[str]()
            for sweep in load_reproduction(name, scale).sweeps.values():
                for cell in sweep.cells:
                    fits = [row.label for row in rows if row.fits(cell.config)]
                    assert len(fits) <= 1, (name, scale, cell.name, fits)
                    played |= set(fits)
            assert played == PLAYED[name, scale]


def test_the_published_figures_are_the_papers() -> None:
    """A few by hand, and how many there are."""
    fat = tables("fat")
    assert {name: len(rows) for name, rows in fat.items()} == {
        "table-1": 6,
        "table-2": 4,
        "table-3": 14,
    }
    by_label = {row.label: row.figures for rows in fat.values() for row in rows}
    assert by_label["FedAvg"] == {"accuracy": 0.8261, "robust_accuracy": 0.0}
    assert by_label["Fashion-MNIST, Krum, distillation"] == pytest.approx(
        {"accuracy": 0.7733, "robust_accuracy": 0.6741, "logit_scaled": 0.0419, "transfer": 0.3374}
    )
    assert tables("no-such-paper") == {}


def test_another_objective_has_no_place_among_adversarial_training() -> None:
    """Krum without an attack on MNIST, by distributionally robust training or without any."""
    rows = [row for table in ("table-1", "table-3") for row in tables("fat")[table]]
    config = {"data": {"name": "mnist"}, "aggregator": {"name": "krum"}, "attack": None}
    fits = {
        name: [row.label for row in rows if row.fits(config | {"objective": {"name": name}})]
        for name in ("adversarial", "wasserstein-dro", "erm")
    }
    assert fits == {
        "adversarial": ["MNIST, Krum, no attack"],
        "wasserstein-dro": [],
        "erm": [],
    }


def test_a_schedule_is_told_in_words() -> None:
    steps = ((0.1, 50), (0.5, 1300), (0.8, None))
    phases = [{"value": value, "until": until} for value, until in steps]
    row = published.Published("p", "t", "l", {}, {"objective.ratio": 0.5, "seed": 1})
    found = row.differences({"objective": {"ratio": phases}, "seed": 1})
    assert found == ["objective.ratio: 0.1 to round 50, 0.5 to round 1,300, then 0.8 (0.5)"]
