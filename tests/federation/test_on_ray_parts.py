"""Users' own parts on Ray, what fails there, and what is refused."""

import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from ray_cluster import add_node, busy_workers, experiment, ray_cluster, until

from fedrobust import Streams, run, run_round
from fedrobust.clients.client import Client
from fedrobust.clients.optimizers import Adam
from fedrobust.cluster.probe import Node
from fedrobust.cluster.workers import Workers
from fedrobust.compute.execution import Execution
from fedrobust.compute.units import placed, shared_by
from fedrobust.config import beside
from fedrobust.errors import ConfigError, ResourceError
from fedrobust.evaluation.accuracy import score
from fedrobust.federation.backends import LOCAL
from fedrobust.federation.state import Federation

pytest.importorskip("ray")

from fedrobust.federation.on_ray import _require_places, on_ray

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


def test_an_address_that_does_not_answer_leaves_no_run(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match=r"use execution\.backend: local"):
        run(experiment("far", address="far:1"), out=tmp_path / "away")
    assert not (tmp_path / "away").exists()


def test_a_worker_with_another_kind_of_processor_is_refused_unless_allowed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """PyTorch computes on this node as on a processor without vector instructions."""
    with ray_cluster(nodes=0) as other:
        monkeypatch.setenv("ATEN_CPU_CAPABILITY", "default")
        add_node(other)
        monkeypatch.delenv("ATEN_CPU_CAPABILITY")
        with pytest.raises(ResourceError, match=r"another kind of processor .*DEFAULT"):
            run(experiment(other, address=other.address, rounds=2))
        found = run(experiment(other, address=other.address, rounds=2), other_processor=True)
    here = run(experiment(rounds=2)).state.parameters
    assert not torch.equal(found.state.parameters, here)  # so the refusal is worth it
    assert torch.allclose(found.state.parameters, here, atol=1e-2)


PGD = {"name": "pgd", "eps": 0.15, "step_size": 0.05, "steps": 3}


