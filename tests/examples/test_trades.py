"""TRADES, a user's own objective with its own loss, beside its literal transcription."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from ring import experiment as ring
from ring import learned
from torch import Tensor, nn
from typer.testing import CliRunner

from fedrobust import Experiment, run
from fedrobust.cli import app
from fedrobust.clients.optimizers import Sgd
from fedrobust.compute.network import gradient_of
from fedrobust.compute.parameters import read, write
from fedrobust.errors import ConfigError
from fedrobust.objectives import ERM, Adversarial, own_loss
from fedrobust.perturb import Pgd
from fedrobust.runs.prepare import Prepared, prepare

EXAMPLES = Path(__file__).parents[2] / "examples"
sys.path.append(str(EXAMPLES))
from trades import Trades  # noqa: E402

OBJECTIVE = Trades(eps=0.15, step_size=0.05, steps=3, beta=2.5)


def batches(tiny: Callable[..., Experiment], number: int, objective: Any = OBJECTIVE) -> Prepared:
    """Clients with so many batches of 8, in float64, and plain SGD."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 10)).double()
    client = {"batch_size": 8, "batches": number, "optimizer": Sgd(0.1)}
    changes = {"malicious": 0, "attack": None, "aggregator": {"name": "mean"}}
    return prepare(tiny(model=model, objective=objective, client=client, **changes))


def transcribed(model: nn.Module, x: Tensor, y: Tensor, noise: Tensor, ours: Trades) -> Tensor:
    """The loss of the authors' trades_loss, with its inner maximisation in evaluation mode."""
    criterion_kl = nn.KLDivLoss(reduction="sum")
    model.eval()
    x_adv = x.detach() + noise
    for _ in range(ours.steps):
        x_adv.requires_grad_()
        with torch.enable_grad():
            loss_kl = criterion_kl(F.log_softmax(model(x_adv), dim=1), F.softmax(model(x), dim=1))
        grad = torch.autograd.grad(loss_kl, [x_adv])[0]
        x_adv = x_adv.detach() + ours.step_size * torch.sign(grad.detach())
        x_adv = torch.min(torch.max(x_adv, x - ours.eps), x + ours.eps)
        x_adv = torch.clamp(x_adv, 0.0, 1.0)
    model.train()
    logits = model(x)
    loss_natural = F.cross_entropy(logits, y)
    loss_robust = (1.0 / len(x)) * criterion_kl(
        F.log_softmax(model(x_adv), dim=1), F.softmax(model(x), dim=1)
    )
    return loss_natural + ours.beta * loss_robust


@pytest.mark.parametrize("number", [1, 3])
def test_clients_take_the_steps_of_the_transcription(
    tiny: Callable[..., Experiment], number: int
) -> None:
    """Also in later batches, which are moved at the client's own parameters."""
    ready, clients = batches(tiny, number), (0, 4)
    local, start = ready.federation.local, ready.start
    found = local.updates(start, {}, clients, ready.streams, 1)
    for row, client in zip(found, clients, strict=True):
        noise = ready.streams.generator("inner maximisation", 1, client)
        shuffle = ready.streams.generator("batches", 1, client)
        theta = start.clone()
        for index in local.config.schedule(local.clients[client], shuffle):
            x, y = local.data.images(index).double(), local.data.y[index]
            write(local.model, theta)
            drawn = OBJECTIVE.draw(x, noise)
            loss = lambda x=x, y=y, n=drawn: transcribed(local.model, x, y, n, OBJECTIVE)  # noqa: E731
            theta = theta - 0.1 * gradient_of(local.model, loss)
        torch.testing.assert_close(row, theta - start, rtol=1e-9, atol=1e-12)
    plain = batches(tiny, number, Adversarial(attack=Pgd(0.15, 0.05, 3), ratio=1.0))
    other = plain.federation.local.updates(plain.start, {}, clients, plain.streams, 1)
    assert (other - found).norm() > 0.01 * found.norm()


@pytest.mark.long
def test_it_plays_from_the_command_line_in_runs_sweeps_and_audits(tmp_path: Path) -> None:
    few = ["-s", "rounds=2", "-s", "evaluation.every=2", "-s", "evaluation.samples=20"]
    few += ["-s", "evaluation.test_samples=20", "-s", "execution.batch=64"]
    config, out = EXAMPLES / "trades.yaml", tmp_path / "run"
    played = CliRunner().invoke(app, ["run", "--no-report", str(config), "--out", str(out), *few])
    assert played.exit_code == 0, played.output
    judged = CliRunner().invoke(app, ["audit", str(out), "--samples", "10"])
    assert judged.exit_code == 0, judged.output
    grid = tmp_path / "grid.yaml"
    grid.write_text(config.read_text() + "grid: {objective.beta: [0.0, 6.0]}\n")
    (tmp_path / "trades.py").write_text((EXAMPLES / "trades.py").read_text())
    swept = ["sweep", str(grid), "--out", str(tmp_path / "sweep"), "--jobs", "1", *few]
    done = CliRunner().invoke(app, swept)
    assert done.exit_code == 0, done.output
    assert "2 of 2 cells are done" in done.output


class Bad(Trades):
    """Gives what ``answer`` says for a loss."""

    answer: Any = None

    def loss(self, model: Any, x: Any, perturbed: Any, y: Any, context: Any) -> Any:
        return self.answer(model(x), y, context)


