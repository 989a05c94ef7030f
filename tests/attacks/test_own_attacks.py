"""A user's own attack in a round: its mistakes are told, and its history ends with the round."""

import threading
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
import torch
from crafting import OWN, VIEW, seeded
from torch import Tensor

from fedrobust.attacks import Budgeted, Delayed, Jittered, Mimic, SignFlip
from fedrobust.errors import ConfigError
from fedrobust.experiment import Experiment
from fedrobust.federation.attack import Requirements, requirements
from fedrobust.federation.round import run_round
from fedrobust.federation.round_log import RoundLog
from fedrobust.federation.state import FederationState
from fedrobust.federation.threat import View
from fedrobust.progress import Host, Progress
from fedrobust.runs.prepare import Prepared, prepare

SIMPLE: dict[str, Any] = {
    "objective": {"name": "erm"},
    "client": {"batch_size": 8, "batches": 1, "optimizer": {"name": "sgd", "lr": 0.1}},
    "aggregator": {"name": "mean"},
}
Make = Callable[..., Experiment]


class Given:
    """Returns what it was given, as a function of its view."""

    def __init__(self, rows: Callable[[View], Any]) -> None:
        self.rows = rows

    def craft(self, state: Any, view: View, rng: torch.Generator) -> Any:
        return self.rows(view), state


def ready_for(tiny: Make, attack: Any, **changes: Any) -> Prepared:
    return prepare(tiny(**SIMPLE | {"attack": attack} | changes))


def play(ready: Prepared, rounds: int = 1, **more: Any) -> tuple[FederationState, RoundLog]:
    state = ready.federation.start(ready.start, ready.streams)
    for _ in range(rounds):
        state, log = run_round(state, ready.federation, ready.streams, **more)
    return state, log


def sevens(view: View) -> Tensor:
    return torch.full((view.rows, len(view.parameters)), 7.0)


WRONG: dict[str, tuple[Callable[[View], Any], str]] = {
    "array": (lambda v: sevens(v).numpy(), "a value of type ndarray; use torch.from_numpy to"),
    "list": (lambda v: sevens(v).tolist(), "a value of type list; use torch.stack to convert a"),
    "list of rows": (lambda v: list(sevens(v)), "a value of type list; use torch.stack"),
    "none": (lambda v: None, "not None"),
    "text": (lambda v: "x" * 10**6, "not 'xxx"),
}


@pytest.mark.parametrize(("rows", "message"), WRONG.values(), ids=WRONG)
def test_rows_of_another_type_are_the_users_mistake(rows: Any, message: str, tiny: Make) -> None:
    """Not dropped, which would disarm the attack without a word; also within a wrapper."""
    attack = Given(rows)
    wrapped = (Budgeted(attack, 2.0), Jittered(attack, 0.1), Delayed(attack, 1), attack)
    for made in wrapped:
        with pytest.raises(ConfigError, match="the rows that the attack Given returns") as told:
            play(ready_for(tiny, made))
        assert message in str(told.value)
        assert len(str(told.value)) < 300


def test_a_state_that_is_forgotten_is_told_shortly(tiny: Make) -> None:
    class Three:
        def craft(self, state: Any, view: View, rng: Any) -> Any:
            return sevens(view), state, "x" * 10**6, 1

    with pytest.raises(
        ConfigError, match=r"Three must return \(rows, state\).*a tuple of 4"
    ) as told:
        play(ready_for(tiny, Three()))
    assert len(str(told.value)) < 400


def test_rows_as_an_action_are_read_like_an_attacks(tiny: Make) -> None:
    ready = ready_for(tiny, SignFlip())
    rows = torch.full((2, ready.layout.size), 3, dtype=torch.long)
    whole, _ = play(ready, action=rows)
    floats, _ = play(ready, action=rows.float())
    assert torch.equal(whole.parameters, floats.parameters)
    _, log = play(ready, action=rows[:, 1:])
    assert set(log.dropped) == ready.federation.malicious
    for wrong in (rows.numpy(), rows.tolist()):
        with pytest.raises(ConfigError, match=r"action, .* must be one tensor \[m, d\]") as told:
            play(ready, action=wrong)
        assert len(str(told.value)) < 200


