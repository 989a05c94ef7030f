"""Mimic: it learns in which direction clients differ, and copies the one that stands out."""

import random
from dataclasses import replace
from typing import Any

import pytest
import torch
from crafting import OWN, Quadratic, normal, seeded, view_of
from torch import Tensor

from fedrobust.aggregators import Median
from fedrobust.attacks import Mimic
from fedrobust.federation.threat import View

Rounds = list[tuple[Tensor, tuple[int, ...]]]


def skewed(rounds: int, clients: int = 6, d: int = 8) -> Rounds:
    """Clients that differ along one axis, client 4 most of all; the rest is noise."""
    axis = torch.zeros(d, dtype=torch.float64)
    axis[2] = 1.0
    along = torch.tensor([0.5, -0.4, 0.2, 0.1, -1.6, 0.3], dtype=torch.float64)[:clients, None]
    names = tuple(range(clients))
    return [(along * axis + 0.1 * normal(clients, d, seed=t), names) for t in range(rounds)]


def views(rounds: Rounds) -> list[View]:
    own = normal(2, rounds[0][0].shape[1], seed=99)
    return [
        replace(view_of(own, benign), round=t + 1, benign_clients=names)
        for t, (benign, names) in enumerate(rounds)
    ]


def play(attack: Mimic, rounds: Rounds, state: Any = None) -> tuple[list[int], Any]:
    """Which client is copied in each round, and the state in the end."""
    copied = []
    for view in views(rounds):
        rows, state = attack.craft(state, view, seeded())
        assert view.benign is not None
        assert view.benign_clients is not None
        same = (view.benign == rows[0]).all(dim=1).nonzero()[:, 0].tolist()
        assert torch.equal(rows, rows[:1].expand(2, -1))
        copied.append(view.benign_clients[same[0]])
    return copied, state


def learnt(rounds: Rounds) -> tuple[list[float], dict[int, float]]:
    """The direction and the sums of projections, number by number."""
    d = rounds[0][0].shape[1]
    z = torch.randn(d, generator=seeded(), dtype=torch.float64).tolist()
    mean, sums = [0.0] * d, dict[int, float]()
    for t, (benign, names) in enumerate(rounds):
        x = benign.tolist()
        now = [sum(row[j] for row in x) / len(x) for j in range(d)]
        mean = [(t * mean[j] + now[j]) / (t + 1) for j in range(d)]
        c = [0.0] * d
        for row in x:
            weight = sum((row[j] - mean[j]) * z[j] for j in range(d))
            c = [c[j] + weight * (row[j] - mean[j]) for j in range(d)]
        size = sum(v * v for v in c) ** 0.5
        z = [(t * z[j] + c[j] / size) / (t + 1) for j in range(d)]
        size = sum(v * v for v in z) ** 0.5
        z = [v / size for v in z]
        for name, row in zip(names, x, strict=True):
            sums[name] = sums.get(name, 0.0) + sum(a * b for a, b in zip(z, row, strict=True))
    return z, sums


def test_learns_by_the_streaming_rule() -> None:
    rounds = skewed(7)
    copied, state = play(Mimic(warmup=7), rounds)
    z, sums = learnt(rounds)
    torch.testing.assert_close(state["z"], torch.tensor(z, dtype=torch.float64))
    assert state["sums"] == pytest.approx(sums)
    assert state["rounds"] == 7
    for t in range(7):
        _, sums = learnt(rounds[: t + 1])
        assert copied[t] == max(sums, key=lambda c: abs(sums[c]))


def test_the_direction_is_that_in_which_clients_differ_most() -> None:
    rounds = skewed(30)
    _, state = play(Mimic(warmup=30), rounds)
    pooled = torch.cat([benign for benign, _ in rounds])
    top = torch.linalg.svd(pooled - pooled.mean(dim=0)).Vh[0]
    assert abs(float(top @ state["z"])) > 0.999
    assert float(state["z"].norm()) == pytest.approx(1.0)


def test_copies_the_same_client_ever_after() -> None:
    """Client 4 stands out; what clients send after the warm-up changes nothing."""
    later = [(100 * benign.flip(0), names) for benign, names in skewed(5)]
    copied, state = play(Mimic(warmup=10), skewed(10) + later)
    assert copied[9:] == [4] * 6
    assert state["rounds"] == 10


def test_a_client_that_is_away_is_replaced_by_the_next() -> None:
    _, state = play(Mimic(warmup=10), skewed(10))
    order = sorted(state["sums"], key=lambda c: -abs(state["sums"][c]))
    assert order[0] == 4
    benign, _ = skewed(1)[0]
    chance = random.Random(0)
    for _ in range(20):
        there = tuple(chance.sample(range(6), 3))
        copied, _ = play(Mimic(warmup=10), [(benign[list(there)], there)], state)
        assert copied == [next(c for c in order if c in there)]
    stranger, _ = play(Mimic(warmup=10), [(benign[:2], (71, 72))], state)
    assert stranger == [71]


def test_equal_rows_and_an_empty_round_are_survived() -> None:
    same = normal(1, 8).expand(4, -1)
    _, state = play(Mimic(warmup=3), [(same, (0, 1, 2, 3))] * 3)
    assert torch.isfinite(state["z"]).all()
    nobody = view_of(OWN, OWN[:0], benign_clients=())
    rows, after = Mimic().craft(None, nobody, seeded())
    assert torch.equal(rows, OWN)
    assert after is None


def test_needs_benign_updates_and_says_so() -> None:
    with pytest.raises(ValueError, match="attack mimic needs benign updates, which its view does"):
        Mimic().craft(None, view_of(OWN), seeded())


def test_the_state_it_was_given_is_left_alone() -> None:
    rounds = skewed(3)
    _, state = play(Mimic(), rounds)
    before = {k: (v.clone() if isinstance(v, Tensor) else v) for k, v in state.items()}
    sums = dict(state["sums"])
    play(Mimic(), rounds, state)
    assert torch.equal(state["z"], before["z"])
    assert torch.equal(state["mean"], before["mean"])
    assert state["sums"] == sums


def test_hurts_the_median_where_clients_differ_and_hardly_elsewhere() -> None:
    attack = Mimic(warmup=5)
    skew, iid = Quadratic(skew=0.5), Quadratic(skew=0.0)
    assert skew.error(Median(), attack, knows=("benign",)) > 1.7 * skew.error(Median(), None)
    assert iid.error(Median(), attack, knows=("benign",)) < 0.02
