"""A grid is the cells that it says, and what is wrong with it is told before anything runs."""

import json
from pathlib import Path
from typing import Any

import pytest
from cells_here import in_this_process
from demo import demo_config
from ruamel.yaml import YAML

from fedrobust.aggregators import Krum, Median
from fedrobust.attacks import ALittleIsEnough
from fedrobust.errors import ConfigError, OverrideWarning
from fedrobust.runs.grid import load_sweep
from fedrobust.runs.sweep import run_sweep

GRID: dict[str, Any] = {
    "rule": {
        "none": {"aggregator": {"name": "mean"}},
        "median": {"aggregator": {"name": "median"}},
    },
    "attack": {"none": {"malicious": 0}, "alie": {"malicious": 2, "attack.k": -1.5}},
    "seed": [0, 1],
}


def write(path: Path, grid: Any, **changes: Any) -> Path:
    config = demo_config(**{"rounds": 2} | changes) | ({} if grid is None else {"grid": grid})
    path.write_text(json.dumps(config))  # which is YAML too
    return path


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return write(tmp_path / "sweep.yaml", GRID)


def test_the_cells_are_all_combinations(config: Path) -> None:
    sweep = load_sweep(config, ["rounds=3"])
    names = [cell.name for cell in sweep.cells]
    assert names[:3] == ["none-none-0", "none-none-1", "none-alie-0"]
    assert len(names) == 8
    assert sweep.axes == {
        "rule": ("none", "median"),
        "attack": ("none", "alie"),
        "seed": ("0", "1"),
    }
    cell = sweep.cells[7]
    assert cell.labels == {"rule": "median", "attack": "alie", "seed": "1"}
    experiment = cell.experiment
    assert (experiment.seed, experiment.malicious, experiment.rounds) == (1, 2, 3)
    assert experiment.attack.k == -1.5  # type: ignore[union-attr]
    assert experiment.aggregator.name == "median"  # type: ignore[attr-defined]
    assert experiment.name == "tiny-median-alie-1"
    assert sweep.cells[0].experiment.attack.k == -1.0, "cells do not share their configs"  # type: ignore[union-attr]


def test_a_list_of_grids_is_the_cells_of_each(tmp_path: Path) -> None:
    two = [{"malicious": [0, 1], "seed": [5]}, {"client.optimizer.lr": [0.1], "seed": [5, 6]}]
    sweep = load_sweep(write(tmp_path / "two.yaml", two, attack={"name": "sign-flip"}))
    assert [cell.name for cell in sweep.cells] == ["0-5", "1-5", "0.1-5", "0.1-6"]


BAD: dict[str, tuple[Any, str]] = {
    "no grid": (None, r"with a grid: key"),
    "empty": ({}, r"grid must map axes to choices"),
    "no choices": ({"seed": []}, r"grid\.seed: has no choices"),
    "scalar": ({"seed": 3}, r"grid\.seed: must be a list of values, or a mapping"),
    "twice": ({"seed": [1, 1]}, r"grid\.seed: '1' cannot name a choice"),
    "label": ({"seed": {"a/b": {"seed": 1}}}, r"'a/b' cannot name a choice"),
    "keys": ({"seed": {"a": 1}}, r"grid\.seed\.a: must map dotted keys to values"),
    "no such key": ({"sead": [1]}, r"cell 1: sead: unknown key \(did you mean 'seed'"),
    "wrong value": ({"seed": [0, -1]}, r"'-1' cannot name a choice"),
    "unfit": ({"malicious": [2, 12]}, r"cell 12: malicious is 12, but there are 11 clients"),
    "one place twice": (
        [{"malicious": [0]}, {"malicious": [0], "seed": [0, 1]}],
        r"the cells 0 and 0-0 are the same run",
    ),
    "same cells": ([{"seed": [1]}, {"rounds": [1]}], r"two cells are called 1"),
    "overlap": (
        {"aggregator": [{"name": "krum", "f": 2}], "aggregator.f": [1, 2]},
        r"grid\.aggregator and grid\.aggregator\.f both set aggregator\.f",
    ),
    "twice set": (
        {"seed": [1], "other": {"a": {"seed": 2}}},
        r"grid\.seed and grid\.other both set seed",
    ),
    "step": ({"rounds.x": [1]}, r"rounds is 2, which has no keys"),
}


