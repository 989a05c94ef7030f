"""Local training against plain PyTorch training of each client on its own."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedrobust.clients.client import Client
from fedrobust.clients.local_training import LocalTraining
from fedrobust.clients.optimizers import Adam, OptimizerSpec, Sgd
from fedrobust.clients.turn import Store
from fedrobust.compute.parameters import read
from fedrobust.compute.randomness import Streams
from fedrobust.data import Split
from fedrobust.errors import ConfigError
from fedrobust.experiment import Experiment
from fedrobust.objectives import ERM, Adversarial, Objective, Phase
from fedrobust.perturb import Pgd
from fedrobust.runs.prepare import prepare

ATTACK = Adversarial(ratio=0.5, attack=Pgd(eps=0.2, step_size=0.1, steps=3, restarts=2))
STREAMS = Streams(11)


def network(dropout: float = 0.0) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = [nn.Flatten(), nn.Linear(16, 8), nn.Tanh(), nn.Dropout(dropout), nn.Linear(8, 3)]
        return nn.Sequential(*layers).double()


def data(n: int = 120) -> Split:
    g = torch.Generator().manual_seed(2)
    x = torch.rand(n, 1, 4, 4, generator=g, dtype=torch.float64)
    return Split(x, torch.randint(3, (n,), generator=g))


def training(config: Client, objective: Objective, **changes: Any) -> LocalTraining:
    clients = tuple(torch.arange(start, start + 24) for start in range(0, 120, 24))
    settings: dict[str, Any] = {
        "model": network(),
        "data": data(),
        "classes": 3,
        "clients": clients,
        "objective": objective,
        "config": config,
        "batch": 7,
        "device": torch.device("cpu"),
    }
    return LocalTraining(**settings | changes)


def literal(task: LocalTraining, client: int, rounds: int, start: nn.Module) -> list[Tensor]:
    """One client trained by an ordinary loop over its own batches; one update per round.

    Every round starts from the parameters of ``start``; its optimiser lives on if it is kept.
    """
    updates: list[Tensor] = []
    kept: dict[str, Any] | None = None
    for round in range(1, rounds + 1):
        model = deepcopy(start).train()
        optimizer: torch.optim.Optimizer
        spec = task.config.optimizer
        factor = 1.0 if task.config.lr_factor == 1.0 or round <= 2 else 0.25
        if isinstance(spec, Adam):
            optimizer = torch.optim.Adam(model.parameters(), lr=factor * spec.lr)
        else:
            assert isinstance(spec, Sgd)
            optimizer = torch.optim.SGD(
                model.parameters(),
                lr=factor * spec.lr,
                momentum=spec.momentum,
                weight_decay=spec.weight_decay,
                nesterov=spec.nesterov,
            )
        if kept is not None and task.config.keep_optimizer:
            optimizer.load_state_dict(
                {"state": kept["state"], "param_groups": optimizer.state_dict()["param_groups"]}
            )
        noise = STREAMS.generator("inner maximisation", round, client)
        shuffles = STREAMS.generator("batches", round, client)
        for index in task.config.schedule(task.clients[client], shuffles):
            x, y = task.data.x[index].clone(), task.data.y[index]
            k = task.objective.perturbed(len(y), round)
            if k:
                part = x[:k].clone()
                x[:k] = task.objective.maximize(
                    model, part, y[:k], lambda p=part, g=noise: task.objective.draw(p, g)
                )
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
        kept = optimizer.state_dict()
        updates.append(read(model) - read(start))
    return updates


@pytest.mark.slow
@pytest.mark.parametrize("objective", [ERM(), ATTACK], ids=["erm", "adversarial"])
@pytest.mark.parametrize(
    "config",
    [
        Client(batch_size=8, batches=1, optimizer=Adam(0.01), keep_optimizer=True),
        Client(batch_size=10, epochs=2, optimizer=Adam(0.01)),
        Client(
            batch_size=10,
            batches=4,
            optimizer=Sgd(0.1, momentum=0.9, weight_decay=0.01, nesterov=True),
            keep_optimizer=True,
        ),
        Client(
            batch_size=10,
            batches=2,
            optimizer=Adam(0.01),
            keep_optimizer=True,
            lr_factor=(Phase(1.0, until=2), Phase(0.25)),
        ),
    ],
    ids=["fat", "epochs", "momentum", "rate drops"],
)
@pytest.mark.parametrize("together", [False, True])
def test_updates_are_those_of_plain_training(
    config: Client, objective: Objective, together: bool
) -> None:
    task, store = training(config, objective, together=together, batch=40), Store()
    start = network()
    chosen = [0, 2, 3]
    for round in (1, 2, 3):
        rows = task.updates(read(start), store, chosen, STREAMS, round)
        for row, client in zip(rows, chosen, strict=True):
            expected = literal(task, client, round, start)[-1]
            torch.testing.assert_close(row, expected, rtol=0, atol=1e-12)
    assert set(store) == (set(chosen) if config.keep_optimizer else set())


@pytest.mark.parametrize("optimizer", [Adam(0.01), Sgd(0.1, momentum=0.9)])
def test_kept_and_reset_optimizers_differ_from_the_second_round_on(
    optimizer: OptimizerSpec,
) -> None:
    rows = {}
    for keep in (True, False):
        config = Client(batch_size=8, batches=1, optimizer=optimizer, keep_optimizer=keep)
        task, store = training(config, ERM()), Store()
        rows[keep] = [task.updates(read(network()), store, [1], STREAMS, r) for r in (1, 2)]
    assert torch.equal(rows[True][0], rows[False][0])
    assert not torch.allclose(rows[True][1], rows[False][1], atol=1e-6)


def test_a_client_does_not_depend_on_who_else_trains_nor_on_their_order() -> None:
    """Dropout included, for which PyTorch has only a global generator."""
    config = Client(batch_size=8, batches=2, optimizer=Sgd(0.1))
    task = training(config, ATTACK, model=network(dropout=0.5), batch=1000)
    state = torch.get_rng_state()
    start = read(network())
    everyone = task.updates(start, {}, [0, 1, 2, 3, 4], STREAMS, 1)
    backwards = task.updates(start, {}, [4, 3, 2, 1, 0], STREAMS, 1)
    torch.testing.assert_close(everyone, backwards.flip(0), rtol=0, atol=1e-12)
    for client in range(5):
        alone = task.updates(start, {}, [client], STREAMS, 1)[0]
        torch.testing.assert_close(everyone[client], alone, rtol=0, atol=1e-12)
    assert torch.equal(torch.get_rng_state(), state)
    still = training(config, ATTACK, batch=1000).updates(start, {}, [3], STREAMS, 1)[0]
    assert (everyone[3] - still).norm() > 0.1 * still.norm()  # dropout was at work


def test_one_inner_maximisation_serves_a_unit() -> None:
    """Four of eight examples are perturbed: units of 1, 2 and 5 clients ask 5, 3 and 1 times."""
    asked = list[int]()

    class Counted(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            asked.append(len(x))
            return x

    config = Client(batch_size=8, batches=1, optimizer=Sgd(0.1))
    counted, rows = nn.Sequential(Counted(), *network()), list[Tensor]()
    for batch, sizes in ((4, {4}), (8, {4, 8}), (20, {20})):
        asked.clear()
        task = training(config, ATTACK, model=counted, batch=batch)
        rows.append(task.updates(read(network()), {}, range(5), STREAMS, 1))
        assert {size for size in asked if size != 8} | {8} == sizes | {8}
    for other in rows[1:]:
        torch.testing.assert_close(other, rows[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("batches", [1, 10])
def test_bfloat16_trains_almost_as_float32_does_and_sends_float32(
    batches: int, tiny: Callable[..., Experiment]
) -> None:
    """A real network on real digits, by SGD: Adam would make ±lr of whatever it is given.

    Of ten steps in a round, the last begins at other weights than the first: weights kept from the
    first would be a third away. At a rate of 0.1, since steps of 0.5 make of the rounding of the
    first weights alone, in float32, up to 7 %, by the processor.
    """
    sent = {}
    for precision in ("float32", "bfloat16"):
        plan = {"device": "cpu", "threads": 1, "batch": 64, "precision": precision}
        sgd = {"name": "sgd", "lr": 0.1}
        client = {"batch_size": 64, "batches": batches, "optimizer": sgd}
        ready = prepare(tiny(execution=plan, client=client, objective={"name": "erm"}))
        args = (ready.start, {}, [0, 3], ready.streams, 1)
        sent[precision] = ready.federation.local.updates(*args)
    full, low = sent["float32"], sent["bfloat16"]
    assert low.dtype == torch.float32
    assert not torch.equal(low, full)
    assert (low - full).norm() < 0.05 * full.norm()


def test_schedules() -> None:
    examples, g = torch.arange(100, 125), torch.Generator().manual_seed(0)
    sizes = [len(b) for b in Client(batch_size=10, epochs=2).schedule(examples, g)]
    assert sizes == [10, 10, 5, 10, 10, 5]
    once = torch.cat(Client(batch_size=10, epochs=1).schedule(examples, g))
    assert sorted(once.tolist()) == examples.tolist()
    long = Client(batch_size=10, batches=7).schedule(examples, g)
    assert [len(b) for b in long] == [10, 10, 5, 10, 10, 5, 10]
    assert [len(b) for b in Client(batch_size=64, batches=1).schedule(examples, g)] == [25]


def test_a_rate_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="lr_factor must be above 0"):
        Client(batches=1, lr_factor=(Phase(1.0, until=2), Phase(0.0)))


@pytest.mark.parametrize("length", [{}, {"batches": 1, "epochs": 1}])
def test_local_training_has_one_length(length: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="either batches or epochs"):
        Client(**length)


class Mislabel:
    """Data poisoning: every label becomes 0."""

    def poison(self, x: Tensor, y: Tensor, classes: int) -> tuple[Tensor, Tensor]:
        return x, torch.zeros_like(y)


def test_poison_changes_the_data_of_malicious_clients_alone() -> None:
    config = Client(batch_size=8, batches=1, optimizer=Sgd(0.1))
    task, start = training(config, ERM()), read(network())
    honest = task.updates(start, {}, [0, 1], STREAMS, 1)
    mixed = task.updates(start, {}, [0, 1], STREAMS, 1, {1: Mislabel()})
    zeros = training(config, ERM(), data=Split(data().x, torch.zeros(120, dtype=torch.long)))
    assert torch.equal(mixed[0], honest[0])
    assert torch.equal(mixed[1], zeros.updates(start, {}, [1], STREAMS, 1)[0])


class Drawing(nn.Module):
    """Notes what it draws in training."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(16, 3)
        self.drawn = list[float]()

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.drawn.append(float(torch.rand(())))
        return self.layer(x.flatten(1))


def test_a_model_draws_anew_for_each_batch_client_and_round() -> None:
    config = Client(batch_size=8, batches=3, optimizer=Sgd(0.1))
    task = training(config, ERM(), model=Drawing().double())
    model = task.model
    assert isinstance(model, Drawing)
    start = read(model)
    for round in (1, 2):
        task.updates(start, Store(), [0, 3], STREAMS, round)
    first = list(model.drawn)
    assert len(set(first)) == len(first) == 2 * 2 * 3
    model.drawn.clear()
    for round in (1, 2):
        task.updates(start, Store(), [0, 3], STREAMS, round)
    assert model.drawn == first
