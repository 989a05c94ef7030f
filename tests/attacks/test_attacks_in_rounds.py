"""Every attack in real rounds: from a file, under every threat model, and through a kill."""

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from attack_table import CONFIGS, Json, attack_of, every_attack
from demo import demo_config
from ruamel.yaml import YAML
from run_contents import contents

from fedrobust import run
from fedrobust.aggregators import Mean
from fedrobust.attacks import ATTACKS
from fedrobust.compute.parameters import write
from fedrobust.config.component import from_config, to_config
from fedrobust.config.kind import name_of
from fedrobust.errors import ConfigError
from fedrobust.evaluation import accuracy
from fedrobust.experiment import Experiment, load
from fedrobust.federation.attack import requirements
from fedrobust.federation.round import run_round
from fedrobust.federation.threat import ThreatModel
from fedrobust.progress import Progress
from fedrobust.runs.prepare import Prepared, prepare

SIMPLE: Json = {
    "objective": {"name": "erm"},
    "client": {"batch_size": 16, "batches": 1, "optimizer": {"name": "sgd", "lr": 0.1}},
    "malicious": 4,
    "aggregator": {"name": "multi-krum", "f": 4},
}


def test_the_table_has_every_attack() -> None:
    assert {name_of(attack) for attack in ATTACKS} == {c["name"] for c in CONFIGS.values()}


@every_attack
def test_an_attack_is_the_same_from_a_file(
    config: Json, tmp_path: Path, tiny: Callable[..., Experiment]
) -> None:
    threat = {"benign": True, "rule": True, "clients": True}
    path = tmp_path / "config.yaml"
    yaml = YAML(typ="safe")
    yaml.dump(demo_config(**SIMPLE | {"attack": config, "threat": threat}), path)
    first = load(path)
    assert first == tiny(**SIMPLE | {"attack": config, "threat": threat})
    yaml.dump(to_config(first), path)
    assert load(path) == first
    with pytest.raises(ConfigError, match=r"attack.*\.?scael: unknown key"):
        load(path, ["attack.scael=1"])


@pytest.fixture(scope="module")
def ready() -> Prepared:
    return prepare(from_config(Experiment, demo_config(**SIMPLE)))


@pytest.mark.slow
@every_attack
def test_an_attack_plays_under_every_threat_model_that_grants_its_needs(
    config: Json, ready: Prepared, tiny: Callable[..., Experiment]
) -> None:
    """And is refused under every other, with what it lacks in words."""
    words = {
        "colluders": "the colluders' honest updates",
        "benign": "benign updates",
        "rule": "the rule",
        "clients": "the number of clients",
    }
    played = 0
    for granted in product((True, False), (True, False), (True, False), (11, False)):
        threat = dict(zip(words, granted, strict=True))
        settings = SIMPLE | {"attack": config, "threat": threat}
        attack = tiny(**settings | {"malicious": 0}).attack
        assert attack is not None
        have = {what for what, value in threat.items() if value is not False}
        have |= {"clients"} if "benign" in have else set()
        lacking = requirements(attack).knowledge - have
        if lacking:
            with pytest.raises(ConfigError, match="which the threat model does not") as refusal:
                tiny(**settings)
            assert all(words[what] in str(refusal.value) for what in lacking)
            continue
        experiment = tiny(**settings)
        federation = replace(ready.federation, attack=attack, threat=experiment.threat)
        state, log = run_round(federation.start(ready.start), federation, ready.streams)
        assert log.dropped == ()
        assert log.outcome.vector is not None
        assert torch.isfinite(state.parameters).all()
        played += 1
    assert played > 0


