"""Overrides: a component by its name, and what another name takes from the block that was there."""

import warnings
from pathlib import Path
from typing import Any

import pytest
from demo import demo_config
from ruamel.yaml import YAML
from typer.testing import CliRunner

from fedrobust.aggregators import Bulyan, CenteredClipping, Krum, Mean, MultiKrum
from fedrobust.attacks import ALittleIsEnough, Delayed, Jittered, Shrink, SignFlip
from fedrobust.cli import app
from fedrobust.clients.optimizers import Adam, Sgd
from fedrobust.data import Digits
from fedrobust.errors import ConfigError, OverrideWarning
from fedrobust.experiment import Experiment, load
from fedrobust.runs.grid import load_sweep

DELAYED = {"name": "delayed", "start": 3, "attack": {"name": "a-little-is-enough", "k": -1.0}}


def written(tmp_path: Path, **changes: Any) -> Path:
    path = tmp_path / "config.yaml"
    YAML(typ="safe", pure=True).dump(demo_config(**changes), path)
    return path


def loaded(tmp_path: Path, *overrides: str, **changes: Any) -> Experiment:
    return load(written(tmp_path, **changes), overrides)


def test_a_name_alone_replaces_the_block(tmp_path: Path) -> None:
    assert loaded(tmp_path, "aggregator=mean").aggregator == Mean()
    assert loaded(tmp_path, aggregator="mean").aggregator == Mean()
    assert loaded(tmp_path, "data=digits", partition="by-writer").data == Digits()
    with pytest.raises(ConfigError, match=r"aggregator: krum alone leaves out f: .*name: krum"):
        loaded(tmp_path, "aggregator=krum")
    assert loaded(tmp_path, "aggregator=krum", "aggregator.f=1").aggregator == Krum(1)


@pytest.mark.parametrize("given", ["rounds=1", {"rounds": 1}])
def test_overrides_are_a_list(tmp_path: Path, given: Any) -> None:
    with pytest.raises(ConfigError, match=r'a list of texts, such as \["rounds=1"\]'):
        load(written(tmp_path), given)


def test_another_name_drops_what_it_does_not_have_and_says_so(tmp_path: Path) -> None:
    with pytest.warns(OverrideWarning) as told:
        assert loaded(tmp_path, "aggregator.name=mean").aggregator == Mean()
    assert [str(w.message) for w in told] == [
        "aggregator.name=mean: dropped f of bulyan, which mean does not have"
    ]
    assert told[0].filename == __file__


def test_what_both_have_stays(tmp_path: Path) -> None:
    """And nothing is said, as nothing is dropped."""
    assert loaded(tmp_path, "aggregator.name=multi-krum").aggregator == MultiKrum(2)


def test_the_same_name_drops_nothing(tmp_path: Path) -> None:
    assert loaded(tmp_path, "aggregator.name=bulyan").aggregator == Bulyan(2)
    with pytest.raises(ConfigError, match=r"aggregator\.ff: unknown key .did you mean 'f'"):
        loaded(tmp_path, "aggregator.name=bulyan", aggregator={"name": "bulyan", "f": 2, "ff": 1})


@pytest.mark.parametrize(
    "overrides",
    [
        ("aggregator.f=1", "aggregator.name=mean"),
        ("aggregator.name=mean", "aggregator.f=1"),
        ("aggregator={name: bulyan, f: 1}", "aggregator.name=mean"),
    ],
    ids=["before", "after", "within"],
)
def test_a_key_that_another_override_gives_is_never_dropped(
    tmp_path: Path, overrides: tuple[str, ...]
) -> None:
    with pytest.raises(ConfigError, match=r"aggregator\.f: unknown key; allowed here: name"):
        loaded(tmp_path, *overrides)


def test_of_two_overrides_of_one_key_the_last_counts(tmp_path: Path) -> None:
    rule = loaded(tmp_path, "aggregator.name=mean", "aggregator.name=multi-krum").aggregator
    assert rule == MultiKrum(2)


def test_at_any_depth(tmp_path: Path) -> None:
    with pytest.warns(OverrideWarning, match=r"attack\.attack\.name=shrink: dropped k of a-little"):
        inner = loaded(tmp_path, "attack.attack.name=shrink", attack=DELAYED).attack
    assert inner == Delayed(Shrink(), 3)
    outer = ("attack.name=jittered", "attack.radius=0.5")
    with pytest.warns(OverrideWarning, match=r"attack\.name=jittered: dropped start of delayed"):
        assert loaded(tmp_path, *outer, attack=DELAYED).attack == Jittered(
            ALittleIsEnough(-1.0), 0.5
        )
    adam = demo_config()["client"] | {"optimizer": {"name": "adam", "lr": 0.5, "eps": 0.1}}
    with pytest.warns(OverrideWarning, match=r"client\.optimizer\.name=sgd: dropped eps of adam"):
        assert loaded(tmp_path, "client.optimizer.name=sgd", client=adam).client.optimizer == Sgd(
            0.5
        )
    with pytest.warns(OverrideWarning, match=r"objective\.attack\.name=fab: dropped step_size of "):
        objective = loaded(tmp_path, "objective.attack.name=fab").objective
    assert objective.attack.name == "fab"  # type: ignore[attr-defined]