BAD: dict[str, tuple[Callable[..., Any], str]] = {
    "one for each example": (
        lambda z, y, c: F.cross_entropy(z, y, reduction="none"),
        r"it gave a tensor torch.float32, \[16\]; take its mean over the batch",
    ),
    "a number": (lambda z, y, c: F.cross_entropy(z, y).item(), "must give one number, a tensor"),
    "no gradient": (
        lambda z, y, c: F.cross_entropy(z.detach(), y),
        "without a gradient; compute it from the model's logits",
    ),
    "not finite": (lambda z, y, c: z.sum() / 0, "has no finite gradient on a first batch"),
    "an exception": (
        lambda z, y, c: c.rounds,
        r"fails on a first batch: AttributeError: .*Its methods are perturbed\(examples, round\)",
    ),
}


@pytest.mark.parametrize("case", BAD.values(), ids=BAD)
def test_a_loss_that_is_none_is_told_of_before_the_first_round(
    tiny: Callable[..., Experiment], case: tuple[Callable[..., Any], str]
) -> None:
    objective = Bad(eps=0.1, step_size=0.1, steps=1)
    object.__setattr__(objective, "answer", case[0])
    with pytest.raises(ConfigError, match=case[1]):
        prepare(tiny(objective=objective))


def test_an_object_that_lacks_a_method_is_told_which(tiny: Callable[..., Experiment]) -> None:
    class Half:
        def loss(self, *words: Any) -> None: ...

    with pytest.raises(ValueError, match="it lacks perturbed, draw and maximize"):
        tiny(objective=Half())


class Smoothed(ERM):
    """Plain training with label smoothing: a loss of its own, and none of the compiled loops'."""

    def loss(self, model: Any, x: Any, perturbed: Any, y: Any, context: Any) -> Tensor:
        return F.cross_entropy(model(perturbed), y, label_smoothing=0.5)


def test_no_short_cut_forgets_a_loss_of_ones_own(tiny: Callable[..., Experiment]) -> None:
    assert own_loss(Smoothed())
    assert not own_loss(ERM())
    plain = {"attack": None, "malicious": 0}
    one, other = (ring(objective=kind(), **plain) for kind in (ERM, Smoothed))
    fast, slow = prepare(one), prepare(other)
    rows = [
        ready.backend.local_updates(
            ready.federation, ready.federation.start(ready.start), [0, 1], ready.streams, {}
        )
        for ready in (fast, slow)
    ]
    local = slow.federation.local
    index = local.config.schedule(local.clients[1], slow.streams.generator("batches", 1, 1))[0]
    x, y = local.data.images(index), local.data.y[index]
    write(local.model, slow.start)
    slope = gradient_of(
        local.model, lambda: F.cross_entropy(local.model(x), y, label_smoothing=0.5)
    )
    torch.testing.assert_close(rows[1][1], -0.3 * slope, rtol=1e-4, atol=1e-7)
    assert (rows[0] - rows[1]).norm() > 0.01 * rows[0].norm()
    stacked = replace(one.execution, gradients="vmap")
    with pytest.raises(ConfigError, match="the objective Trades has a loss of its own"):
        prepare(tiny(objective=OBJECTIVE, execution=replace(stacked, batch=64)))


@pytest.mark.slow
def test_a_learned_attack_says_what_it_cannot_do() -> None:
    pytest.importorskip("stable_baselines3")
    short = {"steps": 4, "learning_starts": 2, "check_every": 4, "check_episodes": 1, "hidden": [4]}
    attack = learned(
        training=short | {"start": "random"},
        encoding={"name": "basis", "directions": ["own"]},
        reward="loss",
        horizon=2,
        hold=1,
        observe=3,
    )
    played = run(ring(objective=Smoothed(), rounds=7, **attack))
    told = played.summary["attack"]["troubles"]
    assert any("the objective Smoothed has a loss of its own" in text for text in told), told
    assert played.summary["attack"]["acts_from"] is not None


class InPlace(nn.Module):
    """Writes to what it is given, as some models do."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x.mul_(2).sub_(1))


def test_a_model_may_write_to_what_an_own_objective_gives_it(
    tiny: Callable[..., Experiment],
) -> None:
    ready = prepare(tiny(model=InPlace(), objective=OBJECTIVE))
    before = ready.federation.local.data.x.clone()
    rows = ready.federation.local.updates(ready.start, {}, [0, 1], ready.streams, 1)
    assert rows.isfinite().all()
    assert torch.equal(ready.federation.local.data.x, before)


def test_a_batch_is_as_it_was_where_nothing_is_perturbed(tiny: Callable[..., Experiment]) -> None:
    seen: list[tuple[int, int, bool]] = []

    class Watching(Trades):
        def perturbed(self, examples: int, round: int) -> int:
            return 0 if round == 1 else 3

        def loss(self, model: Any, x: Tensor, perturbed: Tensor, y: Tensor, context: Any) -> Tensor:
            moved = (x != perturbed).flatten(1).any(dim=1)
            seen.append((context.round, context.perturbed, bool(moved[context.perturbed :].any())))
            assert bool(moved.any()) == (context.perturbed > 0)
            return F.cross_entropy(model(perturbed), y)

    ready = batches(tiny, 2, Watching(eps=0.1, step_size=0.1, steps=1))
    seen.clear()
    for round in (1, 2):
        ready.federation.local.updates(ready.start, {}, [0], ready.streams, round)
    assert seen == [(1, 0, False)] * 2 + [(2, 3, False)] * 2
    assert read(ready.model).isfinite().all()
