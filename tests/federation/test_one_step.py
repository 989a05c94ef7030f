"""Compiled local training against the federation's own, and when it is chosen."""

import warnings
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
import torch.nn.functional as F
from ruamel.yaml import YAML
from torch import Tensor, nn

from fedrobust import run
from fedrobust.clients.compiled_mlp import CompiledMlp
from fedrobust.clients.gradients import gradient_engine
from fedrobust.config.component import from_config
from fedrobust.errors import ConfigError, PrecisionWarning
from fedrobust.experiment import Experiment
from fedrobust.federation.attack import poisons
from fedrobust.federation.backends import LOCAL
from fedrobust.federation.one_step import OneStep, takes_one_step
from fedrobust.federation.round_log import RoundLog
from fedrobust.models import RingMlp
from fedrobust.objectives import WassersteinDRO
from fedrobust.progress import Progress
from fedrobust.runs.prepare import Prepared, prepare


def ring(**changes: Any) -> Experiment:
    """Ten clients on the ring, Wasserstein DRO."""
    pgd = {"name": "pgd", "norm": "l2", "eps": 0.1, "step_size": 0.1, "steps": 1, "box": False}
    config: dict[str, Any] = {
        "name": "ring",
        "rounds": 20,
        "data": {"name": "synthetic-ring", "n": 3000, "test": 400, "validation": 400},
        "partition": {"name": "iid", "clients": 10},
        "model": {"name": "ring-mlp"},
        "objective": {
            "name": "wasserstein-dro",
            "gamma": 2.0,
            "ascent": {"steps": 6, "rule": "decaying"},
        },
        "client": {"batch_size": 16, "batches": 1, "optimizer": {"name": "sgd", "lr": 0.3}},
        "evaluation": {"every": 10, "samples": 200, "attack": pgd},
        "execution": {"device": "cpu", "threads": 1, "batch": 1024},
    }
    return from_config(Experiment, config | changes)


def rows(ready: Prepared, clients: list[int], round: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The updates of a round by the compiled backend and by local training."""
    state = ready.federation.start(ready.start)
    state.round = round - 1
    both = [
        backend.local_updates(ready.federation, state, clients, ready.streams, {})
        for backend in (ready.backend, LOCAL)
    ]
    return both[0], both[1]


def test_the_learning_rate_of_the_round_counts() -> None:
    changes = {"batch_size": 16, "batches": 1, "optimizer": {"name": "sgd", "lr": 0.3}}
    drops = {"lr_factor": [{"value": 1.0, "until": 2}, {"value": 0.25}]}
    steady, dropping = prepare(ring(client=changes)), prepare(ring(client=changes | drops))
    for round, factor in ((2, 1.0), (3, 0.25)):
        expected = factor * rows(steady, [0, 4], round)[0]
        for found in rows(dropping, [0, 4], round):
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("objective", [{}, {"objective": {"name": "erm"}}], ids=["dro", "erm"])
def test_it_sends_what_local_training_sends_from_the_same_batches(
    objective: dict[str, Any],
) -> None:
    ready = prepare(ring(**objective))
    assert isinstance(ready.backend, OneStep)
    first, slow = rows(ready, [7, 0, 3], 5)
    torch.testing.assert_close(first, slow, rtol=1e-4, atol=1e-7)
    assert first.dtype == torch.float32
    later, _ = rows(ready, [7, 0, 3], 6)
    assert (later - first).abs().max() > 1e-3


def test_clients_with_less_than_a_batch_weigh_their_own_examples() -> None:
    sizes = {"name": "dirichlet", "clients": 10, "alpha": 0.05}
    ready = prepare(ring(partition=sizes, client={"batch_size": 400, "batches": 1}))
    held = [len(part) for part in ready.partition.train]
    assert min(held) < 400 < max(held)
    fast, slow = rows(ready, list(range(10)), 1)
    torch.testing.assert_close(fast, slow, rtol=1e-4, atol=1e-7)


@pytest.mark.slow
def test_a_run_ends_where_autograd_ends() -> None:
    ends = {}
    for gradients in ("compiled", "autograd"):
        plan = {"device": "cpu", "threads": 1, "batch": 1024, "gradients": gradients}
        ends[gradients] = run(ring(execution=plan)).state.parameters
    torch.testing.assert_close(ends["compiled"], ends["autograd"], rtol=1e-3, atol=1e-4)
    assert not torch.equal(ends["compiled"], ends["autograd"]), "both took the same way"


def test_it_is_chosen_where_it_serves_and_refused_where_it_does_not() -> None:
    assert prepare(ring()).plan.gradients == "compiled"
    flipped = ring(malicious=1, attack={"name": "label-flip"})
    assert prepare(flipped).plan.gradients == "autograd"
    for inner, gradients in (("label-flip", "autograd"), ("sign-flip", "compiled")):
        wrapped = {"name": "jittered", "radius": 1.0, "attack": {"name": inner}}
        assert prepare(ring(malicious=1, attack=wrapped)).plan.gradients == gradients
    asked = replace(flipped, execution=replace(flipped.execution, gradients="compiled"))
    with pytest.raises(ConfigError, match=r"execution\.gradients: compiled needs .*poisoned"):
        prepare(asked)
    kept = {"client": {"batch_size": 16, "batches": 1, "keep_optimizer": True}}
    assert prepare(ring(**kept)).backend is LOCAL


@pytest.mark.slow
def test_a_run_from_before_there_was_a_choice_goes_on_as_it_began(tmp_path: Path) -> None:
    plan = {"device": "cpu", "threads": 1, "batch": 1024, "gradients": "autograd"}
    straight = run(ring(execution=plan), tmp_path / "straight")

    def stop(log: RoundLog) -> None:
        if log.round == 15:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(ring(execution=plan), tmp_path / "old", progress=Progress(played=stop))
    path, yaml = tmp_path / "old" / "config.yaml", YAML(typ="safe")
    stored = yaml.load(path)
    del stored["execution"]["gradients"]
    yaml.dump(stored, path)
    went_on = run(ring(), tmp_path / "old", resume=True)
    assert torch.equal(went_on.state.parameters, straight.state.parameters)


def test_a_round_of_malicious_clients_alone_is_played() -> None:
    attack = {"malicious": 9, "attack": {"name": "zero-update"}}
    experiment = ring(**attack, participation={"name": "sample", "clients": 2})
    ready = prepare(experiment)
    assert isinstance(ready.backend, OneStep)
    assert run(experiment).state.round == 20


def test_what_the_loops_do_not_compute_is_left_to_autograd() -> None:
    """A layer that stands twice has its parameters once; a hook changes what comes out."""
    plain = prepare(ring()).model
    assert CompiledMlp.of(plain) is not None
    twice = nn.Linear(2, 2)
    tied = nn.Sequential(twice, nn.ELU(), twice, nn.ELU(), nn.Linear(2, 2))
    assert CompiledMlp.of(tied) is None
    hooked = deepcopy(plain)
    hooked[0].register_forward_hook(lambda module, given, out: 2 * out)
    assert CompiledMlp.of(hooked) is None

    class Own(WassersteinDRO):
        """A user's own objective, which may move inputs in another way."""

    owned = replace(ring(), objective=Own(gamma=2.0))
    assert not takes_one_step(prepare(owned).federation.local)
    assert prepare(owned).backend is LOCAL


class Own(nn.Module):
    """A user's own layer: as it is, or with noise in training."""

    def __init__(self, noise: float = 0.0) -> None:
        super().__init__()
        self.noise = noise

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.noise, self.training) if self.noise else 2 * x


