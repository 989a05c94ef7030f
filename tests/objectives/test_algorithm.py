"""A DRFL run is Algorithm 1, transcribed here literally."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from fedrobust import run
from fedrobust.aggregators import Krum, Median
from fedrobust.compute.parameters import Layout
from fedrobust.config.component import from_config
from fedrobust.evaluation import certificate
from fedrobust.evaluation.shift import error_under_shift
from fedrobust.experiment import Experiment
from fedrobust.federation.round import run_round
from fedrobust.runs.examples import Examples
from fedrobust.runs.measure import on_test
from fedrobust.runs.prepare import Prepared, prepare
from fedrobust.runs.weights import Weights

pytestmark = pytest.mark.slow

ETA, GAMMA, RADIUS, STEPS = 0.3, 2.0, 1.5, 6


def experiment(**changes: Any) -> Experiment:
    content: dict[str, Any] = {
        "name": "drfl",
        "rounds": 4,
        "data": {"name": "synthetic-ring", "n": 2000, "test": 200, "validation": 200},
        "partition": {"name": "iid", "clients": 7},
        "model": {"name": "ring-mlp"},
        "objective": {"name": "wasserstein-dro", "gamma": GAMMA, "ascent": {"steps": STEPS}},
        "client": {"batch_size": 8, "batches": 1, "optimizer": {"name": "sgd", "lr": ETA}},
        "aggregator": {"name": "mean"},
        "server": {"projection": {"name": "ball", "radius": RADIUS}},
        "evaluation": {
            "every": 2,
            "attack": {"name": "pgd", "eps": 0.1, "step_size": 0.1, "steps": 1, "box": False},
            "wasserstein": {"levels": [0.1]},
        },
        "execution": {"device": "cpu", "threads": 1, "batch": 64},
    }
    return from_config(Experiment, content | changes)


def loss(ready: Prepared, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
    layout = Layout.of(ready.model)
    pieces = {name: theta[part] for name, part in layout.slices.items()}
    shapes = {name: p.shape for name, p in ready.model.named_parameters()}
    weights = {name: piece.view(shapes[name]) for name, piece in pieces.items()}
    return cross_entropy(functional_call(ready.model, weights, (x[None],)), y[None])


def algorithm_1(ready: Prepared, aggregate: Callable[[Tensor], Tensor], rounds: int) -> Tensor:
    local = ready.federation.local
    theta = ready.start.double()
    ready.model.double()
    for t in range(1, rounds + 1):
        gradients = []
        for j, examples in enumerate(local.clients):
            shuffles = ready.streams.generator("batches", t, j)
            (batch,) = local.config.schedule(examples, shuffles)
            g = torch.zeros_like(theta)
            for i in batch:
                z0, y = local.data.x[i].double(), local.data.y[i]
                z = z0
                for _ in range(STEPS):
                    z = z.detach().requires_grad_()
                    (slope,) = torch.autograd.grad(loss(ready, theta, z, y), z)
                    z = z + (slope - 2 * GAMMA * (z - z0)) / (2 * GAMMA)
                at = theta.clone().requires_grad_()
                (by_theta,) = torch.autograd.grad(loss(ready, at, z.detach(), y), at)
                g += by_theta / len(batch)
            gradients.append(g)
        theta = theta - ETA * aggregate(torch.stack(gradients))
        if theta.norm() > RADIUS:
            theta = theta * RADIUS / theta.norm()
    ready.model.float()
    return theta


RULES: dict[str, tuple[dict[str, Any], Callable[[Tensor], Tensor]]] = {
    "mean": ({"name": "mean"}, lambda g: g.mean(dim=0)),
    "median": ({"name": "median"}, lambda g: Median()(g)),
    "krum": ({"name": "krum", "f": 1}, lambda g: Krum(1)(g)),
}


@pytest.mark.parametrize("rule", RULES)
def test_a_run_is_the_transcription(rule: str) -> None:
    config, aggregate = RULES[rule]
    ready = prepare(experiment(aggregator=config))
    want = algorithm_1(ready, aggregate, 4)
    state, cut = ready.federation.start(ready.start), 0
    for _ in range(4):
        state, log = run_round(state, ready.federation, ready.streams)
        cut += log.outcome.projected
    torch.testing.assert_close(state.parameters.double(), want, rtol=1e-5, atol=1e-6)
    assert cut, "the projection must have been active, or it was not tested"


def test_an_infinite_price_is_erm_bit_for_bit() -> None:
    infinite = experiment(objective={"name": "wasserstein-dro", "gamma": math.inf})
    dro, erm = run(infinite), run(experiment(objective={"name": "erm"}, evaluation=PLAIN))
    assert torch.equal(dro.state.parameters, erm.state.parameters)
    assert not torch.equal(run(experiment()).state.parameters, erm.state.parameters)


PLAIN = {
    "every": 2,
    "attack": {"name": "pgd", "eps": 0.1, "step_size": 0.1, "steps": 1, "box": False},
}


def test_every_evaluation_has_the_certificate_and_the_end_the_shift() -> None:
    result = run(experiment())
    for line in result.metrics:
        found = line["wasserstein"]
        assert found["worst_case_loss"] == pytest.approx(GAMMA * found["rho"] + found["surrogate"])
        assert found["accuracy"] == pytest.approx(line["accuracy"])
        assert sum(found["answers"]) == pytest.approx(1)
    final = result.summary["test"]["final"]
    assert set(final["wasserstein"]["by_class"]) == {"0", "1"}
    assert [(s["method"], s["rho"]) for s in final["shift"]] == [("wrm", 0.1), ("pgd", 0.1)]


def test_the_shift_and_the_certificate_on_training_examples_are_of_drawn_ones() -> None:
    """Not of the first ones; and the training examples are those of all clients."""
    ready = prepare(
        experiment(evaluation=PLAIN | {"wasserstein": {"levels": [0.1], "samples": 50}})
    )
    found = on_test(ready, Weights(ready.start), 0)
    local = ready.federation.local.data
    trained = Examples(local, torch.arange(len(local))).some(50, ready.streams).index
    x, y = local.images(trained), local.y[trained]
    wanted = certificate(ready.model, x, y, gamma=GAMMA)
    assert found["training_wasserstein"]["rho"] == pytest.approx(wanted.rho)
    assert found["training_wasserstein"]["rho"] != found["wasserstein"]["rho"]
    tested = ready.testing.some(50, ready.streams).index
    assert tested[-1] > 100, "not the first ones"
    x, y = ready.testing.split.images(tested), ready.testing.split.y[tested]
    shift = error_under_shift(ready.model, x, y, levels=(0.1,), method="pgd")
    assert found["shift"][1]["loss"] == pytest.approx(shift[0].loss)


def test_a_certificate_needs_a_price() -> None:
    asked = PLAIN | {"wasserstein": {"levels": [0.1]}}
    with pytest.raises(ValueError, match=r"evaluation.wasserstein.gamma: is required"):
        run(experiment(objective={"name": "erm"}, evaluation=asked))
    given = PLAIN | {"wasserstein": {"gamma": {"relative": 0.04}}}
    found = run(experiment(objective={"name": "erm"}, evaluation=given)).metrics[-1]["wasserstein"]
    assert 0.04 < found["gamma"] < 0.06
