"""Plans: what a learned policy has to beat is searched within a budget, and judged fairly."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from ring import task_of, watched

from fedrobust.attacks.learned import Training, planning
from fedrobust.attacks.learned.encoding import Basis, Full
from fedrobust.attacks.learned.environment import FederationEnv, Task
from fedrobust.attacks.learned.episodes import EPISODES, final_episodes, fresh_episodes, searched
from fedrobust.attacks.learned.planning import (
    best_constant,
    constant_actions,
    cross_entropy,
    search,
    value_of,
)
from fedrobust.progress import Progress


@pytest.fixture(scope="module")
def task() -> Task:
    return task_of(watched(40), horizon=8, hold=2)


def judged(task: Task, actions: Any, seed: int) -> float:
    env, fresh = FederationEnv(task), range(seed + 1000, seed + 1000 + EPISODES)
    return float(np.mean([value_of(env, actions, s) for s in fresh]))


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["constant", "cross-entropy", "gradient"])
def test_a_search_tells_how_far_it_is(task: Task, algorithm: Any) -> None:
    told: list[tuple[int, int]] = []
    watched = replace(task, progress=Progress(trained=lambda *at: told.append(at)))
    search(
        watched, Training(algorithm=algorithm, steps=80 if algorithm == "gradient" else 160), seed=0
    )
    done, steps = zip(*told, strict=True)
    last = told[-1]
    assert last[0] >= 0.8 * last[1]
    assert all(0 < made <= whole for made, whole in told)
    if algorithm != "gradient":  # which has a search for its start before its own
        assert list(done) == sorted(done)
        assert set(steps) <= {128, 160}  # an iteration is not broken off


@pytest.mark.slow
def test_a_plan_is_played_as_it_was_judged(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each iteration has an episode of its own, and the judges have others."""
    seeds: list[int] = []

    def spied(env: FederationEnv, actions: Any, seed: int) -> float:
        seeds.append(seed)
        return value_of(env, actions, seed)

    monkeypatch.setattr(planning, "value_of", spied)
    plan = cross_entropy(task, segments=2, population=6, elite=2, iterations=2, seed=4)
    finals, fresh = range(2004, 2009), range(1004, 1009)
    assert seeds == [4] * 6 + [5] * 6 + [*finals, *finals, *fresh]
    assert plan.actions.shape == (4, 3)
    assert plan.value == judged(task, plan.actions, 4)
    assert plan.rounds == (2 * 6 + 3 * EPISODES) * 8
    again = cross_entropy(task, segments=2, population=6, elite=2, iterations=2, seed=4)
    assert np.array_equal(plan.actions, again.actions)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("directions", "actions"),
    [(("own",), 9), (("own", "parameters"), 33), (("own", "parameters", "last-step"), 57)],
    ids=["one axis", "two", "three"],
)
def test_steps_are_spent_on_the_better_half_each_time(
    directions: Any, actions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All play 2 steps, half of them the whole episode of 4, a quarter two episodes, and so on.

    The two that are left are judged in other episodes, the better one is the answer, and worth what
    it does in others yet.
    """
    task = task_of(watched(40), Basis(directions=directions), horizon=8, hold=2)
    played_out: list[tuple[int, int | None, bytes, float]] = []

    def spied(env: FederationEnv, actions: Any, seed: int, most: int | None = None) -> float:
        value = value_of(env, actions, seed, most)
        played_out.append((seed, most, actions.tobytes(), value))
        return value

    monkeypatch.setattr(planning, "value_of", spied)
    turns: list[tuple[int, list[tuple[int, int | None]]]] = [(actions, [(3, 2)])]
    spent, left, episodes = 2 * actions, actions // 2, 1
    while left > 2:
        turns.append((left, [(3 + k, None) for k in range(episodes)]))
        spent, left, episodes = spent + 4 * left * episodes, left // 2, 2 * episodes
    turns.append((2, [(2003 + k, None) for k in range(EPISODES)]))
    plan = best_constant(task, steps=spent, seed=3)
    at, before = 0, set[bytes]()
    for many, wanted in turns:
        part = played_out[at : at + many * len(wanted)]
        assert [(seed, most) for seed, most, _, _ in part] == wanted * many
        means: dict[bytes, float] = {}
        for _, _, name, value in part:
            means[name] = means.get(name, 0.0) + value / len(wanted)
        assert len(means) == many
        assert before == set() or before == set(means)
        ranked = sorted(means, key=lambda name: -means[name])
        before, at = set(ranked[: max(2, many // 2)]), at + len(part)
    assert plan.actions.tobytes() == ranked[0]
    told = played_out[at:]
    assert [(seed, name) for seed, _, name, _ in told] == [
        (1003 + k, ranked[0]) for k in range(EPISODES)
    ]
    assert plan.rounds == 2 * spent + 3 * EPISODES * 8
    monkeypatch.undo()
    assert plan.value == pytest.approx(judged(task, plan.actions, 3))


def test_no_episode_of_a_search_judges_it() -> None:
    """However long the search is."""
    search = {searched(7, k) for k in range(5000)}
    assert len(search) == 5000
    assert not search & {*fresh_episodes(7), *final_episodes(7)}
    assert [searched(7, k) for k in range(3)] == [7, 8, 9]


@pytest.mark.slow
def test_many_axes_are_drawn_from_where_steps_are_few() -> None:
    """28 axes make 225 actions: 300 steps are not spent on one step of each, and more."""
    task = task_of(watched(40), Full(budget=10.0), horizon=8, hold=2)
    plan = best_constant(task, steps=300, seed=0)
    assert plan.rounds / 2 - 3 * EPISODES * 4 <= 300
    assert np.count_nonzero(plan.actions) <= 1
    assert len({tuple(np.abs(a).nonzero()[0]) for a in planning._candidates(28, 300, 0)}) == 5
    assert planning._candidates(10**6, 300, 0).shape == (33, 10**6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("algorithm", "steps"), [("constant", 300), ("cross-entropy", 400), ("gradient", 240)]
)
def test_a_search_keeps_within_its_budget(algorithm: Any, steps: int) -> None:
    """``steps`` and what it takes to judge; gradients count five episodes an iteration."""
    task = task_of(watched(40), Basis(directions=("own",)), horizon=8, hold=2)
    plan = search(task, Training(algorithm=algorithm, steps=steps), seed=0)
    judged = {"constant": 3, "cross-entropy": 1 + EPISODES, "gradient": 1 + EPISODES}[algorithm]
    spent = plan.rounds / task.hold - judged * EPISODES * 4
    if algorithm == "gradient":
        iterations = len(plan.course)
        assert iterations == steps * 3 // 4 // 4 // 5
        spent += iterations * 4 * 4 - 3 * EPISODES * 4
    assert 0.8 * steps <= spent <= 1.05 * steps


def test_the_constants_are_every_axis_and_every_mix_of_signs() -> None:
    found = constant_actions(3)
    assert len({tuple(row) for row in found.tolist()}) == 1 + 4 * (6 + 8)
    assert (0.0, 0.0, 0.0) in {tuple(row) for row in found.tolist()}
    assert (1.0, -1.0, 1.0) in {tuple(row) for row in found.tolist()}
    assert constant_actions(1).shape == (9, 1)
    assert constant_actions(28).shape == (1 + 4 * 56, 28)