def test_the_first_exception_in_the_order_of_clients_arrives_as_it_was_raised(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rule's module lies beside the config, where only the run itself looks for modules."""
    (tmp_path / "fails_on_ray.py").write_text(FAILS)
    monkeypatch.setattr(beside, "_places", (str(tmp_path),))
    monkeypatch.syspath_prepend(str(tmp_path))
    from fails_on_ray import Fails  # type: ignore[import-not-found]

    broken = replace(experiment(cluster), objective=Fails())
    with pytest.raises(ZeroDivisionError, match="the batch has the labels") as found:
        run(broken)
    assert "on another worker" in found.value.__notes__[0]
    with pytest.raises(ZeroDivisionError) as here:
        run(replace(experiment(), objective=Fails()))
    assert str(here.value) == str(found.value)


FAILS = """
from dataclasses import dataclass


@dataclass(frozen=True)
class Fails:
    def perturbed(self, examples, round):
        return 0

    def draw(self, x, generator):
        return None

    def maximize(self, model, x, y, draw, *, batch):
        return x

    def loss(self, model, x, perturbed, y, context):
        if context.round > 1:
            raise ZeroDivisionError(f"the batch has the labels {y.tolist()}")
        return model(x).square().mean()
"""


def test_what_cannot_be_played_on_ray_is_said_at_once(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ring = {
        "data": {"name": "synthetic-ring", "n": 500, "test": 100, "validation": 100},
        "model": {"name": "ring-mlp"},
        "objective": {"name": "erm"},
        "client": {"batch_size": 16, "batches": 1, "optimizer": {"name": "sgd", "lr": 0.1}},
        "evaluation": {"every": 2, "attack": PGD | {"box": False}},
        "execution": {"device": "cpu"},
    }
    with pytest.raises(ConfigError, match=r"execution\.backend: one call computes all clients"):
        run(experiment(cluster, **ring), out=tmp_path / "ring")
    assert not (tmp_path / "ring" / "config.yaml").exists()
    held = replace(experiment(cluster), objective=Holding(threading.Lock()))
    with pytest.raises(ConfigError, match=r"cannot be sent to other machines .*backend: local"):
        run(held)
    nowhere = ModuleType("nowhere")
    nowhere.Held = type("Held", (Holding,), {"__module__": "nowhere"})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "nowhere", nowhere)
    with pytest.raises(ConfigError, match=r"has no module nowhere, .* beside the config"):
        run(replace(experiment(cluster), objective=nowhere.Held(None)))


class Holding:
    """An objective that holds anything, of a module that no worker can import."""

    def __init__(self, held: Any) -> None:
        self.held = held

    def perturbed(self, examples: int, round: int) -> int:
        return 0

    def draw(self, x: Any, generator: Any) -> None:
        return None

    def maximize(self, model: Any, x: Any, y: Any, draw: Any, *, batch: int) -> Any:
        return x


def federation(objective: Any = None, *, clients: int = 4) -> Federation:
    """A federation of small networks on made-up data, one client a unit; Adam's state is kept."""
    torch.manual_seed(0)
    data = [(torch.rand(30, 8), torch.arange(30) % 3) for _ in range(clients)]
    client = Client(batch_size=8, batches=1, optimizer=Adam(0.01), keep_optimizer=True)
    model = torch.nn.Sequential(torch.nn.Linear(8, 6), torch.nn.ReLU(), torch.nn.Linear(6, 3))
    return Federation.of(model, data, objective=objective, client=client, batch=8)


def played(federation: Federation, backends: Sequence[Any]) -> Any:
    """The state after a round on each of the backends."""
    state = federation.start()
    for backend in backends:
        state, _ = run_round(state, federation, Streams(seed=1), backend=backend)
    return state


def test_what_is_kept_of_clients_is_fetched_or_asked_for(cluster: Any) -> None:
    ours = federation()
    with on_ray() as backend:
        state = played(ours, [backend, backend])
        branch = state.clone()
        with pytest.raises(ResourceError, match=r"backend\.settle\(state\)"):
            run_round(branch.clone(), ours, Streams(seed=1))
        with pytest.raises(ResourceError, match="settle"):
            torch.save(state.store, os.devnull)
        backend.settle(state)
        backend.settle(branch)
    wanted = played(federation(), [LOCAL] * 3).parameters
    for found in (state, branch):
        after, _ = run_round(found, ours, Streams(seed=1))
        assert torch.equal(after.parameters, wanted)


class Own:
    """An objective that does something before each loss."""

    def __init__(self, act: Callable[..., Any], held: Any = None) -> None:
        self.act, self.held = act, held

    def perturbed(self, examples: int, round: int) -> int:
        return 0

    def draw(self, x: Any, generator: Any) -> None:
        return None

    def maximize(self, model: Any, x: Any, y: Any, draw: Any, *, batch: int) -> Any:
        return x

    def loss(self, model: Any, x: Any, perturbed: Any, y: Any, context: Any) -> Any:
        return torch.nn.functional.cross_entropy(model(x + self.act(self, x, y)), y)


def test_objectives_that_draw_write_or_depend_on_settings_have_the_bits_of_local(
    cluster: Any,
) -> None:
    import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    weights = np.full(100_000, 0.5, np.float32)

    def draws(own: Any, x: Any, y: Any) -> Any:
        return torch.randn(x.shape).to(x) if int(y.sum()) % 2 else 0.0

    def writes(own: Any, x: Any, y: Any) -> Any:
        own.held *= 1.0
        return torch.from_numpy(own.held)[:8]

    try:
        for act, held in ((draws, None), (writes, weights)):
            here, there = (federation(Own(act, held)) for _ in range(2))
            wanted = played(here, [LOCAL] * 3).parameters
            with on_ray() as backend:
                assert torch.equal(played(there, [backend] * 3).parameters, wanted)
        wide = [federation(Own(lambda own, x, y: torch.randn(x.shape).float())) for _ in range(2)]
        torch.set_default_dtype(torch.float64)  # in which the objective draws, there too
        wanted = played(wide[0], [LOCAL]).parameters
        with on_ray() as backend:
            assert torch.equal(played(wide[1], [backend]).parameters, wanted)
    finally:
        torch.set_default_dtype(torch.float32)
        cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


def test_a_task_that_exits_or_raises_what_cannot_be_sent_ends_the_round(cluster: Any) -> None:
    import cloudpickle

    class UnsentError(Exception):
        def __init__(self) -> None:
            super().__init__("it holds a lock")
            self.lock = threading.Lock()

    def exits(own: Any, x: Any, y: Any) -> Any:
        sys.exit("diverged")

    def raises(own: Any, x: Any, y: Any) -> Any:
        raise UnsentError

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    try:
        with on_ray() as backend:
            with pytest.raises(SystemExit, match="diverged"):
                played(federation(Own(exits)), [backend])
            with pytest.raises(RuntimeError, match="UnsentError: it holds a lock"):
                played(federation(Own(raises)), [backend])
    finally:
        cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    until(lambda: not busy_workers())


@dataclass(frozen=True)
class Failing:
    """Work of which one unit of many fails, while others end; it leaves a file for each unit."""

    folder: Path

    def __call__(self, model: Any, unit: int) -> int:
        time.sleep(0.004 * float(np.random.default_rng().random()))
        (self.folder / str(unit)).touch()
        if unit == 5:
            raise ZeroDivisionError(unit)
        return unit


def test_a_failure_leaves_few_tasks_behind_it_and_this_process_alive(
    cluster: Any, tmp_path: Path
) -> None:
    """To cancel the others would end it: Ray's driver aborts where one ends at that moment."""
    import cloudpickle

    workers, model = Workers(Execution(device="cpu")), torch.nn.Linear(2, 2)
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    try:
        for _ in range(60):
            with pytest.raises(ZeroDivisionError):
                workers.computed(
                    model, range(60), Failing(tmp_path), False, lambda i, answer: None, None
                )
    finally:
        cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    until(lambda: not busy_workers())
    begun = {int(path.name) for path in tmp_path.iterdir()}
    assert {0, 1, 2, 3, 4, 5} <= begun
    assert max(begun) < 20, "twice as many as there are cores are begun at a time"


class Late:
    """An attack of evaluations that draws on some examples only."""

    def draw(self, x: Any, generator: Any) -> None:
        return None

    def maximize(self, model: Any, x: Any, y: Any, draw: Any, *, batch: int) -> Any:
        return (x + 0.3 * torch.rand_like(x)).clamp(0, 1) if float(x.mean()) > 0.4 else x


def test_an_attack_that_draws_late_has_the_bits_of_one_worker(cluster: Any) -> None:
    import cloudpickle

    x = torch.linspace(0, 1, 200 * 8).view(200, 8)
    model, y = torch.nn.Linear(8, 3), torch.arange(200) % 3
    generator = torch.Generator().manual_seed(4)
    with shared_by(1):
        wanted = score(model, x, y, attack=Late(), generator=generator, batch_size=50)
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    try:
        workers = Workers(Execution(device="cpu"))
        with placed(workers):
            found = score(model, x, y, attack=Late(), generator=generator, batch_size=50)
    finally:
        cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    assert torch.equal(found.robust, wanted.robust)


def test_a_cluster_without_a_core_is_refused() -> None:
    nodes = [Node("a", "head", 0, 0)]
    for device in ("cpu", "cuda"):
        with pytest.raises(ResourceError, match="no node of the Ray cluster offers a"):
            _require_places(Execution(device=device), nodes)
    _require_places(Execution(device="cpu"), [*nodes, Node("b", "other", 1, 0)])
