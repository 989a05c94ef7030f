"""From an experiment to a federation: who holds what, and what is refused before training."""

import os
from collections.abc import Callable
from typing import Any

import psutil
import pytest
import torch
from torch import nn

from fedrobust import Client, Dataset, Evaluation, Experiment, run
from fedrobust.aggregators import Krum, Median
from fedrobust.attacks import GaussianNoise, LabelFlip
from fedrobust.clients.optimizers import Adam, Sgd
from fedrobust.compute.execution import SIZES, Execution, fastest_batch, processor
from fedrobust.compute.memory import activations, available_memory
from fedrobust.compute.units import workers
from fedrobust.data import ByWriter, Iid, Mnist
from fedrobust.errors import ConfigError, DataError, RecordError, ResourceError
from fedrobust.models import MnistCnnSmall
from fedrobust.objectives import ERM
from fedrobust.perturb import Pgd
from fedrobust.runs.prepare import prepare
from fedrobust.runs.round_memory import memory_needed

PGD = Pgd(eps=0.1, step_size=0.05, steps=2)


def fingerprints(x: torch.Tensor) -> list[bytes]:
    return [row.numpy().tobytes() for row in x]


@pytest.mark.slow
def test_the_papers_mnist_federation() -> None:
    """51 equal parts of what 5,000 validation examples leave, and of the test set."""
    if "FEDROBUST_DATA" not in os.environ:
        pytest.skip("set FEDROBUST_DATA to a folder with mnist")
    ready = prepare(
        Experiment(
            name="mnist",
            rounds=1,
            data=Mnist(),
            partition=Iid(51),
            model=MnistCnnSmall(),
            client=Client(batches=1, optimizer=Adam(0.005)),
            evaluation=Evaluation(attack=PGD),
            execution=Execution("cpu", 1, 64),
        )
    )
    local = ready.federation.local
    assert [len(part) for part in local.clients] == [1078] * 51
    assert [len(part) for part in ready.partition.test] == [196] * 51
    assert len(set(torch.cat(tuple(local.clients)).tolist())) == 51 * 1078
    assert len(ready.chooses) == 5000
    assert len(ready.held_out) == 1000
    assert "22 examples are left over" in " ".join(ready.notes)
    seen = set(fingerprints(ready.chooses.x))
    shared = [f for f in fingerprints(local.data.x) if f in seen]
    assert len(shared) == 0  # MNIST's training images are distinct, so none is in both splits


def test_malicious_clients_are_seeded_and_differ_between_seeds(
    tiny: Callable[..., Experiment],
) -> None:
    chosen = [prepare(tiny(seed=s)).federation.malicious for s in (0, 0, 1, 2, 3)]
    assert chosen[0] == chosen[1]
    assert len(set(chosen)) > 2
    assert all(len(c) == 2 for c in chosen)


def test_malicious_clients_may_hold_some_classes_only(tiny: Callable[..., Experiment]) -> None:
    """As many examples as before, of these classes, some of them twice; nobody else's change."""
    free, limited = (
        prepare(tiny(malicious=2, attack=GaussianNoise(0.1), threat=threat))
        for threat in ({}, {"classes": [0, 3]})
    )
    assert free.federation.malicious == limited.federation.malicious
    y = limited.federation.local.data.y
    for client, (before, after) in enumerate(
        zip(free.partition.train, limited.federation.local.clients, strict=True)
    ):
        if client in limited.federation.malicious:
            fit = before[(y[before] == 0) | (y[before] == 3)]
            assert 0 < len(fit) < len(before) == len(after)
            assert set(after.tolist()) == set(fit.tolist())
        else:
            assert torch.equal(before, after)
    with pytest.raises(DataError, match="holds no training example of the classes 77"):
        prepare(tiny(malicious=1, attack=GaussianNoise(0.1), threat={"classes": [77]}))


def test_the_data_of_benign_clients_may_be_known(tiny: Callable[..., Experiment]) -> None:
    ready = prepare(tiny(malicious=1, attack=GaussianNoise(0.1), threat={"data": 2}))
    known = ready.federation.known
    assert len(set(known)) == 2
    assert ready.federation.malicious.isdisjoint(known)
    assert not prepare(tiny(malicious=1, attack=GaussianNoise(0.1))).federation.known
    with pytest.raises(ConfigError, match=r"threat.data is 99, but \d+ of \d+ clients are benign"):
        prepare(tiny(malicious=1, attack=GaussianNoise(0.1), threat={"data": 99}))