UNFIT: dict[str, Callable[[View], Tensor]] = {
    "sparse": lambda v: sevens(v).to_sparse(),
    "meta": lambda v: sevens(v).to("meta"),
    "nested": lambda v: torch.nested.nested_tensor(list(sevens(v))),
    "complex": lambda v: sevens(v).to(torch.complex64),
    "quantized": lambda v: torch.quantize_per_tensor(sevens(v), 0.1, 0, torch.qint8),
    "too large for float32": lambda v: sevens(v).double() * 1e200,
    "short": lambda v: sevens(v)[:, 1:],
    "one row": lambda v: sevens(v)[0],
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("rows", UNFIT.values(), ids=UNFIT)
def test_tensors_that_are_no_rows_are_dropped(rows: Any, tiny: Make) -> None:
    """As if the two had sent nothing; through a wrapper too."""
    made: list[Any] = [Given(rows), Jittered(Given(rows), 0.5)]
    if rows(VIEW).dtype != torch.float64:  # of which a budget would make rows that fit
        made.append(Budgeted(Given(rows), 5.0))
    for attack in made:
        ready = ready_for(tiny, attack)
        state, log = play(ready)
        assert set(log.dropped) == ready.federation.malicious
        honest = replace(ready.federation, malicious=frozenset(), attack=None)
        alone = ready.federation.start(ready.start)
        rows_of = honest.local.updates(
            alone.parameters, {}, [c for c in range(11) if c not in log.dropped], ready.streams, 1
        )
        torch.testing.assert_close(state.parameters, ready.start + rows_of.mean(dim=0))


def test_truth_values_are_numbers(tiny: Make) -> None:
    ones, log = play(ready_for(tiny, Given(lambda v: sevens(v) > 0)))
    floats, _ = play(ready_for(tiny, Given(lambda v: sevens(v) / 7)))
    assert log.dropped == ()
    assert torch.equal(ones.parameters, floats.parameters)
    wrapped, _ = play(ready_for(tiny, Budgeted(Given(lambda v: sevens(v) > 0), 1e9)))
    assert torch.equal(wrapped.parameters, floats.parameters)


def test_no_autograd_history_outlives_a_round(tiny: Make) -> None:
    """Else each round would hold on to all before it."""
    weight = torch.ones((), requires_grad=True)

    class Tracked:
        def craft(self, state: Any, view: View, rng: Any) -> Any:
            rows = weight * sevens(view)
            return rows, {"kept": [rows]}

    ready = ready_for(tiny, Tracked(), aggregator=lambda rows: rows.mean(dim=0))
    state, _ = play(ready, 2)
    plain, _ = play(replace(ready, federation=replace(ready.federation, attack=Given(sevens))), 2)
    assert not state.parameters.requires_grad
    assert not state.attack["kept"][0].requires_grad
    assert torch.equal(state.parameters, plain.parameters)


KNOWLEDGE = "a set of benign, clients, colluders, rule"
UNFIT: dict[str, tuple[str, Any, str]] = {
    "text": ("knowledge", "rule", f"must be {KNOWLEDGE}; it is 'rule'"),
    "unknown": ("knowledge", {"nonsense"}, f"must be {KNOWLEDGE}; it is 'nonsense'"),
    "mixed": ("knowledge", [["rule"]], f"must be {KNOWLEDGE}"),
    "colluders": ("min_colluders", 0, "must be a whole number from 1 on; it is 0"),
    "half a colluder": ("min_colluders", 1.5, "whole number from 1 on; it is 1.5"),
    "history": ("history", -1, "whole number from 0 on; it is -1"),
    "all history": ("history", True, "whole number from 0 on; it is True"),
    "honest updates": ("uses_honest_updates", "no", "must be true or false; it is 'no'"),
    "first round": ("first_round", 0, "whole number from 1 on; it is 0"),
    "late": ("first_round", "late", "whole number from 1 on; it is 'late'"),
    "latest start": ("latest_start", 0, "whole number from 1 on, or None; it is 0"),
    "no poison": ("poisons_data", 0, "must be true, false or None; it is 0"),
    "poison": ("poisons_data", "x", "must be true, false or None; it is 'x'"),
    "start": ("start_field", 3, "must be the name of a field or None; it is 3"),
}


@pytest.mark.parametrize(("name", "value", "message"), UNFIT.values(), ids=UNFIT)
def test_requirements_of_another_kind_are_refused(name: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"{name} of the requirements of an attack must") as told:
        Requirements(**{name: value})
    assert message in str(told.value)


def test_what_a_users_own_attack_declares_must_be_requirements(tiny: Make) -> None:
    attack: Any = Given(sevens)
    assert requirements(attack) == Requirements()
    attack.requires = {"knowledge": {"rule"}}
    with pytest.raises(ConfigError, match="requires of the attack Given must be a fedrobust"):
        requirements(attack)
    with pytest.raises(ValueError, match="requires of the attack Given"):
        play(ready_for(tiny, attack))
    attack.requires = Requirements()
    for name in ("init", "report", "pictures"):
        setattr(attack, name, 3)
        with pytest.raises(ValueError, match=f"{name} of the attack Given must be a method"):
            ready_for(tiny, attack)  # not at the end of a run
        delattr(attack, name)


@pytest.mark.parametrize("old", ["needs", "least", "trains", "begins", "poisons"])
def test_an_attack_that_declares_as_before_is_refused_with_advice(old: str) -> None:
    attack: Any = Given(sevens)
    setattr(attack, old, 1)
    with pytest.raises(ConfigError, match=f"Given has {old}: declare requires = fedrobust.attacks"):
        requirements(attack)


def test_an_attack_may_copy_its_view_whoever_watches(tiny: Make) -> None:
    class Copying:
        def craft(self, state: Any, view: View, rng: Any) -> Any:
            return deepcopy(view).own, state

    class Display:
        def __init__(self) -> None:
            self.lock = threading.RLock()  # which cannot be copied

        def told(self, text: str) -> None: ...

    ready = ready_for(tiny, Copying())
    host = Host(Progress(troubled=Display().told))
    state = ready.federation.start(ready.start)
    run_round(state, ready.federation, ready.streams, host=host)


def test_knowledge_may_be_any_collection_of_names() -> None:
    for given in (["rule"], ("rule",), {"rule"}, frozenset({"rule"})):
        assert Requirements(knowledge=given).knowledge == frozenset({"rule"})  # type: ignore[arg-type]


def test_a_poisoning_that_is_none_is_the_users_mistake(tiny: Make) -> None:
    class Bad(Given):
        def poison(self, x: Tensor, y: Tensor, classes: int) -> Any:
            return x.numpy(), y

    with pytest.raises(ConfigError, match=r"poison of the attack Bad must give a batch \(x, y\)"):
        play(ready_for(tiny, Bad(sevens)))

    class Short(Given):
        def poison(self, x: Tensor, y: Tensor, classes: int) -> Any:
            return x, y[:-1]

    with pytest.raises(
        ConfigError, match=r"attack Short must give a batch .* 8 examples but 7 labels"
    ):
        play(ready_for(tiny, Short(sevens)))


def test_a_row_that_is_not_finite_does_not_disarm_the_adversary(tiny: Make) -> None:
    """A benign client that has blown up: the view leaves it out, as the server will."""
    views: list[View] = []

    def keep(view: View) -> Tensor:
        views.append(view)
        return view.own

    class Broken:
        """Client 3 sends NaN."""

        def local_updates(self, federation: Any, state: Any, clients: Any, *rest: Any) -> Tensor:
            rows = federation.local.updates(
                state.parameters, state.store, clients, rest[0], state.round + 1, rest[1]
            )
            rows[clients.index(3)] = torch.nan
            return rows

    ready = ready_for(tiny, Given(keep), threat={"benign": True})
    assert 3 not in ready.federation.malicious
    _, log = play(ready, backend=Broken())
    (view,) = views
    assert view.benign is not None
    assert view.benign_clients is not None
    assert log.dropped == (3,)
    assert 3 not in view.benign_clients
    assert len(view.benign_clients) == 8
    assert torch.isfinite(view.benign).all()
    mimic = replace(ready.federation, attack=Mimic())
    state = mimic.start(ready.start)
    for _ in range(2):
        state, log = run_round(state, mimic, ready.streams, backend=Broken())
        assert log.dropped == (3,)
    assert torch.isfinite(state.attack["mean"]).all()


def test_arguments_of_a_round_are_told(tiny: Make) -> None:
    ready = ready_for(tiny, SignFlip())
    state = ready.federation.start(ready.start)
    for wrong, name in (
        ((None, ready.federation, ready.streams), "state must be a FederationState; got None"),
        ((state, ready, ready.streams), "federation must be a Federation; got a value of type Pr"),
        ((state, ready.federation, seeded()), "rng must be a Streams; got"),
        (
            (replace(state, parameters=OWN), ready.federation, ready.streams),
            r"state.parameters must be one floating-point vector \[d\]",
        ),
    ):
        with pytest.raises(ValueError, match=name):
            run_round(*wrong)  # type: ignore[arg-type]


def test_an_attack_that_asks_for_what_no_view_has_is_told_what_there_is(tiny: Make) -> None:
    class Asking:
        def craft(self, state: Any, view: View, rng: torch.Generator) -> Any:
            return view.colluders, state  # type: ignore[attr-defined]

    with pytest.raises(AttributeError, match=r"a View has no colluders.*; it has .*own, benign"):
        play(ready_for(tiny, Asking()))
