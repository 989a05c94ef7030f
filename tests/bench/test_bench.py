"""The plain ways compute what ours compute, and the command prints and keeps what it measured."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from fedrobust.aggregators import Krum, Median
from fedrobust.bench import paths, plain, turns
from fedrobust.bench.turns import HotPath, product_rate, timed
from fedrobust.cli import app
from fedrobust.clients.client import Client
from fedrobust.clients.optimizers import Adam, Sgd
from fedrobust.evaluation.accuracy import noise, robust_accuracy
from fedrobust.federation.backends import Backend
from fedrobust.federation.round import run_round
from fedrobust.models import EluCnn, MnistCnnSmall, RingMlp
from fedrobust.objectives import Adversarial, WassersteinDRO
from fedrobust.perturb import Ascent, Pgd
from fedrobust.runs.prepare import Prepared

ATTACK = Pgd(eps=0.3, step_size=0.02, steps=5)


def rows(ready: Prepared, backend: Backend) -> Tensor:
    """The updates of all clients in the second round, from where ours ends the first."""
    federation, clients = ready.federation, range(ready.federation.clients)
    with ready.plan.active():
        state, _ = run_round(federation.start(ready.start), federation, ready.streams)
        backend.local_updates(federation, federation.start(ready.start), clients, ready.streams, {})
        return backend.local_updates(federation, state, clients, ready.streams, {})


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fat", "ring", "mnist"])
def test_the_plain_rounds_train_clients_alike(name: str) -> None:
    adam = Client(batch_size=8, batches=1, optimizer=Adam(0.001), keep_optimizer=True)
    sgd = Client(batch_size=8, batches=1, optimizer=Sgd(0.1))
    fat = Adversarial(ratio=0.5, attack=ATTACK)
    ready = {
        "fat": lambda: paths.prepared(MnistCnnSmall(), paths.MNIST, 4, 8, fat, adam),
        "ring": lambda: paths.prepared(RingMlp(), (2,), 4, 8, WassersteinDRO(2.0), sgd),
        "mnist": lambda: paths.prepared(
            EluCnn(width=16), paths.MNIST, 4, 8, WassersteinDRO(2.0), sgd
        ),
    }[name]()
    ours, usual = rows(ready, ready.backend), rows(ready, plain.ClientByClient())
    assert usual.abs().sum() > 0
    apart = (ours - usual).abs() > 0.01 * usual.abs().max()
    assert apart.double().mean() < 1e-3  # Adam makes a sign of what is almost 0


def test_the_plain_maximisations_find_the_same_points() -> None:
    model, (x, y) = paths._network(MnistCnnSmall(), paths.MNIST), paths._images(16, paths.MNIST)
    start = ATTACK.draw(x, torch.Generator().manual_seed(0))
    assert start is not None
    ours, usual = ATTACK.maximize(model, x, y, lambda: start), plain.pgd(model, x, y, ATTACK, start)
    assert ((ours - usual).abs() > 1e-5).double().mean() < 0.01
    smooth = paths._network(EluCnn(width=16), paths.MNIST)
    torch.testing.assert_close(
        Ascent(steps=5).move(smooth, x, y, 2.0), plain.wasserstein(smooth, x, y, 2.0, 5)
    )
    drawn = noise(ATTACK, x, slice(0, 16), 7)()
    assert drawn is not None
    source = torch.Generator().manual_seed(7)
    found = robust_accuracy(model, x, model(x).argmax(1), attack=ATTACK, generator=source)
    usual_found = plain.robust_accuracy(model, x, model(x).argmax(1), ATTACK, drawn)
    assert abs(found - usual_found) <= 1 / 16


def test_the_plain_rules_give_the_same_answers() -> None:
    updates = torch.randn(51, 1000, generator=torch.Generator().manual_seed(0))
    assert torch.equal(plain.median(updates), Median()(updates))
    assert torch.equal(plain.krum(updates, 24), Krum(f=24)(updates))
    assert torch.equal(plain.median(updates[:50]), Median()(updates[:50]))


def test_flops_are_those_of_the_layers() -> None:
    """Forward and backward to the input: twice two operations a weight and position."""
    model = paths._network(MnistCnnSmall(), paths.MNIST)
    forward = 2 * (14 * 14 * 16 * 16 + 7 * 7 * 32 * 16 * 16 + 1568 * 100 + 100 * 10)
    assert paths._flops(model, paths.MNIST) == 2 * forward


def test_ratio_and_share(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(turns.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(turns, "product_rate", lambda: 50.0)

    def takes(seconds: float) -> Any:
        return lambda: clock.__setitem__(0, clock[0] + seconds)

    found = timed(HotPath("a", takes(2.0), takes(6.0), "answers", 10.0, 100.0, 2), 3)
    assert (found.seconds, found.rate, found.ratio, found.share) == (2.0, 5.0, 3.0, 0.5)
    alone = timed(HotPath("b", takes(2.0), None, "answers"), 2)
    assert (alone.ratio, alone.share, alone.turns) == (None, None, 2)


def test_the_product_has_one_thread_and_puts_them_back() -> None:
    torch.set_num_threads(2)
    assert product_rate() > 1e8
    assert torch.get_num_threads() == 2


@pytest.mark.slow
def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    some = HotPath("a path", lambda: None, lambda: None, "answers", 3.0, 1e9)
    monkeypatch.setattr(paths, "hot_paths", lambda quick: iter([some]))
    file = tmp_path / "new" / "bench.json"
    done = CliRunner().invoke(app, ["bench", "--quick", "--json", str(file)])
    assert done.exit_code == 0, done.output
    assert "| a path | " in done.stdout
    content = json.loads(file.read_text())
    assert content["paths"][0]["name"] == "a path"
    assert {"processor", "workers", "product", "torch"} <= set(content)
    again = CliRunner().invoke(app, ["bench", "--json", str(file)])
    assert again.exit_code == 2
    assert "exists: choose another file" in again.stderr
    assert json.loads(file.read_text()) == content


@pytest.mark.long
def test_there_are_all_hot_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each can be called once; the quick ones are some of them."""
    monkeypatch.setattr(paths, "_run", lambda command: None)
    names = []
    for path in paths.hot_paths(quick=True):
        names.append(path.name)
        path.ours()
    words = ["--help", "list", "PGD: small", "FAT", "ring", "MNIST", "evaluation", "Krum"]
    for word in (*words, "environment"):
        assert any(word in name for name in names), word
