"""Runs of networks that people bring along: a right answer, or a sentence that helps."""

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fedrobust import Experiment, run
from fedrobust.data import Dataset, Split
from fedrobust.errors import ConfigError, DataError
from fedrobust.evaluation import accuracy, robust_accuracy
from fedrobust.models import DigitsCnn
from fedrobust.perturb import Pgd
from fedrobust.runs.prepare import prepare

PGD = Pgd(eps=0.15, step_size=0.05, steps=3)


def same(values: Tensor) -> Tensor:
    return values


class Own(nn.Module):
    """A network for the digits, with something done before and after."""

    def __init__(self, before: Callable = same, after: Callable = same) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.before, self.after = DigitsCnn().build((1, 8, 8), 10), before, after

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.body(self.before(x)))


def in_place(x: Tensor) -> Tensor:
    return x.sub_(0.3).div_(0.35)


def apart(x: Tensor) -> Tensor:
    return (x - 0.3) / 0.35


def noisy(x: Tensor) -> Tensor:
    """Draws from all three global generators, in evaluation as well."""
    scale = 0.05 * (1 + random.random() + float(np.random.rand()))
    return x + scale * torch.randn_like(x)


Tiny = Callable[..., Experiment]


def figures(result: Any) -> list[tuple[float, float, float]]:
    return [(m["accuracy"], m["robust_accuracy"], m["loss"]) for m in result.metrics]


@pytest.mark.slow
def test_a_network_that_works_in_place_trains_as_one_that_does_not(tiny: Tiny) -> None:
    own, plain = run(tiny(model=Own(in_place))), run(tiny(model=Own(apart)))
    assert figures(own) == figures(plain)
    assert torch.equal(own.state.parameters, plain.state.parameters)
    assert own.summary["test"] == plain.summary["test"]
    test = tiny().data.load().test
    x, y = test.x.clone(), test.y
    assert accuracy(own.model, x, y) == accuracy(plain.model, x, y)
    assert robust_accuracy(own.model, x, y, attack=PGD) == robust_accuracy(
        plain.model, x, y, attack=PGD
    )
    assert torch.equal(x, test.x)


@pytest.mark.slow
def test_what_a_network_draws_in_evaluation_follows_from_the_seed(tiny: Tiny) -> None:
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        model = Own(noisy)
        torch.manual_seed(seed)
        before = torch.get_rng_state(), random.getstate()
        result = run(tiny(model=model))
        assert torch.equal(torch.get_rng_state(), before[0])
        assert random.getstate() == before[1]
        found.append(result)
    assert figures(found[0]) == figures(found[1])
    assert torch.equal(found[0].state.parameters, found[1].state.parameters)
    assert found[0].summary["test"] == found[1].summary["test"]
    x, y = torch.rand(50, 1, 8, 8), torch.arange(50) % 10
    again = [robust_accuracy(found[0].model, x, y, attack=PGD) for _ in range(3)]
    assert len(set(again)) == 1


