"""A function of the user's that cannot be called as it will be is told of before the first round.

An error inside the user's code is the user's to see, with its traceback.
"""

import functools
import traceback
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter

from fedrobust import Federation, Streams, run_round
from fedrobust.aggregators import Aggregation, AnyAggregator, Bucketing
from fedrobust.attacks import AnyAttack, Budgeted, SignFlip
from fedrobust.config.component import read_as
from fedrobust.config.signature import misfit
from fedrobust.data import AnyData, AnyPartition
from fedrobust.errors import ConfigError
from fedrobust.federation.one_call import on_rows
from fedrobust.federation.participation import AnyParticipation
from fedrobust.federation.projection import AnyProjection
from fedrobust.federation.server_optimizer import AnyServerOptimizer
from fedrobust.models import AnyModel
from fedrobust.objectives import ERM, AnyObjective
from fedrobust.perturb import AnyPerturbation

X, Y = torch.rand(8, 4), torch.arange(8) % 2


def taking(**methods: Any) -> Any:
    """An object with these methods."""
    return type("Own", (), methods)()


WRONG: dict[str, tuple[Any, Any, str]] = {
    "craft": (
        AnyAttack,
        taking(craft=lambda self, view: None),
        "Own is no attack: its craft takes (view), but is called as craft(state, view, rng)",
    ),
    "craft without self": (
        AnyAttack,
        taking(craft=lambda state, view, rng: None),
        "its craft takes (view, rng), but is called as craft(state, view, rng): the first "
        "parameter of a method must be self",
    ),
    "init": (
        AnyAttack,
        taking(craft=lambda self, state, view, rng: None, init=lambda self, d: None),
        "its init takes (d), but is called as init()",
    ),
    "poison": (
        AnyAttack,
        taking(craft=lambda self, state, view, rng: None, poison=lambda self, x, y: None),
        "its poison takes (x, y), but is called as poison(x, y, classes)",
    ),
    "aggregate": (
        AnyAggregator,
        taking(aggregate=lambda self, updates: None),
        "Own is no aggregator: its aggregate takes (updates), but is called as "
        "aggregate(updates, context)",
    ),
    "rule": (
        AnyAggregator,
        lambda updates, weights: None,
        "it takes (updates, weights), but is called as aggregator(updates)",
    ),
    "check": (
        AnyAggregator,
        taking(aggregate=lambda self, updates, context: None, check=lambda self: None),
        "its check takes (), but is called as check(n)",
    ),
    "maximize": (
        AnyPerturbation,
        taking(draw=lambda self, x, generator: None, maximize=lambda self, model, x, y, draw: x),
        "its maximize takes (model, x, y, draw), but is called as maximize(model, x, y, draw, *, "
        "batch)",
    ),
    "loss": (
        AnyObjective,
        taking(
            perturbed=ERM.perturbed,
            draw=ERM.draw,
            maximize=ERM.maximize,
            loss=lambda self, model, x, y: None,
        ),
        "its loss takes (model, x, y), but is called as loss(model, x, perturbed, y, context)",
    ),
    "choose": (
        AnyParticipation,
        taking(size=lambda self, clients: 1, choose=lambda self, clients: (0,)),
        "its choose takes (clients), but is called as choose(clients, generator)",
    ),
    "project": (AnyProjection, taking(project=lambda self: None), "called as project(parameters)"),
    "step": (AnyServerOptimizer, taking(step=lambda self, g: g), "called as step(slots, update)"),
    "load": (AnyData, taking(load=lambda self, path: None, validation=1), "called as load()"),
    "split": (AnyPartition, taking(split=lambda self, t: t), "split(train, test, generator)"),
}


@pytest.mark.parametrize(("kind", "own", "message"), WRONG.values(), ids=WRONG)
def test_a_method_with_other_arguments_is_refused(kind: Any, own: Any, message: str) -> None:
    with pytest.raises(ConfigError) as told:
        read_as(kind, own, "here")
    assert message in str(told.value)


