"""Partitions, data, objectives, projections and optimisers of a user's own, in whole runs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fedrobust import Experiment, run
from fedrobust.data import Dataset, Partition, Split
from fedrobust.errors import ConfigError, ModelError
from fedrobust.evaluation import accuracy, certificate, robust_accuracy, smoothness_bound
from fedrobust.perturb import Pgd
from fedrobust.progress import Progress
from fedrobust.runs.prepare import prepare

Tiny = Callable[..., Experiment]


@dataclass
class Shuffled:
    """A partition that draws from PyTorch's global generator."""

    def split(self, train: Split, test: Split, generator: torch.Generator) -> Partition:
        order = torch.randperm(len(train))
        parts = tuple(part.sort().values for part in order[:1100].view(11, 100))
        held = tuple(torch.arange(len(test))[:330].view(11, 30))
        return Partition(parts, held)


class Random:
    """A data set that is drawn from the global generator."""

    validation = 20

    def load(self) -> Dataset:
        x, y = torch.rand(220, 1, 8, 8), torch.arange(220) % 10
        return Dataset("random", Split(x[:150], y[:150]), Split(x[150:], y[150:]), 10, 20)


@pytest.mark.parametrize("changes", [{"partition": Shuffled()}, {"data": Random()}])
def test_what_own_data_and_partitions_draw_follows_from_the_seed(
    tiny: Tiny, changes: dict[str, Any]
) -> None:
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        found.append(prepare(tiny(**changes)))
    assert found[0].digest == found[1].digest
    parts = zip(found[0].partition.train, found[1].partition.train, strict=True)
    assert all(torch.equal(a, b) for a, b in parts)
    assert prepare(tiny(**changes, seed=5)).digest != found[0].digest


class Parted:
    """A partition that gives what it is told to."""

    def __init__(self, answer: Callable) -> None:
        self.answer = answer

    def split(self, train: Split, test: Split, generator: torch.Generator) -> Any:
        return self.answer(train, test)


def parts(*clients: Any) -> Callable:
    return lambda train, test: Partition(tuple(clients), (torch.arange(3),) * 0)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (parts(*[torch.arange(5)] * 11), "gives an example to client 1 that is already taken"),
        (parts(torch.arange(-5, 0)), "indices from 0 to 1136; client 0 has -5 to -1"),
        (parts(torch.arange(5) + 10**6), "client 0 has 1000000 to 1000004"),
        (parts(torch.ones(5, dtype=torch.bool)), "must hold indices, torch.int64"),
        (parts([1, 2, 3]), "must hold indices.*it holds a value of type list"),
        (lambda train, test: (1, 2), "must give a Partition; it gave a value of type tuple"),
        (
            lambda train, test: Partition(
                (torch.arange(5),), (torch.arange(3), torch.arange(3, 6))
            ),
            "train parts for 1 clients and test parts for 2: give a test part to each",
        ),
        (lambda train, test: 1 / 0, "the partition Parted failed: ZeroDivisionError"),
    ],
)
def test_a_partition_of_other_examples_is_refused(
    tiny: Tiny, answer: Callable, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        prepare(tiny(partition=Parted(answer)))


class Moving:
    """An objective of a user's own that perturbs all of a batch as it is told."""

    def __init__(self, answer: Callable, count: Any = None) -> None:
        self.answer, self.number = answer, count

    def perturbed(self, examples: int, round: int) -> Any:
        return examples if self.number is None else self.number

    def draw(self, x: Tensor, generator: torch.Generator) -> None:
        return None

    def maximize(self, model: nn.Module, x: Tensor, y: Tensor, draw: Any, **more: Any) -> Any:
        return self.answer(x, y)


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        (Moving(lambda x, y: x[:, :, :1, :1]), r"must give a floating-point tensor"),
        (Moving(lambda x, y: x.to(torch.complex64)), "must give a floating-point tensor"),
        (Moving(lambda x, y: None), "it gave None"),
        (Moving(lambda x, y: x.numpy()), "it gave a value of type ndarray"),
        (Moving(lambda x, y: x, 3.5), "a whole number from 0 to 16; it gave 3.5"),
        (Moving(lambda x, y: x, 17), "a whole number from 0 to 16; it gave 17"),
    ],
)
def test_what_an_own_objective_gives_is_checked(
    tiny: Tiny, objective: Moving, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        run(tiny(objective=objective, rounds=1))


@pytest.mark.slow
def test_an_own_objective_cannot_change_the_labels(tiny: Tiny) -> None:
    client = {"batch_size": 16, "batches": 2, "optimizer": {"name": "sgd", "lr": 0.1}}
    writing = Moving(lambda x, y: (y.zero_(), x.mul_(1.0))[1])
    found = [
        run(tiny(objective=each, client=client, rounds=2))
        for each in (writing, Moving(lambda x, y: x))
    ]
    assert torch.equal(found[0].state.parameters, found[1].state.parameters)


class Relabelling(Pgd):
    """An evaluation that writes to the labels that it is scored by, and to the images it sees."""

    def draw(self, x: Tensor, generator: torch.Generator) -> None:
        x.zero_()

    def maximize(self, model: nn.Module, x: Tensor, y: Tensor, draw: Any, **more: Any) -> Tensor:
        draw()
        y.add_(1).remainder_(3)
        return x


def linear(after: Callable = lambda z: z) -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(0)
    body, x = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), torch.rand(60, 1, 2, 2)

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = body

        def forward(self, x: Tensor) -> Tensor:
            return after(self.body(x))

    return Model(), x, body(x).argmax(dim=1)


