"""Server optimisers step as their papers say, and go on after a kill."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter

from fedrobust import Experiment, run
from fedrobust.config.component import from_config, to_config
from fedrobust.errors import ConfigError
from fedrobust.federation.server import Outcome, Server
from fedrobust.federation.server_optimizer import (
    SERVER_OPTIMIZERS,
    AnyServerOptimizer,
    FedAdagrad,
    FedAdam,
    FedAvgM,
    FedYogi,
    Plain,
)
from fedrobust.progress import Progress
from fedrobust.runs import loop

DELTAS = np.random.default_rng(0).normal(size=(6, 4)) * [1.0, 1e-3, 10.0, 0.0]
LR = 0.5


def transcribed(kind: str, b1: float, b2: float, tau: float) -> np.ndarray[Any, Any]:
    """Algorithm 2 of Reddi et al., line by line, for one coordinate after the other."""
    x = np.zeros(4)
    for j in range(4):
        m, v = 0.0, tau**2
        for delta in DELTAS[:, j]:
            m = b1 * m + (1 - b1) * delta
            if kind == "fed-adagrad":
                v = v + delta**2
            elif kind == "fed-yogi":
                v = v - (1 - b2) * delta**2 * np.sign(v - delta**2)
            else:
                v = b2 * v + (1 - b2) * delta**2
            x[j] = x[j] + LR * m / (np.sqrt(v) + tau)
    return x


def played(optimizer: Any) -> torch.Tensor:
    server, parameters, slots = Server(lr=LR, optimizer=optimizer), torch.zeros(4).double(), ()
    for delta in DELTAS:
        outcome = Outcome(torch.from_numpy(delta), None)
        parameters, _, slots = server.step(parameters, outcome, slots)
    return parameters


@pytest.mark.parametrize(
    ("optimizer", "numbers"),
    [
        (FedAdam(betas=(0.9, 0.99), tau=1e-3), (0.9, 0.99, 1e-3)),
        (FedYogi(betas=(0.8, 0.95), tau=1e-2), (0.8, 0.95, 1e-2)),
        (FedAdagrad(beta=0.3, tau=1e-2), (0.3, 0.0, 1e-2)),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_adaptive_steps_are_those_of_the_paper(optimizer: Any, numbers: Any) -> None:
    wanted = transcribed(optimizer.name, *numbers)
    np.testing.assert_allclose(played(optimizer).numpy(), wanted, rtol=1e-12)


def test_momentum_is_that_of_sgd_on_the_negative_update() -> None:
    theta = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    sgd = torch.optim.SGD([theta], lr=LR, momentum=0.9)
    for delta in DELTAS:
        theta.grad = -torch.from_numpy(delta)
        sgd.step()
    torch.testing.assert_close(played(FedAvgM(momentum=0.9)), theta.detach())
    torch.testing.assert_close(played(Plain()), LR * torch.from_numpy(DELTAS).sum(dim=0))


@pytest.mark.parametrize("kind", SERVER_OPTIMIZERS, ids=lambda kind: kind.__name__)
def test_it_is_a_value_and_writes_to_nothing(kind: Any) -> None:
    optimizer = kind()
    assert TypeAdapter(AnyServerOptimizer).validate_python(to_config(optimizer)) == optimizer
    update = torch.arange(4.0)
    _, slots = optimizer.step((), update)
    before = [slot.clone() for slot in slots]
    optimizer.step(slots, update)
    assert torch.equal(update, torch.arange(4.0))
    assert all(torch.equal(a, b) for a, b in zip(slots, before, strict=True))


def test_a_round_without_a_step_leaves_everything_as_it_was() -> None:
    server, theta = Server(optimizer=FedAvgM()), torch.zeros(2)
    theta, _, slots = server.step(theta, Outcome(torch.ones(2), None))
    for outcome in (Outcome(None, None), Outcome(torch.tensor([torch.inf, 0.0]), None)):
        after, told, kept = server.step(theta, outcome, slots)
        assert torch.equal(after, theta)
        assert kept is slots
        assert told.vector is None


@pytest.mark.slow
def test_a_run_goes_on_with_what_the_server_kept(
    tmp_path: Path, tiny: Callable[..., Experiment], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "SAVE_EVERY", 0.0)
    experiment = tiny(server={"lr": 0.05, "optimizer": {"name": "fed-adam"}})
    assert from_config(Experiment, to_config(experiment)) == experiment
    straight = run(experiment)

    def stop(log: Any) -> None:
        if log.round == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(experiment, tmp_path / "run", progress=Progress(played=stop))
    resumed = run(experiment, tmp_path / "run", resume=True)
    assert torch.equal(resumed.state.parameters, straight.state.parameters)
    for a, b in zip(resumed.state.server, straight.state.server, strict=True):
        assert torch.equal(a, b)
    plain = run(tiny(server={"lr": 0.05}))
    assert not torch.equal(plain.state.parameters, straight.state.parameters)


class Own:
    name = "own"

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def step(self, slots: Any, update: Any) -> Any:
        update.zero_()
        return self.answer


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (3, r"must give \(step, slots\)"),
        ((torch.zeros(2), [torch.zeros(2)]), r"must give \(step, slots\)"),
        ((torch.zeros(3), ()), r"must give tensors \[2\]"),
        ((torch.zeros(2), (torch.zeros(3),)), r"must give tensors \[2\]"),
    ],
)
def test_a_users_own_is_asked_what_it_gives(answer: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Server(optimizer=Own(answer)).step(torch.zeros(2), Outcome(torch.ones(2), None))
    kept = torch.ones(2)
    good = Server(optimizer=Own((torch.ones(2), ())))
    assert good.step(torch.zeros(2), Outcome(kept, None))[0].tolist() == [1, 1]
    assert kept.tolist() == [1, 1], "it has written to a copy"


@pytest.mark.parametrize(
    "block", [{"name": "fed-avg-m", "momentum": 1.0}, {"name": "fed-adam", "tau": 0.0}, "adam"]
)
def test_what_is_no_server_optimiser_is_refused(block: Any) -> None:
    with pytest.raises(ValueError, match=r"momentum|tau|unknown server optimiser"):
        TypeAdapter(Server).validate_python({"optimizer": block})
