"""Clients that train together against the same clients one after another."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fedrobust import run
from fedrobust.clients.client import Client
from fedrobust.clients.cohort import unsupported
from fedrobust.clients.local_training import LocalTraining
from fedrobust.clients.optimizers import Adam, Sgd
from fedrobust.clients.turn import Store
from fedrobust.compute.parameters import read
from fedrobust.compute.randomness import Streams
from fedrobust.data import Split
from fedrobust.errors import ConfigError, ResourceError
from fedrobust.experiment import Experiment
from fedrobust.objectives import Adversarial, Objective, WassersteinDRO
from fedrobust.perturb import Ascent, Pgd
from fedrobust.perturb.perturbation import Draw
from fedrobust.runs.prepare import prepare
from fedrobust.typing import Images, Labels

STREAMS = Streams(5)
PGD = Adversarial(ratio=0.5, attack=Pgd(eps=0.2, step_size=0.1, steps=3, restarts=2))


class Louder(nn.Module):
    """Answers otherwise in training."""

    def forward(self, x: Tensor) -> Tensor:
        return x.pow(3) if self.training else x


def network() -> nn.Sequential:
    """With GroupNorm and a convolution, for oblong RGB images; it works in place."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        body = [
            nn.Conv2d(3, 4, 3),
            nn.GroupNorm(2, 4),
            nn.ReLU(inplace=True),
            nn.Flatten(),
            Louder(),
        ]
        return nn.Sequential(*body, nn.Linear(4 * 3 * 5, 3)).double()


def training(objective: Objective, config: Client, **changes: Any) -> LocalTraining:
    g = torch.Generator().manual_seed(2)
    x = torch.rand(100, 3, 5, 7, generator=g, dtype=torch.float64)
    task = LocalTraining(
        model=network(),
        data=Split(x, torch.randint(3, (100,), generator=g)),
        classes=3,
        clients=tuple(torch.arange(*ends) for ends in ((0, 40), (40, 43), (43, 70), (70, 100))),
        objective=objective,
        config=config,
        batch=64,
        device=torch.device("cpu"),
    )
    return replace(task, **changes)


class Sideways:
    """A user's own objective: moves every input by a draw of its own."""

    def perturbed(self, examples: int, round: int) -> int:
        return examples

    def draw(self, x: Images, generator: torch.Generator) -> Tensor | None:
        return torch.rand(x.shape, generator=generator, dtype=x.dtype)

    def maximize(
        self, model: nn.Module, x: Images, y: Labels, draw: Draw, *, batch: int | None = None
    ) -> Images:
        noise = draw()
        assert noise is not None
        return x + 0.1 * noise


@pytest.mark.parametrize(
    "objective", [PGD, WassersteinDRO(2.0, Ascent(steps=3)), Sideways()], ids=["pgd", "dro", "own"]
)
@pytest.mark.parametrize(
    "config",
    [
        Client(batch_size=16, epochs=1, optimizer=Adam(0.01), keep_optimizer=True),
        Client(batch_size=10, batches=3, optimizer=Sgd(0.1, momentum=0.9, nesterov=True)),
    ],
    ids=["uneven epochs", "batches"],
)
def test_together_is_one_after_another(objective: Objective, config: Client) -> None:
    """Clients of 3 to 40 examples, whose last batches are smaller and of different number."""
    task = training(objective, config)
    start = read(task.model)
    stores = Store(), Store()
    for round in (1, 2, 3):
        alone, together = (
            replace(task, together=form).updates(start, store, [0, 1, 3], STREAMS, round)
            for form, store in zip((False, True), stores, strict=True)
        )
        assert alone.abs().amin() > 0 or alone.count_nonzero() > 0.9 * alone.numel()
        torch.testing.assert_close(together, alone, rtol=0, atol=1e-12)
    assert stores[0].keys() == stores[1].keys()
    for client in stores[0]:
        for name, value in stores[0][client].items():
            torch.testing.assert_close(stores[1][client][name], value, rtol=0, atol=1e-12)


