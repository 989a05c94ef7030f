"""Clients train with any optimiser class of PyTorch's kind."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from torch import nn

from fedrobust import Experiment, run
from fedrobust.clients.optimizers import Adam, AnyOptimizer, TorchOptim
from fedrobust.compute.network import parameter_gradient
from fedrobust.compute.parameters import write
from fedrobust.config.component import from_config, to_config
from fedrobust.runs.prepare import prepare

BLOCKS: dict[str, tuple[dict[str, Any], int]] = {
    "AdamW": ({"name": "torch.optim:AdamW", "lr": 1e-2, "weight_decay": 0.1}, 2),
    "RMSprop": ({"name": "torch.optim:RMSprop", "lr": 1e-3, "momentum": 0.5}, 2),
    "Adagrad": ({"name": "torch.optim:Adagrad", "lr": 1e-2}, 1),
    "NAdam": ({"name": "torch.optim:NAdam", "lr": 1e-3, "betas": [0.8, 0.9]}, 2),
}
READ: Any = TypeAdapter(AnyOptimizer)


@pytest.mark.parametrize(("block", "slots"), BLOCKS.values(), ids=BLOCKS)
def test_two_rounds_are_those_of_the_optimiser_itself(
    tiny: Callable[..., Experiment], block: dict[str, Any], slots: int
) -> None:
    """With its state kept, at a rate that falls; written out in float64."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).double()
    factor = [{"value": 1.0, "until": 1}, {"value": 0.5}]
    client = {"batch_size": 8, "batches": 2, "optimizer": block}
    client |= {"keep_optimizer": True, "lr_factor": factor}
    changes = {"malicious": 0, "attack": None, "aggregator": {"name": "mean"}}
    experiment = tiny(model=model, client=client, objective={"name": "erm"}, **changes)
    assert from_config(Experiment, to_config(experiment) | {"model": model}).client == (
        experiment.client
    )
    assert experiment.client.optimizer.slots() == slots
    ready = prepare(experiment)
    local, store = ready.federation.local, dict[int, Any]()
    settings = {key: value for key, value in block.items() if key not in ("name", "lr")}
    kept: Any = None
    for round, rate in ((1, block["lr"]), (2, 0.5 * block["lr"])):
        (row,) = local.updates(ready.start, store, [3], ready.streams, round)
        theta = nn.Parameter(ready.start.clone())
        kind = getattr(torch.optim, block["name"].partition(":")[2])
        optimizer = kind([theta], lr=block["lr"], **settings)
        if kept is not None:
            optimizer.state[theta] = kept
        optimizer.param_groups[0]["lr"] = rate
        shuffle = ready.streams.generator("batches", round, 3)
        for index in local.config.schedule(local.clients[3], shuffle):
            write(local.model, theta.detach())
            x, y = local.data.images(index).double(), local.data.y[index]
            theta.grad = parameter_gradient(local.model, x, y)
            optimizer.step()
        kept = optimizer.state[theta]
        torch.testing.assert_close(row, theta.detach() - ready.start, rtol=1e-10, atol=1e-14)


def test_it_plays_a_run(tiny: Callable[..., Experiment]) -> None:
    client = {"batch_size": 16, "batches": 1, "optimizer": BLOCKS["AdamW"][0]}
    played = run(tiny(client=client, rounds=2))
    assert played.summary.troubles == ()


def test_a_class_is_a_name_and_fields_stand_beside_the_rate_or_in_settings() -> None:
    flat = READ.validate_python({"name": "torch.optim:AdamW", "lr": 0.1, "eps": 1e-6})
    deep = READ.validate_python({"name": "torch.optim:AdamW", "lr": 0.1, "settings": {"eps": 1e-6}})
    assert flat == deep == READ.validate_python(to_config(flat))
    named = TorchOptim(torch.optim.AdamW, lr=0.1)  # type: ignore[arg-type]
    assert named.name == "torch.optim.adamw:AdamW"
    assert isinstance(READ.validate_python({"name": "adam", "lr": 0.1}), Adam)


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no such class": ({"name": "torch.optim:AdamX", "lr": 0.1}, "has no attribute 'AdamX'"),
    "no rate": ({"name": "torch.optim:AdamW"}, "lr is required"),
    "a negative rate": ({"name": "torch.optim:AdamW", "lr": -1.0}, "greater than 0"),
    "a field of nobody's": (
        {"name": "torch.optim:AdamW", "lr": 0.1, "wd": 3},
        "cannot step: TypeError: .*unexpected keyword argument 'wd'",
    ),
    "it needs a closure": ({"name": "torch.optim:LBFGS", "lr": 0.1}, "cannot step: .*closure"),
}


@pytest.mark.parametrize("case", WRONG.values(), ids=WRONG)
def test_what_cannot_step_is_refused_at_once(case: tuple[dict[str, Any], str]) -> None:
    with pytest.raises(ValueError, match=case[1]):
        READ.validate_python(case[0])


class Drawing(torch.optim.SGD):
    """Adds noise from PyTorch's global generator to each step, as Langevin dynamics do."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        super().step()
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.data += 0.01 * torch.randn_like(parameter)


class Noisy:
    """A user's objective whose loss draws from PyTorch's global generator."""

    def perturbed(self, examples: int, round: int) -> int:
        return 0

    def draw(self, x: torch.Tensor, generator: torch.Generator) -> None:
        return None

    def maximize(self, model: Any, x: torch.Tensor, y: Any, draw: Any, **_: Any) -> torch.Tensor:
        return x

    def loss(self, model: Any, x: torch.Tensor, perturbed: Any, y: Any, context: Any) -> Any:
        return nn.functional.cross_entropy(model(x + 0.1 * torch.randn_like(x)), y)


@pytest.mark.parametrize("what", ["optimizer", "objective"])
def test_what_draws_draws_the_same_wherever_it_is_played(
    tiny: Callable[..., Experiment], what: str
) -> None:
    """Whatever the global generator stands at, and in whatever order the clients train."""
    client: dict[str, Any] = {
        "batch_size": 8,
        "batches": 2,
        "optimizer": {"name": "sgd", "lr": 0.1},
    }
    changes: dict[str, Any] = {"malicious": 0, "attack": None, "aggregator": {"name": "mean"}}
    if what == "optimizer":
        client["optimizer"] = TorchOptim(Drawing, lr=0.1)  # type: ignore[arg-type]
    else:
        changes["objective"] = Noisy()
    ready = prepare(tiny(client=client, **changes))
    found = []
    for seed, order in ((1, [0, 1, 2]), (2, [2, 1, 0])):
        torch.manual_seed(seed)
        rows = ready.federation.local.updates(ready.start, {}, order, ready.streams, 1)
        found.append(rows[[order.index(i) for i in (0, 1, 2)]])
    assert torch.equal(*found)
    assert not torch.equal(found[0][0], found[0][1])