@pytest.mark.slow
@every_attack
def test_an_attack_changes_what_the_server_gets(config: Json, ready: Prepared) -> None:
    seen: dict[str, torch.Tensor] = {}

    def keeping(name: str) -> Callable[[torch.Tensor], torch.Tensor]:
        def rule(rows: torch.Tensor) -> torch.Tensor:
            seen[name] = rows.clone()
            return rows.mean(dim=0)

        return rule

    federation: Any = ready.federation
    # Only where it is needed: a rule like this one takes no row, and Krum's attack would give up.
    threat = ThreatModel(benign=True, rule="rule" in requirements(attack_of(config)).knowledge)
    for name, plays in (("honest", None), ("attacked", attack_of(config))):
        chosen: Any = replace(federation, aggregator=keeping(name), attack=plays, threat=threat)
        if plays is None:
            chosen = replace(chosen, malicious=frozenset())
        run_round(chosen.start(ready.start), chosen, ready.streams)
    bad = sorted(federation.malicious)
    good = [i for i in range(11) if i not in federation.malicious]
    assert torch.equal(seen["honest"][good], seen["attacked"][good])
    changed = ~torch.isclose(seen["honest"][bad], seen["attacked"][bad]).all(dim=1)
    assert changed.any()
    assert changed.all() or "source" in config  # which a client's batch need not hold


class KilledError(Exception):
    """Stands for the end of the process."""


@pytest.mark.slow
@pytest.mark.parametrize("stop", [2, 4])
@pytest.mark.parametrize("wrapped", [False, True])
def test_what_mimic_has_learnt_survives_a_kill(
    stop: int,
    wrapped: bool,
    tmp_path: Path,
    tiny: Callable[..., Experiment],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Within its warm-up, and after it; clients are sampled."""
    attack: Json = {"name": "mimic", "warmup": 3}
    if wrapped:
        attack = {"name": "jittered", "attack": attack, "radius": 0.01}
    experiment = tiny(
        rounds=6,
        objective={"name": "erm"},
        attack=attack,
        threat={"benign": True},
        participation={"name": "sample", "clients": 8},
        aggregator={"name": "krum", "f": 2},
        malicious=4,
    )
    straight = run(experiment, tmp_path / "straight")

    def die(log: Any) -> None:
        if log.round == stop + 1:
            raise KilledError

    monkeypatch.setattr("fedrobust.runs.loop.SAVE_EVERY", 0.0)
    with pytest.raises(KilledError):
        run(experiment, tmp_path / "killed", progress=Progress(played=die))
    resumed = run(experiment, tmp_path / "killed", resume=True)
    assert contents(tmp_path / "killed") == contents(tmp_path / "straight")
    for key in ("z", "mean"):
        assert torch.equal(resumed.state.attack[key], straight.state.attack[key])
    assert resumed.state.attack["sums"] == straight.state.attack["sums"]
    assert resumed.state.attack["rounds"] == 3


def digits(ready: Prepared, attack: Json | None) -> tuple[float, float]:
    """Accuracy after 20 rounds under the mean, on the held-out digits and on their threes."""
    federation: Any = replace(ready.federation, aggregator=Mean())
    if attack is None:
        federation = replace(federation, attack=None, malicious=frozenset())
    else:
        federation = replace(federation, attack=attack_of(attack))
    state = federation.start(ready.start)
    for _ in range(20):
        state, _ = run_round(state, federation, ready.streams)
    write(ready.model, state.parameters)
    held_out = ready.chooses
    threes = held_out.y == 3
    return (
        accuracy(ready.model, held_out.x, held_out.y),
        accuracy(ready.model, held_out.x[threes], held_out.y[threes]),
    )


@pytest.mark.long
def test_flipped_labels_cost_accuracy_where_they_are_flipped() -> None:
    """5 of 11 clients; the mean weighs them by their examples, which are equal."""
    adam = {"batch_size": 32, "batches": 2, "optimizer": {"name": "adam", "lr": 0.005}}
    ready = prepare(
        from_config(Experiment, demo_config(**SIMPLE | {"client": adam, "malicious": 5}))
    )
    honest, threes = digits(ready, None)
    all_flipped, _ = digits(ready, {"name": "label-flip"})
    one_flipped, no_threes = digits(ready, {"name": "label-flip", "source": 3, "target": 8})
    assert honest > 0.8
    assert threes > 0.8
    assert all_flipped < honest - 0.07
    assert no_threes < threes - 0.3
    assert one_flipped > honest - 0.15