def test_clients_may_have_taken_part_in_different_rounds() -> None:
    """Adam's correction counts each client's own steps."""
    config = Client(batch_size=16, batches=1, optimizer=Adam(0.01), keep_optimizer=True)
    found = []
    for together in (False, True):
        task, store = training(PGD, config, together=together), Store()
        start = read(task.model)
        task.updates(start, store, [0, 2], STREAMS, 1)
        found.append(task.updates(start, store, [0, 2, 3], STREAMS, 2))
        assert [int(store[client]["step"]) for client in (0, 2, 3)] == [2, 2, 1]
    torch.testing.assert_close(found[1], found[0], rtol=0, atol=1e-12)


def test_a_users_module_fits() -> None:
    model = nn.Sequential(nn.Flatten(), Own(), nn.Linear(105, 3)).double()
    task = training(PGD, Client(batch_size=8, batches=1, optimizer=Adam(0.01)), model=model)
    for examples in (1, 2):
        assert unsupported(task, task.model, task.data.x[:examples]) is None


class Own(nn.Module):
    """Works in place, without parameters."""

    def forward(self, x: Tensor) -> Tensor:
        return x.sub_(0.5).mul_(2)


class Remembering(nn.Module):
    """Reads its parameters in another way, too, which sees one client's at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(105, 3)
        self.known = list(self.layer.parameters())

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.flatten(1)) / self.known[0].detach().norm()


class Branching(nn.Module):
    """Asks for the value of its input, which no batch of clients has."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(105, 3)

    def forward(self, x: Tensor) -> Tensor:
        sign = 1 if float(x.sum()) > 0 else -1
        return self.layer(sign * x.flatten(1))


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(105, 3), nn.Dropout(0.5)), "draws random numbers"),
        (Remembering(), "its gradients for several clients at once differ"),
        (Branching(), "torch.func.vmap does not take the model: vmap: It looks like"),
    ],
    ids=["dropout", "remembering", "branching"],
)
def test_what_does_not_fit_is_told(model: nn.Module, said: str) -> None:
    config = Client(batch_size=8, batches=1, optimizer=Adam(0.01))
    task = training(PGD, config, model=model.double())
    reason = unsupported(task, task.model, task.data.x[:2])
    assert reason is not None
    assert said in reason


@pytest.mark.slow
def test_a_run_with_vmap_is_a_run_with_autograd(tiny: Callable[..., Experiment]) -> None:
    """By SGD: a step of Adam has the same size for a slope of rounding alone, up or down."""
    plan = {"device": "cpu", "threads": 1, "batch": 64}
    client = {"batch_size": 16, "batches": 1, "optimizer": {"name": "sgd", "lr": 0.1}}
    forms = [
        tiny(rounds=3, client=client, execution=plan | {"gradients": form})
        for form in ("autograd", "vmap")
    ]
    assert [prepare(form).federation.local.together for form in forms] == [False, True]
    found = [run(form) for form in forms]
    one, other = (result.state.parameters for result in found)
    torch.testing.assert_close(other, one, rtol=1e-5, atol=1e-6)


def test_vmap_is_refused_where_it_does_not_fit(tiny: Callable[..., Experiment]) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.Dropout(0.1))
    with pytest.raises(
        ConfigError, match=r"execution\.gradients: vmap does not fit: the model draws"
    ):
        prepare(tiny(model=model, execution={"device": "cpu", "gradients": "vmap"}))


def test_a_cpu_takes_vmap_only_if_asked(tiny: Callable[..., Experiment]) -> None:
    assert prepare(tiny(execution={"device": "cpu"})).plan.gradients == "autograd"


def test_a_unit_that_does_not_fit_is_refused_with_the_figure(
    tiny: Callable[..., Experiment], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight clients with 16 examples are a unit; each needs six vectors of 38,282 parameters."""
    monkeypatch.setattr("fedrobust.compute.memory.available_memory", lambda device: 10 * 2**20)
    plan = {"device": "cpu", "threads": 1, "batch": 128}
    prepare(tiny(execution=plan | {"gradients": "autograd"}))
    with pytest.raises(ResourceError, match="8 clients of 38,282 parameters train together"):
        prepare(tiny(execution=plan | {"gradients": "vmap"}))
    prepare(tiny(execution=plan | {"gradients": "vmap", "batch": 8}))