@pytest.mark.parametrize(
    ("layer", "draws"),
    [
        (nn.Dropout(), True),
        (nn.FeatureAlphaDropout(), True),
        (nn.RReLU(), True),
        (Own(noise=0.5), True),
        (Own(), False),
        (nn.BatchNorm1d(4), False),
    ],
)
def test_a_network_that_draws_does_not_take_one_step_for_all(layer: nn.Module, draws: bool) -> None:
    model = nn.Sequential(nn.Linear(2, 4), layer, nn.Linear(4, 2))
    local = replace(prepare(ring()).federation.local, model=model)
    before = deepcopy(model.state_dict())
    assert takes_one_step(local) is not draws
    assert all(map(torch.equal, before.values(), model.state_dict().values()))
    assert model.training


def test_an_attack_that_wraps_and_poisons_itself_is_heard() -> None:
    class Own:
        attack = "flip"

        def poison(self, x: Any, y: Any, classes: int) -> Any:
            return x, y

    assert poisons(Own())
    assert not poisons(object())


def test_bfloat16_is_refused_where_a_step_is_searched() -> None:
    searching = {"name": "wasserstein-dro", "gamma": 2.0, "ascent": {"rule": "backtracking"}}
    plan = {"device": "cpu", "threads": 1, "batch": 64, "precision": "bfloat16"}
    with pytest.raises(ConfigError, match=r"needs execution\.precision float32"):
        prepare(ring(objective=searching, execution=plan))


@pytest.mark.parametrize(
    ("instructions", "machine", "warns"),
    [
        ({"avx2": True}, "x86_64", True),
        ({"avx512_f": True, "avx512_bf16": False}, "x86_64", True),
        ({"avx512_f": True, "avx512_bf16": True}, "x86_64", False),
        ({"amx_bf16": True}, "AMD64", False),
        ({"bf16": False}, "aarch64", False),
    ],
)
def test_bfloat16_without_instructions_for_it_is_warned_of(
    instructions: dict[str, bool],
    machine: str,
    warns: bool,
    tiny: Callable[..., Experiment],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: instructions)
    monkeypatch.setattr("platform.machine", lambda: machine)
    plan = {"device": "cpu", "threads": 1, "batch": 64}
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10), torch.nn.Tanh())

    def said(precision: Literal["float32", "bfloat16"]) -> list[str]:
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always", PrecisionWarning)
            prepare(tiny(execution=plan | {"precision": precision}))
            gradient_engine(model, precision)
            gradient_engine(RingMlp().build((2,), 2), precision)  # compiled in float64
        return [str(one.message) for one in found]

    keys = [text.split(":")[0] for text in said("bfloat16")]
    assert keys == (["execution.precision", "attack.precision"] if warns else [])
    assert said("float32") == []
