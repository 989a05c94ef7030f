"""A policy from a file: what it was trained for, and what its attacker knew."""

from pathlib import Path
from typing import Any

import pytest
from ring import THREE, experiment, known_after
from ring import learned as on_one_axis

from fedrobust.attacks.learned.policy_files import load_policy
from fedrobust.runs.learn_policy import learn_policy

TRAINED = {"observe": 0, "inversion": None, "training": {"algorithm": "constant", "steps": 30}}
GAMMA = {"name": "wasserstein-dro", "ascent": {"steps": 6, "rule": "decaying"}}


def learned(**changes: Any) -> dict[str, Any]:
    """An attack on three axes, since the price decides one of them."""
    return on_one_axis(**{"encoding": THREE, "horizon": 3} | changes)


def policy(folder: Path, **changes: Any) -> str:
    """A policy of an attacker under the federation with these changes."""
    path = folder / "policy.safetensors"
    learn_policy(experiment(**(learned(**TRAINED) | changes)), path)
    return str(path)


@pytest.mark.slow
def test_a_policy_is_refused_for_another_price_whoever_sets_it(tmp_path: Path) -> None:
    file = policy(tmp_path)
    other = {"objective": GAMMA | {"gamma": 4.0}}
    refused, _ = known_after(2, **learned(policy=file), **other)
    assert refused.policy is None
    assert "was trained with gamma = 2.0, and this attack has 4.0" in refused.troubles[0]
    for change in (learned(policy=file, gamma=2.0), learned(policy=file, gamma=2.0) | other):
        used, _ = known_after(2, **change)
        assert used.policy is not None
        assert used.troubles == []


@pytest.mark.slow
def test_it_is_said_where_its_attacker_knew_more(tmp_path: Path) -> None:
    """Knowledge that the threat model of the run does not grant comes with the file."""
    knowing = {"threat": {"clients": True, "rule": True, "data": 3}}
    file = policy(tmp_path, **knowing)
    used, _ = known_after(2, **learned(policy=file), **knowing)
    assert used.troubles == []
    used, _ = known_after(2, **learned(policy=file), threat={"clients": 8})
    (trouble,) = used.troubles
    for what in ("the rule", "the number of clients", "the data of 3 benign clients"):
        assert what in trouble
    assert used.policy is not None
    used, _ = known_after(2, **learned(policy=file), threat={"benign": True, "rule": True})
    assert "knew the data of 3 benign clients, which" in used.troubles[0]


@pytest.mark.long
def test_the_file_is_named_as_long_as_its_policy_acts(tmp_path: Path) -> None:
    file = policy(tmp_path)
    for rounds, source, begun in ((3, file, 1), (5, None, 4)):
        known, _ = known_after(rounds, **learned(**TRAINED, policy=file, relearn=3))
        assert known.troubles == []
        assert (known.report()["source"], known.report()["acts_from"]) == (source, begun)


@pytest.mark.slow
@pytest.mark.parametrize("clients", [True, 8])
def test_another_rule_is_told_by_whoever_knows_a_lower_bound_too(
    tmp_path: Path, clients: int
) -> None:
    threat = {"threat": {"clients": clients, "rule": True}}
    file = policy(tmp_path, **threat)
    assert load_policy(file)[1]["rule"]["clients"] == (10 if clients is True else 8)
    used, _ = known_after(2, **learned(policy=file), **threat)
    assert used.troubles == []
    used, _ = known_after(2, **learned(policy=file), **threat, aggregator={"name": "median"})
    assert "another rule than the server's" in used.troubles[0]