def test_a_block_that_is_a_name_or_nothing_takes_keys(tmp_path: Path) -> None:
    assert loaded(tmp_path, "aggregator.f=1", aggregator="krum").aggregator == Krum(1)
    without = {"attack": None, "malicious": 0}
    assert loaded(tmp_path, "attack.name=sign-flip", **without).attack == SignFlip()
    measured = loaded(
        tmp_path, "evaluation.wasserstein.samples=7", "evaluation.wasserstein.gamma=1"
    )
    assert measured.evaluation.wasserstein is not None
    assert measured.evaluation.wasserstein.samples == 7
    with pytest.raises(ConfigError, match=r"rounds\.of: rounds is 6, which has no keys"):
        loaded(tmp_path, "rounds.of=3")


def test_a_part_without_a_name_has_the_name_of_its_default(tmp_path: Path) -> None:
    learned = {"attack": {"name": "learned", "encoding": {"budget": 5.0, "directions": ["own"]}}}
    threat = {"threat": {"rule": True, "clients": True}}
    with pytest.warns(OverrideWarning, match=r"dropped directions of basis, which full does not"):
        attack = loaded(tmp_path, "attack.encoding.name=full", **learned, **threat).attack
    assert (attack.encoding.name, attack.encoding.budget) == ("full", 5.0)  # type: ignore[union-attr]


OWN = """
class Clipped:
    def __init__(self, radius=1.0):
        self.radius = radius
    def aggregate(self, updates, context):
        raise NotImplementedError
"""


def test_a_class_of_ones_own_gets_nothing_of_another_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "overriding_rules.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    clipping = {"name": "centered-clipping", "radius": 0.5, "iterations": 2}
    name = "aggregator.name=overriding_rules:Clipped"
    with pytest.warns(OverrideWarning, match=r"dropped iterations, radius of centered-clipping$"):
        assert loaded(tmp_path, name, aggregator=clipping).aggregator.radius == 1.0  # type: ignore[attr-defined]
    with pytest.warns(OverrideWarning, match="dropped iterations of"):
        rule = loaded(
            tmp_path, name, "aggregator.radius=3.0", aggregator=clipping | {"radius": 2}
        ).aggregator
    assert rule.radius == 3.0  # type: ignore[attr-defined]
    own = {"name": "overriding_rules:Clipped", "radius": 0.5}
    back = loaded(tmp_path, "aggregator.name=centered-clipping", aggregator=own).aggregator
    assert back == CenteredClipping(0.5)


def test_a_name_that_is_none_drops_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown aggregator 'bullyan' .did you mean 'bulyan'"):
        loaded(tmp_path, "aggregator.name=bullyan")


def test_an_optimizer_of_another_name_keeps_the_rate(tmp_path: Path) -> None:
    sgd = demo_config()["client"] | {"optimizer": {"name": "sgd", "lr": 0.5}}
    assert loaded(tmp_path, "client.optimizer.name=adam", client=sgd).client.optimizer == Adam(0.5)


def swept(tmp_path: Path, grid: Any, *overrides: str) -> dict[str, Experiment]:
    sweep = load_sweep(written(tmp_path, grid=grid), overrides)
    return {cell.name: cell.experiment for cell in sweep.cells}


def test_an_axis_of_names(tmp_path: Path) -> None:
    """Each name that drops something says so once, however many cells it has."""
    grid = {"aggregator.name": ["bulyan", "mean", "multi-krum"], "seed": [0, 1, 2]}
    with pytest.warns(OverrideWarning) as told:
        cells = swept(tmp_path, grid)
    assert [str(w.message) for w in told] == [
        "aggregator.name=mean: dropped f of bulyan, which mean does not have"
    ]
    rules = [cells[f"{name}-1"].aggregator for name in grid["aggregator.name"]]
    assert rules == [Bulyan(2), Mean(), MultiKrum(2)]


def test_an_axis_of_names_alone(tmp_path: Path) -> None:
    cells = swept(tmp_path, {"aggregator": ["mean", {"name": "krum", "f": 2}]})
    assert [each.aggregator for each in cells.values()] == [Mean(), Krum(2)]


def test_a_choice_that_gives_a_key_keeps_it(tmp_path: Path) -> None:
    choices = {"mean": {"aggregator.name": "mean", "aggregator.f": 2}}
    with pytest.raises(ConfigError, match=r"cell mean: aggregator\.f: unknown key"):
        swept(tmp_path, {"rule": choices})
    with pytest.raises(ConfigError, match=r"cell mean: aggregator\.f: unknown key"):
        swept(tmp_path, {"rule": {"mean": {"aggregator.name": "mean"}}}, "aggregator.f=2")


def test_the_command_prints_a_warning_as_one_line(tmp_path: Path) -> None:
    path = written(tmp_path)
    arguments = ["run", str(path), "-s", "aggregator.name=mean", "-s", "rounds=0"]
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 2
    first, *rest = result.stderr.splitlines()
    assert first == "warning: aggregator.name=mean: dropped f of bulyan, which mean does not have"
    assert "rounds: should be greater than or equal to 1; got 0" in rest[-1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"-s : write dotted.key=value"),
        ("=1", r"write dotted.key=value"),
        ("a..b=1", r"write dotted.key=value"),
        (".".join("x" * 100) + "=1", r"write dotted.key=value"),
        ("seed=[", r"-s seed=\[: '\[' is not valid YAML"),
        ("seed=!!int abc", r"is not valid YAML: ValueError"),
        ("seed=\udcff", r"is not valid text"),
        ("my key=1", r"'my key': unknown key; allowed here: name, seed"),
    ],
)
def test_what_is_no_override(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        loaded(tmp_path, text)
