"""Each attack's formula, what it may know, and what the view keeps from it."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fedrobust.attacks import ALittleIsEnough, Attack, GaussianNoise, InnerProduct, SignFlip
from fedrobust.errors import ConfigError
from fedrobust.experiment import Experiment
from fedrobust.federation import run_round
from fedrobust.objectives import ERM
from fedrobust.optimizers import Sgd
from fedrobust.prepare import prepare
from fedrobust.threat import ThreatModel, View
from fedrobust.training import run
from fedrobust.typing import Updates

OWN = torch.tensor([[1.0, 2.0, -4.0], [3.0, 2.0, 0.0], [8.0, 2.0, 1.0]], dtype=torch.float64)
BENIGN = torch.tensor([[0.0, 1.0, 5.0], [2.0, 3.0, 7.0]], dtype=torch.float64)
VIEW = View(
    round=1,
    parameters=torch.zeros(3, dtype=torch.float64),
    history=(),
    model=lambda: nn.Linear(1, 1),
    objective=ERM(),
    optimizer=Sgd(0.1),
    server_lr=1.0,
    rows=3,
    data=lambda: (),
    own=OWN,
)


def rows_of(attack: Attack, view: View = VIEW) -> Tensor:
    rows, _ = attack.craft(attack.init(), view, torch.Generator().manual_seed(0))
    assert rows.shape == (view.rows, 3)
    return rows


def test_a_little_is_enough_is_mean_plus_k_deviations_of_the_colluders() -> None:
    mean = [4.0, 2.0, -1.0]
    deviation = [math.sqrt((9 + 1 + 16) / 3), 0.0, math.sqrt((9 + 1 + 4) / 3)]  # divisor n
    expected = [m - 1.5 * s for m, s in zip(mean, deviation, strict=True)]
    rows = rows_of(ALittleIsEnough(k=-1.5))
    torch.testing.assert_close(rows, torch.tensor([expected] * 3, dtype=torch.float64))


def test_a_little_is_enough_uses_benign_updates_where_they_are_granted() -> None:
    rows = rows_of(ALittleIsEnough(k=2.0), replace(VIEW, benign=BENIGN))
    torch.testing.assert_close(rows, torch.tensor([[3.0, 4.0, 8.0]] * 3, dtype=torch.float64))


def test_inner_product_is_minus_epsilon_times_the_mean() -> None:
    mine = torch.tensor([[-8.0, -4.0, 2.0]] * 3, dtype=torch.float64)
    torch.testing.assert_close(rows_of(InnerProduct(epsilon=2.0)), mine)
    benign = torch.tensor([[-2.0, -4.0, -12.0]] * 3, dtype=torch.float64)
    known = replace(VIEW, benign=BENIGN)
    torch.testing.assert_close(rows_of(InnerProduct(epsilon=2.0), known), benign)


def test_sign_flip_turns_each_row_round() -> None:
    torch.testing.assert_close(rows_of(SignFlip(scale=3.0)), -3.0 * OWN)


def test_gaussian_noise_has_the_scale_and_new_draws_for_each_client() -> None:
    view = replace(VIEW, parameters=torch.zeros(20_000), own=torch.empty(0, 20_000))
    rows, _ = GaussianNoise(scale=0.5).craft(None, view, torch.Generator().manual_seed(0))
    assert rows.shape == (3, 20_000)
    torch.testing.assert_close(rows.std(dim=1), torch.full((3,), 0.5), rtol=0.03, atol=0)
    assert rows.mean().abs() < 0.01
    assert torch.corrcoef(rows).triu(1).abs().max() < 0.03


def test_a_lone_adversary_cannot_estimate_a_deviation(tiny: Callable[..., Experiment]) -> None:
    """The run is refused, not played with σ = 0; with benign updates granted it can be played."""
    with pytest.raises(ConfigError, match="needs 2 malicious clients"):
        tiny(malicious=1)
    with pytest.raises(ConfigError, match="needs the colluders' honest updates"):
        tiny(threat={"colluders": False})
    assert tiny(malicious=1, threat={"benign": True}).malicious == 1
    assert tiny(malicious=0, attack={"name": "a-little-is-enough", "k": -1.0}).malicious == 0


def test_rounds_in_which_the_attack_could_do_nothing_are_counted(
    tiny: Callable[..., Experiment],
) -> None:
    result = run(
        tiny(participation={"name": "sample", "clients": 3}, aggregator={"name": "mean"}, rounds=8)
    )
    assert any("fewer than 2 took part" in trouble for trouble in result.summary["troubles"])


def test_nothing_that_an_attack_writes_to_its_view_reaches_the_server(
    tiny: Callable[..., Experiment],
) -> None:
    class Vandal:
        memory = 1

        def craft(self, state: Any, view: View, rng: torch.Generator) -> tuple[Updates, Any]:
            honest = view.own.clone()
            view.parameters.fill_(7.0)
            view.own.fill_(7.0)
            for vector in view.history:
                vector.fill_(7.0)
            for tensor in (*view.model().parameters(), *(s.x for s in view.data())):
                tensor.data.fill_(7)
            return honest, state

    class Honest:
        memory = 1

        def craft(self, state: Any, view: View, rng: torch.Generator) -> tuple[Updates, Any]:
            return view.own, state

    ends = []
    for attack in (Vandal(), Honest()):
        ready = prepare(tiny(attack=attack))
        state = ready.federation.start(ready.start)
        for _ in range(3):
            state, _ = run_round(state, ready.federation, ready.streams)
        ends.append(state.parameters)
    assert torch.equal(*ends)


def test_an_attack_that_forgets_its_state_is_told(tiny: Callable[..., Experiment]) -> None:
    class Forgetful:
        def craft(self, state: Any, view: View, rng: torch.Generator) -> Any:
            return view.own

    ready = prepare(tiny(attack=Forgetful()))
    with pytest.raises(ConfigError, match=r"Forgetful must return \(rows, state\) from craft"):
        run_round(ready.federation.start(ready.start), ready.federation, ready.streams)


class Half:
    """Does not collude; the first of them sends a row of the wrong width."""

    def craft(self, state: Any, view: View, rng: torch.Generator) -> tuple[Any, Any]:
        return (None if state is None else view.own), True


def test_one_malformed_answer_costs_its_sender_alone(tiny: Callable[..., Experiment]) -> None:
    ready = prepare(tiny(attack=Half(), threat={"colluders": False}))
    _, log = run_round(ready.federation.start(ready.start), ready.federation, ready.streams)
    assert log.dropped == (min(ready.federation.malicious),)


def test_a_threat_model_says_what_it_grants() -> None:
    assert str(ThreatModel(rule=True)) == (
        "knows: own data, the colluders' honest updates, the rule; "
        "does not know: benign updates, the number of clients"
    )
    assert ThreatModel(clients=40).knows("clients")


class Spy:
    """A user's own attack: only ``craft`` is required."""

    def __init__(self) -> None:
        self.views: list[View] = []
        self.memory = 2

    def craft(self, state: Any, view: View, rng: torch.Generator) -> tuple[Updates, Any]:
        self.views.append(view)
        return torch.zeros(view.rows, len(view.parameters)), (state or 0) + 1