def test_a_bfloat16_network_comes_to_its_end_and_resumes(tiny: Tiny, tmp_path: Any) -> None:
    experiment = tiny(model=Own().bfloat16(), rounds=2)
    result = run(experiment, tmp_path / "run")
    assert result.state.parameters.dtype == torch.bfloat16
    assert np.load(tmp_path / "run" / "examples.npz")["adversarial"].dtype == np.float32
    again = run(experiment, tmp_path / "run", resume=True)
    assert again.summary == result.summary


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Own(after=lambda z: z.softmax(dim=1)), "leave out its softmax"),
        (Own(after=lambda z: (z, z)), "a tuple of 2: wrap it in a module"),
        (Own(after=lambda z: {"logits": z}), "a mapping with logits"),
        (Own(after=torch.squeeze), "a batch of one like any other"),
        (
            nn.Sequential(nn.BatchNorm2d(1, track_running_stats=False), Own()),
            "depends on the rest of its batch.*GroupNorm",
        ),
        (nn.Sequential(nn.BatchNorm2d(1), Own()), "changes in training.*Use GroupNorm instead"),
        (
            nn.Sequential(nn.Flatten(), nn.utils.parametrizations.spectral_norm(nn.Linear(64, 10))),
            "changes in training.*spectral normalisation out",
        ),
        (
            nn.Sequential(nn.Flatten(), nn.utils.spectral_norm(nn.Linear(64, 10))),
            "changes in training.*spectral normalisation out",
        ),
        (Own(Tensor.detach), "no gradient reaches the model's input"),
        (nn.Linear(8, 10), "must give logits"),
        (
            type("Mine", (), {"build": lambda self, shape: Own()})(),
            r"its build takes \(shape\), but is called as build\(shape, classes\)",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:.*spectral_norm.*:FutureWarning")
def test_what_no_run_can_use_is_refused_before_the_first_round(
    tiny: Tiny, model: nn.Module, message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as refused:
        prepare(tiny(model=model))
    assert len(str(refused.value)) < 600
    if "spectral" in message:
        assert "GroupNorm" not in str(refused.value)


class Counting(nn.Module):
    """Adds noise of a generator of its own, in one of the two modes alone."""

    def __init__(self, training: bool) -> None:
        super().__init__()
        self.body, self.source, self.noisy = Own(), np.random.default_rng(0), training

    def forward(self, x: Tensor) -> Tensor:
        noisy = self.training == self.noisy
        noise = torch.from_numpy(self.source.normal(size=x.shape)).to(x) if noisy else 0
        return self.body(x + noise)


@pytest.mark.parametrize("training", [True, False])
def test_state_that_a_network_keeps_itself_is_refused(tiny: Tiny, training: bool) -> None:
    """It would be lost at a kill, and depend on who trains which client."""
    with pytest.raises(ConfigError, match="it draws from a generator of its own, or counts"):
        prepare(tiny(model=Counting(training)))


def test_a_network_without_an_input_gradient_runs_where_none_is_needed(tiny: Tiny) -> None:
    square = {"attack": {"name": "square", "eps": 0.1, "queries": 20}, "every": 1, "samples": 50}
    plan = {"device": "cpu", "threads": 1}
    experiment = tiny(
        model=Own(Tensor.detach),
        objective={"name": "erm"},
        evaluation=square,
        rounds=1,
        execution=plan,
    )
    assert run(experiment).summary.troubles == ()


def test_images_of_a_shape_that_a_network_cannot_take_say_what_they_may_be(tiny: Tiny) -> None:
    x, y = torch.rand(90, 12, 10), torch.arange(90) % 3
    flat = Dataset.from_tensors(x, y, x[:30], y[:30], validation=20)
    with pytest.raises(ConfigError, match=r"pass x\[:, None\] if these are images of 12 by 10"):
        prepare(tiny(data=flat, model=DigitsCnn()))


class Data:
    """A data set of a user's own."""

    validation = 20

    def __init__(self, made: Any) -> None:
        self.made = made

    def load(self) -> Any:
        if isinstance(self.made, Exception):
            raise self.made
        return self.made


def test_data_that_a_run_would_fail_on_in_the_end_are_refused_at_its_start(tiny: Tiny) -> None:
    x, y = torch.rand(90, 1, 8, 8), torch.arange(90) % 10
    train, none = Split(x, y), Split(x[:0], y[:0])
    bad = {
        "x_test is empty": Dataset("own", train, none, 10, 20),
        "labels up to 9, but 5 classes": Dataset("own", train, train, 5, 20),
        "y_test has 89 entries for 90": Dataset("own", train, Split(x, y[1:]), 10, 20),
        "must give a fedrobust.Dataset.*it gave a value of type tuple": (x, y),
        "could not be loaded: KeyError: 'x'": KeyError("x"),
        "NaN or infinite values in 90": Dataset("own", Split(x / 0 - x / 0, y), train, 10, 20),
    }
    for message, made in bad.items():
        with pytest.raises(DataError, match=message):
            prepare(tiny(data=Data(made)))
    assert prepare(tiny(data=Data(Dataset("own", train, train, 10, 20)))).dataset.classes == 10


class Uncertain:
    """An evaluation of a user's own that gives points of another shape."""

    def draw(self, x: Tensor, generator: torch.Generator) -> Tensor | None:
        return None

    def maximize(self, model: nn.Module, x: Tensor, y: Tensor, draw: Any, *, batch: Any) -> Any:
        return self.answer(x)

    def __init__(self, answer: Callable) -> None:
        self.answer = answer


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda x: x[:1], r"a point for each example; it gave \[1, 1, 8, 8\]"),
        (lambda x: x.numpy(), "it gave a value of type ndarray"),
        (lambda x: 1 / 0, "evaluation.attack fails on two examples: ZeroDivisionError"),
    ],
)
def test_an_own_evaluation_is_tried_before_the_first_round(
    tiny: Tiny, answer: Callable, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        prepare(tiny(evaluation={"attack": Uncertain(answer), "samples": 50}))


class Escaping(Pgd):
    """Says that its ball is small, and leaves it in place."""

    def maximize(self, model: nn.Module, x: Tensor, y: Tensor, draw: Any, **more: Any) -> Tensor:
        return x.mul_(0).add_(0.5)


def test_an_attack_that_works_in_place_is_measured_against_the_images(tiny: Tiny) -> None:
    evaluation = {"attack": Escaping(eps=0.1, step_size=0.1, steps=1), "every": 2, "samples": 50}
    result = run(tiny(evaluation=evaluation, rounds=2))
    [line] = result.metrics
    assert line["robust_accuracy"] == line["accuracy"]
    assert line["refused_points"] == round(50 * line["accuracy"])


def test_points_outside_the_pixels_are_told_in_the_summary(tiny: Tiny) -> None:
    evaluation = {"attack": Uncertain(lambda x: x * torch.nan), "every": 3, "samples": 50}
    result = run(tiny(evaluation=evaluation, rounds=3))
    last = result.metrics[-1]
    assert last["robust_accuracy"] == last["accuracy"]
    assert last["refused_points"] == round(50 * last["accuracy"])
    [told] = result.summary["troubles"]
    assert "points for 50 examples that are no adversarial examples" in told


class Exploding(nn.Module):
    """A network whose logits are no numbers for examples with a dark corner."""

    def __init__(self) -> None:
        super().__init__()
        self.body = DigitsCnn().build((1, 8, 8), 10)

    def forward(self, x: Tensor) -> Tensor:
        bright = x[:, :, 2, 3] > 0.2
        return self.body(x) * torch.where(bright, 1.0, torch.nan)


def test_logits_that_are_no_numbers_are_counted_and_told(tiny: Tiny) -> None:
    result = run(tiny(model=Exploding(), objective={"name": "erm"}, rounds=2))
    ready = prepare(tiny(model=Exploding(), objective={"name": "erm"}, rounds=2))
    x = ready.chooses.images(ready.held_out)
    dark = int((x[:, 0, 2, 3] <= 0.2).sum())
    assert result.metrics[0]["not_finite"] == dark
    assert result.metrics[0]["loss"] is None
    assert any(
        f"no finite loss on {dark} of 100 examples in round 2" in t
        for t in result.summary["troubles"]
    )


class Drawing(Pgd):
    """A perturbation that draws from global generators."""

    def maximize(self, model: nn.Module, x: Tensor, y: Tensor, draw: Any, **more: Any) -> Tensor:
        noise = torch.randn_like(x) * float(np.random.rand()) * random.random()
        return (x + noise.clamp(-self.eps, self.eps)).clamp(0, 1)


@pytest.mark.slow
@pytest.mark.parametrize("batches", [1, 3])
def test_what_an_own_perturbation_draws_follows_from_the_seed(tiny: Tiny, batches: int) -> None:
    own = Drawing(eps=0.1, step_size=0.1, steps=1)
    client = {"batch_size": 16, "batches": batches, "optimizer": {"name": "sgd", "lr": 0.1}}
    changes: dict[str, Any] = {
        "client": client,
        "objective": {"name": "adversarial", "attack": own},
        "evaluation": {"attack": own, "every": 2, "samples": 50},
        "rounds": 2,
    }
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        found.append(run(tiny(**changes)))
    assert torch.equal(found[0].state.parameters, found[1].state.parameters)
    assert figures(found[0]) == figures(found[1])
    other = run(tiny(**changes, seed=1))
    assert not torch.equal(found[0].state.parameters, other.state.parameters)