def test_a_run_that_cannot_fit_is_refused_with_the_figures(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    experiment = Experiment(
        name="wide",
        rounds=1,
        data=Dataset.from_tensors(
            torch.rand(600, 8, 8),
            torch.arange(600) % 10,
            torch.rand(60, 8, 8),
            torch.arange(60) % 10,
            validation=100,
        ),
        partition=Iid(500),
        model=nn.Sequential(nn.Flatten(), nn.Linear(64, 100_000), nn.Linear(100_000, 10)),
        client=Client(batches=1, optimizer=Adam(0.1), keep_optimizer=True),
        evaluation=Evaluation(attack=PGD),
        execution=Execution("cpu", 1, 64),
    )
    d = 65 * 100_000 + 10 * 100_001
    assert memory_needed(experiment, 500, 4 * d, 1) == pytest.approx(4 * d * 4 * 500, rel=0.02)
    monkeypatch.setattr("fedrobust.compute.memory.available_memory", lambda device: 20 * 2**30)
    with pytest.raises(ResourceError, match=r"needs about 56.\d GiB and 20.0 GiB are free: 500 cl"):
        prepare(experiment)


def test_optimiser_states_count_only_for_those_who_can_take_part(
    tiny: Callable[..., Experiment],
) -> None:
    """3 of 3,500 clients a round, for 10 rounds: 30 Adam states, not 3,500."""
    sampled = tiny(
        rounds=10, participation={"name": "sample", "clients": 3}, aggregator={"name": "mean"}
    )
    assert memory_needed(sampled, 3500, 4, 1) == 4 * (2 * 3 + 2 * 30 + 8)
    assert memory_needed(sampled, 3500, 4, 7) == 4 * (2 * 3 + 2 * 30 + 38)


def test_blocks_of_coordinates_need_less_memory_and_not_every_rule_works_in_them(
    tiny: Callable[..., Experiment], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two million parameters × 40 clients: 320 MB as a matrix, 5 MB in blocks of 30,000."""
    wide = nn.Sequential(nn.Flatten(), nn.Linear(64, 27_000), nn.ELU(), nn.Linear(27_000, 10))
    d = 65 * 27_000 + 10 * 27_001
    plan = {"device": "cpu", "threads": 1, "batch": 1, "backend": "ray"}
    shape = {"partition": {"name": "iid", "clients": 40}, "model": wide, "malicious": 0}
    shape["client"] = Client(batches=1, optimizer=Sgd(0.1))

    def made(block: int | None = None, **changes: Any) -> Experiment:
        return tiny(**shape | {"execution": plan | {"block": block}} | changes)

    one = made(30_000)
    whole, share = memory_needed(one, 40, 4 * d, 1), 30_000 / d
    assert whole - memory_needed(one, 40, 4 * d, 1, share) == pytest.approx(
        4 * d * 2 * 40 - 3 * 40 * 4 * 30_000, abs=8
    )
    attacked = made(30_000, malicious=2, attack=LabelFlip())
    more = memory_needed(attacked, 40, 4 * d, 1, share) - memory_needed(one, 40, 4 * d, 1, share)
    assert more == pytest.approx(4 * d * 3 * 2, abs=8)
    monkeypatch.setattr("fedrobust.compute.memory.available_memory", lambda device: 4 * d * 60)
    for rule in ("median", "geometric-median"):
        cure = "Use execution.block, fewer" if rule == "median" else "Use fewer"
        with pytest.raises(ResourceError, match=cure):
            prepare(made(aggregator={"name": rule}))
    prepare(made(30_000, aggregator={"name": "median"}))
    with pytest.raises(ResourceError, match=r"of which 2,000,000 at a time\. Use a smaller exec"):
        prepare(made(2_000_000, aggregator={"name": "median"}))
    with pytest.raises(ResourceError, match=r"of which 5,000 at a time"):  # Ray keeps them here
        prepare(made(5_000, aggregator={"name": "median"}))
    with pytest.raises(ConfigError, match=r"geometric-median needs whole rows.* 0\.3 GiB, and"):
        prepare(made(30_000, aggregator={"name": "geometric-median"}))
    with pytest.raises(ConfigError, match=r"into 2,026 pieces, more than 1,000; use 2,026 or more"):
        prepare(made(1_000, aggregator={"name": "median"}))
    granted = {"malicious": 2, "attack": LabelFlip(), "threat": {"benign": True}}
    with pytest.raises(ConfigError, match=r"execution\.block: with threat\.benign: true"):
        prepare(made(30_000, aggregator={"name": "median"}, **granted))


def test_a_unit_larger_than_memory_is_refused(
    tiny: Callable[..., Experiment], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a hidden layer of 2,000 keeps of an example: its input, and itself before and after."""
    wide = nn.Sequential(nn.Flatten(), nn.Linear(64, 2000), nn.ELU(), nn.Linear(2000, 10))
    kept = activations(wide, torch.rand(2, 1, 8, 8))
    assert 4 * 2000 <= kept <= 4 * (2 * 2000 + 2 * 64)
    assert activations(wide, torch.rand(8, 1, 8, 8)) == kept
    plan = {"device": "cpu", "threads": 3, "batch": 2**20}
    monkeypatch.setattr("fedrobust.compute.memory.available_memory", lambda device: 2**26)
    told = r"0.1 GiB are free: each of 3 workers computes a unit of 1,\d\d\d .*execution\.batch"
    with pytest.raises(ResourceError, match=told):
        prepare(tiny(model=wide, execution=plan))
    prepare(tiny(model=wide, execution=plan | {"batch": 64}))


def test_free_memory_is_that_of_this_machine() -> None:
    assert 2**20 < available_memory("cpu") <= psutil.virtual_memory().total


def test_data_that_are_no_pixels_need_an_attack_without_box(
    tiny: Callable[..., Experiment],
) -> None:
    ring = {"name": "synthetic-ring", "n": 2000, "test": 200, "validation": 200}
    settings: dict[str, Any] = {
        "data": ring,
        "model": {"name": "ring-mlp"},
        "malicious": 0,
        "rounds": 2,
    }
    with pytest.raises(ConfigError, match=r"objective.attack: the examples lie in .*box: false"):
        prepare(tiny(**settings))
    free = {"name": "pgd", "eps": 0.1, "step_size": 0.05, "steps": 3, "box": False}
    objective = {"name": "adversarial", "ratio": 1.0, "attack": free}
    with pytest.raises(ConfigError, match=r"evaluation.attack: the examples lie in"):
        prepare(tiny(**settings, objective=objective))
    evaluation = {"every": 2, "samples": 100, "attack": free}
    result = run(tiny(**settings, objective=objective, evaluation=evaluation))
    assert 0 < result.summary["test"]["final"]["robust_accuracy"] < 1


def test_plan_is_complete_and_kept(tiny: Callable[..., Experiment]) -> None:
    plan = prepare(tiny(execution={})).plan
    assert plan.device == ("cuda" if torch.cuda.is_available() else "cpu")
    assert plan.threads is None  # it is of this machine, and not of the plan
    assert plan.processor == processor(plan.device)
    assert plan.batch in SIZES
    assert plan.gradients == "autograd"
    given = Execution("cpu", 3, 77, "autograd", processor=plan.processor)
    assert prepare(tiny(execution={}), given).plan == given


def test_threads_are_put_back() -> None:
    torch.set_num_threads(2)
    with Execution("cpu", 3, 1).active():
        assert (workers(), torch.get_num_threads()) == (3, 1)
        assert Krum(f=1)(torch.rand(8, 1 << 16)).isfinite().all()
    assert (workers(), torch.get_num_threads()) == (2, 2)
    with Execution("cpu").active():
        assert (workers(), torch.get_num_threads()) == (2, 1)
    torch.set_num_threads(1)


def test_the_fastest_batch_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine where 256 is fastest by far, 256 is chosen; a gain of 1 % is not enough."""
    cost = {64: 1.0, 128: 0.9, 256: 0.5, 512: 0.499, 1024: 2.0}
    monkeypatch.setattr(
        "fedrobust.compute.execution._time", lambda m, x, y: cost[len(x)] * len(x) / 1e4
    )
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    assert fastest_batch(model, (1, 2, 2), 2) == 256


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused(tiny: Callable[..., Experiment]) -> None:
    with pytest.raises(ConfigError, match=r"execution.device: there is no CUDA device"):
        prepare(tiny(execution={"device": "cuda"}))


class KeepFirst:
    """A user's rule, an ordinary object."""

    def __call__(self, updates: torch.Tensor) -> torch.Tensor:
        return updates[0]


def own_model() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(25, 3))


def own_experiment(**changes: Any) -> Experiment:
    g = torch.Generator().manual_seed(0)
    x, y = torch.rand(400, 1, 5, 5, generator=g), torch.randint(3, (400,), generator=g)
    settings: dict[str, Any] = {
        "name": "own",
        "rounds": 3,
        "data": Dataset.from_tensors(x[:300], y[:300], x[300:], y[300:], validation=50),
        "partition": Iid(5),
        "model": own_model(),
        "objective": ERM(),
        "client": Client(batch_size=10, batches=1, optimizer=Sgd(0.1)),
        "aggregator": KeepFirst(),
        "evaluation": Evaluation(attack=PGD, every=1, samples=20),
        "execution": Execution("cpu", 1, 64),
    }
    return Experiment(**settings | changes)


def test_own_model_data_and_rule_drop_in_and_resume_from_python(tmp_path: Any) -> None:
    result = run(own_experiment(), tmp_path / "run")
    assert [m["round"] for m in result.metrics] == [1, 2, 3]
    moved = result.state.parameters
    again = run(own_experiment(), tmp_path / "run", resume=True)
    assert torch.equal(again.state.parameters, moved)
    text = (tmp_path / "run" / "config.yaml").read_text()
    assert "opaque" in text
    from fedrobust import load

    with pytest.raises(ConfigError, match="resume from Python"):
        load(tmp_path / "run" / "config.yaml")
    other = nn.Sequential(nn.Flatten(), nn.Linear(25, 3))
    with pytest.raises(RecordError, match="They differ in model"):
        run(own_experiment(model=other), tmp_path / "run", resume=True)
    with pytest.raises(RecordError, match="aggregator"):
        run(own_experiment(aggregator=Median()), tmp_path / "run", resume=True)


def test_a_float64_network_trains_in_float64() -> None:
    result = run(own_experiment(model=own_model().double(), aggregator=Median()))
    assert result.state.parameters.dtype == torch.float64
    assert not torch.equal(result.state.parameters.float().double(), result.state.parameters)


class Normalised(nn.Module):
    """A network with constant buffers and a frozen layer, as in transfer learning."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(0.5))
        self.body = nn.Linear(25, 8)
        self.head = nn.Linear(8, 3)
        self.body.weight.requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head((self.body((x - self.mean).flatten(1))).relu())


def test_constant_buffers_and_frozen_layers_stay_as_they_are(tmp_path: Any) -> None:
    from safetensors.torch import load_file

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Normalised()
    noise = GaussianNoise(scale=1.0)
    result = run(
        own_experiment(model=model, aggregator=Median(), malicious=2, attack=noise),
        tmp_path / "run",
    )
    assert not result.model.training
    saved = load_file(tmp_path / "run" / "model.safetensors")
    assert torch.equal(saved["body.weight"], model.body.weight)
    assert torch.equal(saved["mean"], model.mean)
    assert not torch.equal(saved["head.weight"], model.head.weight)
    Normalised().load_state_dict(saved)


def test_writers_are_clients_and_only_theirs_choose(tmp_path: Any) -> None:
    """Six writers of whom three take part: no score comes from the others."""
    g = torch.Generator().manual_seed(0)
    x, y = torch.rand(600, 1, 5, 5, generator=g), torch.randint(3, (600,), generator=g)
    user = torch.arange(600) % 6
    data = Dataset.from_tensors(
        x[:480],
        y[:480],
        x[480:],
        y[480:],
        user_train=user[:480],
        user_test=user[480:],
        validation=120,
    )
    evaluation = Evaluation(attack=PGD, every=3, samples=None)
    result = run(own_experiment(data=data, partition=ByWriter(3), evaluation=evaluation))
    users = result.summary["users"]
    assert len(users) == 3
    assert set(result.metrics[-1]["per_user"]["accuracy"]) == {str(u) for u in users}
    assert set(result.summary["test"]["final"]["per_client"]["accuracy"]) == {"0", "1", "2"}
    clients = result.summary["test"]["final"]["clients"]
    per = result.summary["test"]["final"]["per_client"]
    weighted = sum(per["accuracy"][c] * per["examples"][c] for c in per["examples"])
    assert clients["accuracy"] == pytest.approx(weighted / clients["examples"])
