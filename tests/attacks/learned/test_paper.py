"""The paper's attack: every setting, and the configs that spell it out."""

import inspect
import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
from typer.testing import CliRunner

from fedrobust.attacks.learned import PAPER, Learned
from fedrobust.attacks.learned.encoding import Compact, Full
from fedrobust.attacks.learned.paper import DEVIATIONS, SETTINGS, value
from fedrobust.cli import app
from fedrobust.experiment import Experiment, load
from fedrobust.runs.grid import load_sweep

EXPERIMENTS = Path(__file__).parents[3] / "experiments" / "drfl"
RAW = Full(scale="zeta", sees="parameters")

BOTH: dict[str, Any] = {
    "threshold": 0.0,
    "inversion.method": "lbfgs",
    "inversion.labels": "learned",
    "inversion.iterations": 300,
    "data": "learned",
    "encoding.sees": "parameters",
    "encoding.scale": "zeta",
    "reward": "robustness",
    "reward_unit": "absolute",
    "samples": 1000,
    "horizon": "rest",
    "hold": 1,
    "training.algorithm": "ddpg",
    "training.start": "random",
    "training.hidden": [400, 300],
    "training.learning_rate": 1e-3,
    "training.batch_size": 100,
    "training.memory": 10**6,
    "training.learning_starts": 100,
    "training.polyak": 0.005,
    "training.discount": 0.99,
    "training.noise": 0.0,
    "training.train_every": "episode",
    "training.gradient_steps": -1,
    "training.normalise": False,
    "training.keep": "last",
    "training.steps": 10 * 2500,
}
"""What the paper and its library say, typed from them once more."""
ALONE: dict[Literal["ring", "mnist"], dict[str, Any]] = {
    "ring": {"observe": {"epochs": 3}, "encoding.name": "full"},
    "mnist": {
        "observe": {"epochs": 5},
        "encoding.name": "compact",
        "encoding.layer": "last-hidden",
    },
}


@pytest.mark.parametrize("figure", ["ring", "mnist"])
def test_each_setting_of_the_paper(figure: Literal["ring", "mnist"]) -> None:
    """The table names every one of them, and nothing that is not checked here."""
    rows = [s for s in SETTINGS if s.field and s.figure in (figure, "both")]
    found = {setting.field: value(setting, figure) for setting in rows}
    assert found == BOTH | ALONE[figure]
    assert {s.deviation for s in SETTINGS} - {0} == set(DEVIATIONS)


def test_the_library_has_kept_the_other_defaults() -> None:
    """Three are no longer the library's own: version 2.3 changed them."""
    from stable_baselines3 import DDPG

    now = {name: p.default for name, p in inspect.signature(DDPG.__init__).parameters.items()}
    ours = PAPER["ring"].training
    same = {
        "learning_rate": ours.learning_rate,
        "buffer_size": ours.memory,
        "learning_starts": ours.learning_starts,
        "tau": ours.polyak,
        "gamma": ours.discount,
    }
    assert {name: now[name] for name in same} == same
    assert now["action_noise"] is None
    assert (now["batch_size"], now["train_freq"], now["gradient_steps"]) == (256, 1, 1)


def test_the_committed_config_is_the_paper() -> None:
    cells = load_sweep(EXPERIMENTS / "ring-paper.yaml").cells
    by_arm: dict[str, list[Experiment]] = {}
    for cell in cells:
        by_arm.setdefault(str(cell.labels["attack"]), []).append(cell.experiment)
    ring = PAPER["ring"]
    undiscounted = replace(ring, training=replace(ring.training, discount=1.0))
    assert {arm: len(found) for arm, found in by_arm.items()} == {
        "none": 15,
        "paper": 15,
        "beta-1": 15,
        "paper-black-box": 10,
    }
    for arm, wanted in (("paper", ring), ("beta-1", undiscounted), ("paper-black-box", ring)):
        assert {each.attack == wanted for each in by_arm[arm]} == {True}, arm
    assert {each.threat.rule for each in by_arm["paper"] + by_arm["beta-1"]} == {True}
    assert {each.threat.rule for each in by_arm["paper-black-box"]} == {False}


def attacks_of(config: str, arms: tuple[str, ...]) -> list[Learned]:
    """The attacks of some arms of a committed sweep."""
    cells = load_sweep(EXPERIMENTS / config).cells
    found = [cell.experiment.attack for cell in cells if cell.labels["attack"] in arms]
    assert len(found) == 3 * (3 + 2), "three rules white-box, two black-box, three seeds"
    return [attack for attack in found if isinstance(attack, Learned)]


def test_the_committed_configs_of_mnist_are_the_paper_but_for_what_they_name() -> None:
    arms = ("paper", "paper-black-box")
    mnist, output = PAPER["mnist"], Compact(scale="zeta", sees="parameters")
    assert set(map(repr, attacks_of("mnist-paper.yaml", arms))) == {
        repr(replace(mnist, encoding=output))
    }
    small = replace(
        mnist,
        encoding=output,
        wait=400,
        observe=30,
        horizon=100,
        samples=100,
        precision="bfloat16",
        training=replace(mnist.training, steps=1500, check_every=0, check_episodes=10),
    )
    small = replace(small, ascent=replace(small.ascent, steps=8, size=2.0))
    assert set(map(repr, attacks_of("mnist-learned-paper.yaml", arms))) == {repr(small)}


@pytest.mark.long
def test_the_smoke_size_is_played_to_its_page(tmp_path: Path, quick_pages: None) -> None:
    """All that it leaves out is a number: examples, iterations, decisions."""
    config, out = EXPERIMENTS / "ring-paper-smoke.yaml", tmp_path / "run"
    attack, ring = load(config).attack, PAPER["ring"]
    assert isinstance(attack, Learned)
    fewer = replace(attack.training, steps=ring.training.steps)
    inversion = replace(attack.inversion, iterations=300)
    assert replace(attack, training=fewer, samples=1000, inversion=inversion) == ring
    done = CliRunner().invoke(app, ["run", str(config), "--out", str(out)])
    assert done.exit_code == 0, done.output
    told = json.loads((out / "summary.json").read_text())["attack"]
    rounds, observed = load(config).rounds, 3 * 10
    left = rounds - observed
    assert told["acts_from"] == observed + 1
    assert told["observed_rounds"] == observed
    episodes = -(-attack.training.steps // left)
    assert told["kept_step"] == episodes * left
    assert len(told["returns"]) == episodes
    assert [step for step, _ in told["checks"]] == [left * k for k in range(episodes + 1)]
    assert told["simulated_rounds"] == left * (episodes + len(told["checks"]) + 5)
    assert CliRunner().invoke(app, ["report", str(out)]).exit_code == 0
    page = " ".join((out / "report" / "index.html").read_text().split())
    assert f"the policy of step {episodes * left:,} is kept" in page