def test_an_own_evaluation_changes_neither_labels_nor_images() -> None:
    model, x, y = linear()
    given = x.clone()
    attack = Relabelling(eps=0.1, step_size=0.1, steps=1)
    assert robust_accuracy(model, given, y, attack=attack) == 1.0
    assert torch.equal(given, x)


def test_a_model_that_gives_the_same_memory_again_is_right() -> None:
    room = torch.zeros(100, 3)

    def reused(z: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            return z
        return room[: len(z)].copy_(z)

    model, x, y = linear(reused)
    assert accuracy(model, x, y, batch_size=7) == 1.0


def test_a_model_that_answers_otherwise_without_gradients_is_refused() -> None:
    model, x, y = linear(lambda z: 0 * z if torch.is_grad_enabled() else z)
    with pytest.raises(ModelError, match="depends on whether gradients are taken"):
        robust_accuracy(model, x, y, attack=Pgd(eps=0.3, step_size=0.1, steps=3))


def test_no_certificate_is_proved_of_gradients_that_a_hook_changes() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 8), nn.ELU(), nn.Linear(8, 2))
    bound = smoothness_bound(model, (1, 2, 2))
    assert bound is not None
    x, y = torch.rand(20, 1, 2, 2), torch.arange(20) % 2
    assert certificate(model, x, y, gamma=bound).certified
    model[3].register_full_backward_hook(lambda module, given, taken: (given[0] * 0,))
    assert not certificate(model, x, y, gamma=bound).certified


class Drifting(nn.Module):
    """Keeps a frozen parameter that it changes in training."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 10)
        self.shift = nn.Parameter(torch.zeros(10), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.shift.data += 1
        return self.layer(x.flatten(1)) - self.shift


class Nowhere:
    """A projection that gives what it is told to."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def project(self, parameters: Tensor) -> Any:
        return self.answer


class NoOptimizer:
    """An optimiser that is none."""

    lr = 0.1

    def build(self, parameter: nn.Parameter) -> Any:
        return None

    def slots(self) -> int:
        return 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": Drifting()}, "shift changes in training outside the parameters"),
        ({"server": {"projection": Nowhere(None)}}, "the projection Nowhere must give"),
        ({"server": {"projection": Nowhere(torch.ones(3))}}, "the projection Nowhere must give"),
        (
            {"client": {"batch_size": 8, "batches": 1, "optimizer": NoOptimizer()}},
            "must give a torch.optim.Optimizer; it gave None",
        ),
    ],
)
def test_what_other_parts_give_is_checked(
    tiny: Tiny, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        run(tiny(**changes, rounds=1))


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
def test_traced_and_lazy_networks_train(tiny: Tiny) -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    traced = torch.jit.trace(plain, torch.rand(4, 1, 8, 8))
    lazy = nn.Sequential(nn.Flatten(), nn.LazyLinear(10))
    for model in (traced, lazy):
        result = run(tiny(model=model, rounds=2))
        assert result.summary.troubles == ()


class Attached:
    """A poisoning whose images keep an autograd history."""

    def __init__(self) -> None:
        self.shift = 0.1

    def poison(self, x: Tensor, y: Tensor, classes: int) -> tuple[Tensor, Tensor]:
        return x * torch.ones(1, requires_grad=True), y

    def craft(self, state: Any, view: Any, rng: torch.Generator) -> Any:
        return view.own, state


class OneRow:
    """Forgets that each malicious client sends a row."""

    def craft(self, state: Any, view: Any, rng: torch.Generator) -> Any:
        return torch.zeros(1, len(view.parameters)), state


def test_rows_of_a_wrong_shape_are_told_in_their_round_and_with_the_result(tiny: Tiny) -> None:
    told: list[str] = []
    watch = Progress(troubled=told.append)
    found = run(tiny(attack=OneRow(), malicious=2, rounds=2), progress=watch)
    d = found.state.parameters.numel()
    assert set(told) == {
        f"the server refused what it sent: a tensor torch.float32, [1, {d}] in place of rows "
        f"[2, {d}]; row.expand(2, -1) repeats one row"
    }
    assert "; 1 warning in summary.troubles>" in repr(found)


def test_poisoned_images_leave_their_history_behind(tiny: Tiny) -> None:
    found = run(tiny(attack=Attached(), rounds=2))
    assert found.summary.troubles == ()
    assert not found.state.parameters.requires_grad