def spied(tiny: Callable[..., Experiment], **threat: Any) -> tuple[list[View], Any, list[Tensor]]:
    spy = Spy()
    ready = prepare(tiny(attack=spy, threat=threat))
    state, sent = ready.federation.start(ready.start), []
    for _ in range(4):
        sent.append(state.parameters)
        state, _ = run_round(state, ready.federation, ready.streams)
    return spy.views, state, sent


def test_the_view_holds_what_the_threat_model_grants_and_nothing_else(
    tiny: Callable[..., Experiment],
) -> None:
    views, state, sent = spied(tiny)
    assert [v.rows for v in views] == [2, 2, 2, 2]
    view = views[-1]
    assert view.own.shape[0] == 2
    assert (view.benign, view.rule, view.clients) == (None, None, None)
    assert state.attack == 4
    assert [len(v.history) for v in views] == [0, 1, 2, 2]
    assert torch.equal(view.history[-1], sent[2])
    assert torch.equal(view.parameters, sent[3])
    assert [len(split) for split in view.data()] == [103, 103]
    model = view.model()
    copied = torch.cat([p.detach().reshape(-1) for p in model.parameters()])
    assert torch.equal(copied, sent[3])


def test_everything_that_is_granted_is_there(tiny: Callable[..., Experiment]) -> None:
    views, _, _ = spied(tiny, benign=True, rule=True, clients=True)
    view = views[0]
    assert view.benign is not None
    assert view.benign.shape[0] == 9
    assert view.rule is not None
    assert view.rule(torch.cat([view.own, view.benign])).shape == view.parameters.shape
    assert view.clients == 11
    assert spied(tiny, clients=8)[0][0].clients == 8


def test_clients_that_do_not_collude_act_one_by_one(tiny: Callable[..., Experiment]) -> None:
    views, _, _ = spied(tiny, colluders=False)
    assert [(v.round, v.rows, len(v.own)) for v in views[:3]] == [(1, 1, 1), (1, 1, 1), (2, 1, 1)]
