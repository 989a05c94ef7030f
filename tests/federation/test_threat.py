"""What the adversary knows, and what the view keeps from it."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from crafting import BENIGN, OWN, view_of
from torch import Tensor

from fedrobust import run
from fedrobust.attacks import Requirements, estimates
from fedrobust.config.component import from_config
from fedrobust.errors import ConfigError
from fedrobust.experiment import Experiment
from fedrobust.federation.round import run_round
from fedrobust.federation.threat import ThreatModel, View
from fedrobust.runs.prepare import prepare
from fedrobust.typing import Updates


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
        requires = Requirements(history=1)

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
        requires = Requirements(history=1)

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
        self.calls = getattr(self, "calls", 0) + 1
        return (view.own[:, 1:] if self.calls == 1 else view.own), True


def test_clients_that_do_not_collude_share_neither_state_nor_arrays(
    tiny: Callable[..., Experiment],
) -> None:
    seen: list[tuple[int, Any, float]] = []

    class Gossip:
        """Keeps its own update as state, and wipes what it was shown."""

        def craft(self, state: Any, view: View, rng: torch.Generator) -> tuple[Updates, Any]:
            assert view.benign is not None
            seen.append((view.round, state, view.benign.abs().sum().item()))
            own = view.own.clone()
            view.benign.zero_()
            return own, own

    ready = prepare(tiny(attack=Gossip(), threat={"colluders": False, "benign": True}))
    state = ready.federation.start(ready.start)
    for _ in range(2):
        state, _ = run_round(state, ready.federation, ready.streams)
    first, second = seen[:2], seen[2:]
    assert [entry[1] for entry in first] == [None, None]
    assert all(entry[2] > 0 for entry in seen)
    assert sorted(state.attack) == sorted(ready.federation.malicious)
    assert not torch.equal(second[0][1], second[1][1])


def test_one_malformed_answer_costs_its_sender_alone(tiny: Callable[..., Experiment]) -> None:
    ready = prepare(tiny(attack=Half(), threat={"colluders": False}))
    _, log = run_round(ready.federation.start(ready.start), ready.federation, ready.streams)
    assert log.dropped == (min(ready.federation.malicious),)


def test_a_threat_model_says_what_it_grants() -> None:
    assert str(ThreatModel(rule=True)) == (
        "knows: own data, the colluders' honest updates, the rule; "
        "does not know: benign updates, the number of clients"
    )
    assert str(ThreatModel(colluders=False, rule=True)) == (
        "knows: own data, the rule; "
        "does not know: the colluders' honest updates, benign updates, the number of clients"
    )
    assert str(ThreatModel(benign=True, rule=True, clients=True)) == (
        "knows: own data, the colluders' honest updates, benign updates, the rule, "
        "the number of clients"
    )

    assert str(ThreatModel(data=2, classes=(0, 3))) == (
        "knows: own data of classes 0, 3 only, the colluders' honest updates, "
        "the data of 2 benign clients; "
        "does not know: benign updates, the rule, the number of clients"
    )


@pytest.mark.parametrize("classes", [[], [1, 1], [-1]])
def test_classes_are_one_or_more_each_once(classes: list[int]) -> None:
    with pytest.raises(ConfigError, match="classes"):
        from_config(ThreatModel, {"classes": classes})


def test_a_lower_bound_is_called_one() -> None:
    assert ThreatModel(clients=40).knows("clients")
    assert str(ThreatModel(clients=40)) == (
        "knows: own data, the colluders' honest updates, that there are at least 40 clients; "
        "does not know: benign updates, the rule"
    )
    # 1 is a number of clients, and not the True that it equals.
    assert "at least 1 clients" in str(ThreatModel(clients=1))


def test_who_sees_the_benign_updates_can_count_the_clients() -> None:
    assert ThreatModel(benign=True).lacks(frozenset({"clients"})) == ()
    assert ThreatModel().lacks(frozenset({"clients"})) == ("clients",)
    assert estimates.clients(view_of(OWN)) is None
    assert estimates.clients(view_of(OWN, BENIGN)) == 5
    assert estimates.clients(view_of(OWN, BENIGN, clients=4)) == 5
    assert estimates.clients(view_of(OWN, clients=9)) == 9
    assert estimates.clients(view_of(OWN, clients=2)) == 3


def test_a_lower_bound_that_is_none_is_refused(tiny: Callable[..., Experiment]) -> None:
    with pytest.raises(ConfigError, match=r"threat\.clients is 12, but 11 clients take part"):
        tiny(threat={"clients": 12})
    with pytest.raises(ConfigError, match=r"threat\.clients is 4, but 3 clients take part"):
        tiny(
            threat={"clients": 4},
            participation={"name": "sample", "clients": 3},
            aggregator={"name": "mean"},
        )
    assert tiny(threat={"clients": 11}).threat.clients == 11


class Spy:
    """A user's own attack: only ``craft`` is required."""

    def __init__(self) -> None:
        self.views: list[View] = []
        self.requires = Requirements(history=2)

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
    assert view.others() == ()
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