@pytest.mark.parametrize("case", BAD.values(), ids=BAD)
def test_a_wrong_grid_is_refused_before_anything_runs(
    case: tuple[Any, str], tmp_path: Path
) -> None:
    grid, message = case
    with pytest.raises(ConfigError, match=message):
        load_sweep(write(tmp_path / "bad.yaml", grid))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed=7", r"-s seed: grid\.seed sets it in every cell, and would undo this"),
        ("aggregator.f=1", r"-s aggregator\.f: grid\.rule sets it in every cell"),
        ("aggregator={name: krum, f: 1}", r"-s aggregator\.name: grid\.rule sets it in every"),
    ],
)
def test_an_override_that_the_grid_would_undo_is_refused(
    config: Path, override: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        load_sweep(config, [override])


def test_an_override_that_the_grid_builds_on_is_kept(config: Path) -> None:
    with pytest.warns(OverrideWarning, match=r"-s attack\.k: grid\.attack sets it in some of the"):
        sweep = load_sweep(config, ["attack={name: a-little-is-enough, k: -2, of: gradients}"])
    found = {cell.labels["attack"]: cell.experiment.attack for cell in sweep.cells}
    assert found["none"] == ALittleIsEnough(k=-2.0, of="gradients")
    assert found["alie"] == ALittleIsEnough(k=-1.5, of="gradients")


def test_seeds_of_the_data_are_other_runs(tmp_path: Path) -> None:
    seeds = {"a": {"data.seed": 0}, "b": {"data.seed": 1}}
    ring = {"name": "synthetic-ring", "n": 300, "test": 60, "validation": 60}
    box = {"name": "pgd", "norm": "l2", "eps": 0.1, "step_size": 0.1, "steps": 1, "box": False}
    changes = {"data": ring, "model": {"name": "ring-mlp"}, "objective": {"name": "erm"}}
    changes |= {"evaluation": {"every": 1, "attack": box}}
    path = write(tmp_path / "data.yaml", {"seed": seeds}, **changes)
    assert [cell.name for cell in load_sweep(path).cells] == ["a", "b"]


def test_the_reference_is_one_of_the_attacks(tmp_path: Path) -> None:
    assert load_sweep(write(tmp_path / "a.yaml", GRID)).reference is None
    named = load_sweep(write(tmp_path / "a.yaml", GRID, reference="alie"))
    assert named.reference == "alie"
    assert load_sweep(write(tmp_path / "a.yaml", GRID), ["reference=none"]).reference == "none"
    with pytest.raises(ConfigError, match=r"reference: aly is no choice of .* \(none, alie\)"):
        load_sweep(write(tmp_path / "b.yaml", GRID, reference="aly"))
    with pytest.raises(ConfigError, match=r"the axis attack \(this grid has none\)"):
        load_sweep(write(tmp_path / "c.yaml", {"seed": [0]}, reference="alie"))


def test_every_wrong_cell_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        load_sweep(write(tmp_path / "bad.yaml", {"aggregator.f": [2, 3, 4]}))
    assert "cell 3: " in str(raised.value)
    assert "cell 4: " in str(raised.value)
    assert "cell 2: " not in str(raised.value)


def test_a_component_named_alone_is_told_what_to_write_and_that_works(tmp_path: Path) -> None:
    grid = {"aggregator": ["median", "krum"], "malicious": [0, 1], "client.optimizer": ["sgd"]}
    with pytest.raises(ConfigError) as raised:
        load_sweep(write(tmp_path / "alone.yaml", grid))
    lines = str(raised.value).splitlines()
    (rule,) = [line for line in lines if line.endswith(" in grid.aggregator, a mapping of labels")]
    written = YAML(typ="safe").load(rule.removeprefix("write ").partition(" in grid.")[0])
    assert written == {"krum": {"aggregator": {"name": "krum", "f": 1}}}  # as many as attack
    optimizer = "write sgd: {client.optimizer: {name: sgd, lr: ...}} in grid.client.optimizer, "
    assert f"{optimizer}a mapping of labels" in lines
    grid = {"aggregator": {"median": {"aggregator": "median"}} | written}
    cells = load_sweep(write(tmp_path / "full.yaml", grid)).cells
    assert [cell.experiment.aggregator for cell in cells] == [Median(), Krum(1)]


def test_a_name_is_required(tmp_path: Path) -> None:
    path = tmp_path / "nameless.yaml"
    path.write_text("rounds: 1\ngrid: {seed: [0]}\n")
    with pytest.raises(ConfigError, match="name: is required"):
        load_sweep(path)


def test_an_alias_is_a_copy(tmp_path: Path) -> None:
    """Setting one of two places that a YAML alias ties together leaves the other alone."""
    config = demo_config(grid={"evaluation.attack.eps": [0.1, 0.3]})
    attack = json.dumps(config["objective"]["attack"])
    text = json.dumps(config).replace(attack, "*a")
    path = tmp_path / "alias.yaml"
    path.write_text(text.replace("*a", f"&a {attack}", 1).replace("*a}", "*a }"))
    for cell, eps in zip(load_sweep(path).cells, (0.1, 0.3), strict=True):
        assert cell.experiment.evaluation.attack.eps == eps  # type: ignore[attr-defined]
        assert cell.experiment.objective.attack.eps == 0.15  # type: ignore[attr-defined]


def test_an_infinite_price_and_whole_number_keys_can_be_recorded(tmp_path: Path) -> None:
    path = tmp_path / "infinite.yaml"
    plain = json.dumps(demo_config(rounds=1, malicious=0))[:-1]
    path.write_text(
        plain
        + ', "grid": {"price": {1: {"objective": {"name": "wasserstein-dro", "gamma": .inf}}}}}'
    )
    out = tmp_path / "out"
    with in_this_process():
        assert run_sweep(load_sweep(path), out) == {}
        assert run_sweep(load_sweep(path), out, resume=True) == {}


def test_a_problem_of_several_cells_is_told_once(tmp_path: Path) -> None:
    """What every cell has is said of every cell; else the first three are named."""
    rules = {"none": {"aggregator": "mean"}, "krum": {"aggregator": "krum"}}
    grid = {"rule": rules, "seed": [0, 1, 2, 3]}
    path = write(tmp_path / "s.yaml", grid, objective={"name": "ermm"}, malicious=2)
    with pytest.raises(ConfigError) as caught:
        load_sweep(path)
    said = str(caught.value).split("\n")
    assert said[1].startswith("every cell: objective: unknown objective 'ermm'")
    assert said[2].startswith("cells krum-0, krum-1, krum-2 and 1 more: aggregator: krum alone")
    cure = "write krum: {aggregator: {name: krum, f: 2}} in grid.rule, a mapping of labels"
    assert said[3] == cure
    assert len(said) == 4