def test_so_it_is_inside_wrappers_and_in_loops_and_calls_of_ones_own() -> None:
    attack, rule = WRONG["craft"][1], WRONG["rule"][1]
    clients = [(X, Y)] * 4
    for refused in (
        lambda: Budgeted(attack, 2.0),
        lambda: Bucketing(s=2, rule=rule),
        lambda: Federation.of(torch.nn.Linear(4, 2), clients, attack=attack, malicious=1),
        lambda: Federation.of(torch.nn.Linear(4, 2), clients, aggregator=rule),
        lambda: on_rows(attack, X, malicious=2),
        lambda: on_rows(SignFlip(), X, malicious=2, rule=rule),
    ):
        with pytest.raises(ConfigError, match="but is called as"):
            refused()


class Built(torch.nn.Module):
    """A network with a method of that name for itself."""

    def build(self) -> None:
        """Do nothing."""


def doubled(function: Any) -> Any:
    """A decorator that gives the last argument, and takes the name and the docstring."""

    @functools.wraps(function)
    def given(*arguments: Any) -> Any:
        return function(*arguments, 2.0)

    return given


RIGHT: dict[str, tuple[Any, Any]] = {
    "all that comes": (AnyAttack, taking(craft=lambda self, *given, **named: None)),
    "static": (AnyAttack, taking(craft=staticmethod(lambda state, view, rng: None))),
    "other names": (AnyAttack, taking(craft=lambda self, a, b, c, d=3: None)),
    "a function": (AnyAggregator, lambda updates, share=0.5: updates.mean(0)),
    "one of C": (AnyAggregator, torch.sum),
    "a module": (AnyAggregator, torch.nn.Identity()),
    "a network, whatever it has": (AnyModel, Built()),
    "a default context": (AnyAggregator, taking(aggregate=lambda self, rows, context=None: rows)),
    "a decorated rule": (AnyAggregator, doubled(lambda updates, factor: factor * updates.mean(0))),
    "a decorated craft": (AnyAttack, taking(craft=doubled(lambda self, s, v, r, by: (v.own, s)))),
    "its call is not called": (
        AnyAggregator,
        taking(aggregate=lambda self, u, c: u, __call__=lambda self: None),
    ),
}


@pytest.mark.parametrize(("kind", "own"), RIGHT.values(), ids=RIGHT)
def test_what_can_be_called_is_taken(kind: Any, own: Any) -> None:
    assert TypeAdapter(kind).validate_python(own) is own


def test_an_attribute_that_fails_to_tell_its_signature_is_left_to_the_call() -> None:
    class Strange:
        __signature__ = property(lambda self: 1 / 0)

        def __call__(self) -> None:
            """Do nothing."""

    assert misfit(Strange(), "craft", "state, view, rng") == ""


class Slips:
    """A rule and an attack whose own code calls something with the wrong arguments."""

    def craft(self, state: Any, view: Any, rng: Any) -> Any:
        return self._inner(view)  # type: ignore[call-arg]

    def aggregate(self, updates: Any, context: Any) -> Aggregation:
        return Aggregation(self._inner(updates))  # type: ignore[call-arg]

    def _inner(self, one: Any, two: Any) -> Any:
        return one


@pytest.mark.parametrize("given", [{"attack": Slips(), "malicious": 1}, {"aggregator": Slips()}])
def test_a_type_error_of_the_users_code_keeps_its_traceback(given: dict[str, Any]) -> None:
    federation = Federation.of(torch.nn.Linear(4, 2), [(X, Y)] * 4, **given)
    with pytest.raises(TypeError, match="_inner") as told:
        run_round(federation.start(), federation, Streams(0))
    assert "return " in traceback.format_list(traceback.extract_tb(told.tb))[-1]
    assert traceback.extract_tb(told.tb)[-1].filename == __file__