def test_the_data_that_are_known_are_the_known_clients(tiny: Callable[..., Experiment]) -> None:
    spy = Spy()
    ready = prepare(tiny(attack=spy, threat={"data": 2}))
    run_round(ready.federation.start(ready.start), ready.federation, ready.streams)
    local = ready.federation.local
    for split, client in zip(spy.views[0].others(), ready.federation.known, strict=True):
        assert torch.equal(split.x, local.data.take(local.clients[client]).x)


def test_clients_that_do_not_collude_act_one_by_one(tiny: Callable[..., Experiment]) -> None:
    views, _, _ = spied(tiny, colluders=False)
    assert [(v.round, v.rows, len(v.own)) for v in views[:3]] == [(1, 1, 1), (1, 1, 1), (2, 1, 1)]


def test_an_attack_that_tries_the_rule_must_know_of_rows_enough(
    tiny: Callable[..., Experiment],
) -> None:
    settings: dict[str, Any] = {
        "attack": {"name": "optimized", "attack": {"name": "sign-flip"}},
        "aggregator": {"name": "krum", "f": 2},
    }
    with pytest.raises(ConfigError, match=r"tries the rule on threat.clients = 6 rows.*Krum needs"):
        tiny(**settings, threat={"rule": True, "clients": 6})
    for threat in ({"clients": 7}, {"clients": True}, {"clients": 6, "benign": True}):
        assert tiny(**settings, threat={"rule": True, **threat}).threat.rule


class Peeks:
    """An attack of a user's own that reads what it does not declare."""

    def __init__(self, field: str, careful: bool = False) -> None:
        self.field, self.careful = field, careful

    def craft(self, state: object, view: View, rng: object) -> tuple[Tensor, object]:
        known = getattr(view, self.field)
        if known is None and self.careful:
            return -view.own, state
        found = known(view.own) if self.field == "rule" else known + 0 * view.own.sum()
        return found.mean() * torch.ones_like(view.own), state


@pytest.mark.parametrize(
    ("field", "knowledge"),
    [("benign", "benign"), ("rule", "rule"), ("clients", "clients")],
)
def test_an_own_attack_that_fails_on_what_is_not_granted_is_told_what_to_grant(
    field: str, knowledge: str, tiny: Callable[..., Experiment]
) -> None:
    plain: dict[str, Any] = {"rounds": 1, "aggregator": {"name": "mean"}}
    with pytest.raises(ConfigError, match=rf"read view\.{field}, .*threat: {{{knowledge}: true}}"):
        run(tiny(**plain, attack=Peeks(field)))
    run(tiny(**plain, attack=Peeks(field, careful=True)))
    run(tiny(**plain, attack=Peeks(field), threat={knowledge: True}))
