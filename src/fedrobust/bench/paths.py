"""The hot paths, on made-up images: speed does not depend on what they show."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from typing import Any, Literal

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from fedrobust.aggregators import Bulyan, Krum, Median
from fedrobust.bench import plain
from fedrobust.bench.turns import HotPath
from fedrobust.clients.client import Client
from fedrobust.clients.optimizers import Adam, Sgd
from fedrobust.compute.execution import Execution
from fedrobust.compute.network import frozen, input_gradient
from fedrobust.compute.units import shared_by, workers
from fedrobust.data import Dataset, Iid
from fedrobust.evaluation.accuracy import score
from fedrobust.experiment import Evaluation, Experiment
from fedrobust.federation.backends import LOCAL, Backend
from fedrobust.federation.round import run_round
from fedrobust.models import (
    CifarCnn,
    DigitsCnn,
    EluCnn,
    MnistCnn,
    MnistCnnSmall,
    RingMlp,
    build_model,
)
from fedrobust.models.build import ModelSpec
from fedrobust.objectives import Adversarial, Objective, WassersteinDRO
from fedrobust.perturb import Ascent, Pgd
from fedrobust.runs.prepare import Prepared, prepare

DIGITS, MNIST, CIFAR = (1, 8, 8), (1, 28, 28), (3, 32, 32)
_BATCH = 64
_CHOSEN = Execution()
"""A plan in which everything is chosen for the machine."""


def hot_paths(quick: bool) -> Iterator[HotPath]:
    """Yield the hot paths; ``quick`` leaves out the large networks and takes fewer steps."""
    yield from _starts()
    yield from _maximisations(quick)
    yield fat_round(MnistCnnSmall(), "small", 5 if quick else 40)
    if not quick:
        yield replace(fat_round(MnistCnn(), "Madry's", 40), turns=2)
    yield drfl_round("ring", RingMlp(), (2,), 32)
    yield drfl_round("MNIST", EluCnn(width=16), MNIST, 64)
    yield _evaluation(5 if quick else 20)
    yield from _environment(50)
    yield from _rules(166_406 if quick else 1_000_000)


def _starts() -> Iterator[HotPath]:
    torch_alone = [sys.executable, "-c", "import torch"]
    for name, arguments in (("--help", ["--help"]), ("list", ["list"])):
        yield HotPath(
            f"start-up: fedrobust {name}",
            partial(_run, [sys.executable, "-m", "fedrobust", *arguments]),
            partial(_run, torch_alone),
            "starts (plain: import torch)",
        )


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True)


def _images(count: int, shape: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    return torch.rand(count, *shape, generator=draw), torch.arange(count) % (10 if shape[1:] else 2)


def _network(spec: ModelSpec, shape: tuple[int, ...]) -> nn.Module:
    model = build_model(spec, shape, 10, torch.Generator().manual_seed(0)).eval()
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def _flops(model: nn.Module, shape: tuple[int, ...]) -> float:
    """Return the operations of one image's forward pass and of its gradient by the input.

    These are those of the layers as they are written, however we compute them.
    """
    x, y = _images(1, shape)
    with frozen(model), FlopCounterMode(display=False) as counted:
        input_gradient(model, x, y)
    return float(counted.get_total_flops())


def _maximisations(quick: bool) -> Iterator[HotPath]:
    """PGD and the Wasserstein ascent, on one core."""
    networks: list[tuple[str, ModelSpec, tuple[int, ...]]] = [
        ("small MNIST network", MnistCnnSmall(), MNIST),
        ("digits network", DigitsCnn(), DIGITS),
    ]
    if not quick:
        networks += [
            ("Madry's network", MnistCnn(), MNIST),
            ("CIFAR network", CifarCnn(width=16), CIFAR),
        ]
    for name, spec, shape in networks:
        model, (x, y) = _network(spec, shape), _images(_BATCH, shape)
        attack = Pgd(eps=0.3, step_size=0.01, steps=10)
        noise = attack.draw(x, torch.Generator().manual_seed(0))
        assert noise is not None
        yield HotPath(
            f"PGD: {name}",
            partial(_alone, attack.maximize, model, x, y, partial(_same, noise)),
            partial(_alone, plain.pgd, model, x, y, attack, noise),
            "image-steps",
            _BATCH * attack.steps,
            _BATCH * attack.steps * _flops(model, shape),
        )
    (x, y), ascent = _images(_BATCH, MNIST), Ascent(steps=15)
    widths: tuple[Literal[16, 64], ...] = (16,) if quick else (16, 64)
    for width in widths:
        model = _network(EluCnn(width=width), MNIST)
        yield HotPath(
            f"Wasserstein ascent: ELU network of width {width}",
            partial(_alone, ascent.move, model, x, y, 2.0),
            partial(_alone, plain.wasserstein, model, x, y, 2.0, ascent.steps),
            "image-steps",
            _BATCH * ascent.steps,
            _BATCH * ascent.steps * _flops(nn.Sequential(*model.children()), MNIST),
        )


def _same(noise: torch.Tensor) -> torch.Tensor:
    return noise


def _alone(call: Any, *arguments: Any) -> Any:
    with shared_by(1):
        return call(*arguments)


def fat_round(
    spec: ModelSpec,
    name: str,
    steps: int,
    shape: tuple[int, ...] = MNIST,
    execution: Execution = _CHOSEN,
) -> HotPath:
    """Return a round of FAT on 51 clients, each with a batch of 64 of which it perturbs half."""
    attack = Pgd(eps=0.3, step_size=0.01, steps=steps)
    client = Client(batch_size=64, batches=1, optimizer=Adam(0.001), keep_optimizer=True)
    objective = Adversarial(ratio=0.5, attack=attack)
    ready = prepared(spec, shape, 51, 64, objective, client, execution)
    flops = None
    if ready.plan.device == "cpu":
        flops = 51 * (32 * steps + 64) * _flops(ready.model, shape)
    return _round(f"FAT round, 51 × 64, PGD-{steps}: {name}", ready, flops)


def drfl_round(name: str, spec: ModelSpec, shape: tuple[int, ...], batch: int) -> HotPath:
    """Return a round of DRFL on 10 clients, each with one batch."""
    client = Client(batch_size=batch, batches=1, optimizer=Sgd(0.1))
    ready = prepared(spec, shape, 10, batch, WassersteinDRO(2.0), client)
    objective = ready.federation.local.objective
    assert isinstance(objective, WassersteinDRO)
    flops = None
    if shape[1:] and ready.plan.device == "cpu":
        layers = nn.Sequential(*ready.model.children())
        flops = 10 * batch * (objective.ascent.steps + 1) * _flops(layers, shape)
    return _round(f"DRFL round, 10 × {batch}: {name}", ready, flops)


def prepared(
    spec: ModelSpec,
    shape: tuple[int, ...],
    clients: int,
    batch: int,
    objective: Objective,
    client: Client,
    execution: Execution = _CHOSEN,
) -> Prepared:
    """Return a federation whose clients hold two batches of made-up images each."""
    x, y = _images(2 * clients * batch, shape)
    attack = Pgd(eps=0.1, step_size=0.1, steps=1, box=False)
    return prepare(
        Experiment(
            name="bench",
            rounds=1,
            data=Dataset.from_tensors(x, y, x[:20], y[:20], validation=20),
            partition=Iid(clients=clients),
            model=spec,
            objective=objective,
            client=client,
            evaluation=Evaluation(attack=attack, samples=20),
            execution=execution,
        )
    )


def _round(name: str, ready: Prepared, flops: float | None) -> HotPath:
    loop: Backend = plain.ClientByClient()

    def play(backend: Backend) -> None:
        with ready.plan.active():
            state = ready.federation.start(ready.start)
            run_round(state, ready.federation, ready.streams, backend=backend)

    cores = workers() if ready.backend is LOCAL else 1
    return HotPath(
        name, partial(play, ready.backend), partial(play, loop), "rounds", 1, flops, cores
    )


def _evaluation(steps: int) -> HotPath:
    model, (x, y) = _network(MnistCnnSmall(), MNIST), _images(512, MNIST)
    attack = Pgd(eps=0.3, step_size=0.01, steps=steps)
    y = model(x).argmax(1)  # all are right, so all are attacked
    noise = attack.draw(x, torch.Generator().manual_seed(0))
    assert noise is not None

    def ours() -> None:
        score(model, x, y, attack=attack, generator=torch.Generator().manual_seed(0), batch_size=64)

    flops = 512 * steps * _flops(model, MNIST)
    usual = partial(plain.robust_accuracy, model, x, y, attack, noise)
    return HotPath(f"evaluation by PGD-{steps}", ours, usual, "images", 512, flops, workers())


def _environment(steps: int) -> Iterator[HotPath]:
    """Steps of the learned attack's environment on the ring; none without its libraries."""
    if find_spec("gymnasium") is None:
        return
    from fedrobust.attacks.learned import Learned
    from fedrobust.bench.simulated import environment, play, seen, task

    client = Client(batch_size=32, batches=1, optimizer=Sgd(0.1))
    ready = prepared(RingMlp(), (2,), 10, 32, WassersteinDRO(2.0), client)
    view, attack = seen(ready, 2), Learned(hold=1, samples=32)
    ours, usual = (environment(task(view, attack, plain=way)) for way in (False, True))
    yield HotPath(
        "environment of the learned attack: ring",
        partial(_alone, play, ours, steps),
        partial(_alone, play, usual, steps),
        "steps (plain: autograd)",
        steps,
    )


def _rules(d: int) -> Iterator[HotPath]:
    rows = torch.randn(51, d, generator=torch.Generator().manual_seed(0))
    for name, rule, usual in (
        ("Median", Median(), plain.median),
        ("Krum", Krum(f=24), partial(plain.krum, f=24)),
        ("Bulyan", Bulyan(f=12), None),
    ):
        ways = partial(rule, rows), None if usual is None else partial(usual, rows)
        yield HotPath(f"{name}, 51 × {d:,}", *ways, "answers")
