"""Rounds on a GPU against the same rounds on a CPU, and against themselves."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fedrobust import Experiment, run
from fedrobust.compute.execution import has_tf32
from fedrobust.federation.round import run_round
from fedrobust.federation.round_log import RoundLog
from fedrobust.progress import Progress
from fedrobust.runs.prepare import Prepared, prepare

Tiny = Callable[..., Experiment]
PGD = {"name": "pgd", "eps": 0.1, "step_size": 0.05, "steps": 4}
FAT: dict[str, Any] = {
    "objective": {"name": "adversarial", "ratio": 0.5, "attack": PGD},
    "client": {
        "batch_size": 16,
        "batches": 2,
        "optimizer": {"name": "adam", "lr": 0.005},
        "keep_optimizer": True,
    },
    "aggregator": {"name": "mean"},
    "malicious": 0,
    "attack": None,
}


def ready(tiny: Tiny, device: str, changes: dict[str, Any] = FAT, **plan: Any) -> Prepared:
    return prepare(tiny(**changes, execution={"device": device, "threads": 1, "batch": 64, **plan}))


def played(prepared: Prepared, rounds: int) -> Tensor:
    with prepared.plan.active():
        state = prepared.federation.start(prepared.start)
        for _ in range(rounds):
            state, _ = run_round(state, prepared.federation, prepared.streams)
    return state.parameters


def test_clients_train_together_and_as_on_a_cpu(tiny: Tiny) -> None:
    here, there = ready(tiny, "cpu"), ready(tiny, "cuda")
    assert there.plan.gradients == "vmap"
    assert there.plan.processor == torch.cuda.get_device_name()
    one = played(there, 1).cpu() - here.start
    other = played(here, 1) - here.start
    # Adam's first steps are ±rate, which rounding may turn where a gradient is 0.
    assert float((one - other).norm() / other.norm()) < 0.02


def test_the_same_seed_gives_the_same_bits(tiny: Tiny) -> None:
    assert torch.equal(played(ready(tiny, "cuda"), 3), played(ready(tiny, "cuda"), 3))


@pytest.mark.parametrize("changes", [{"precision": "bfloat16"}, {"gradients": "autograd"}])
def test_other_forms_are_near(tiny: Tiny, changes: dict[str, Any]) -> None:
    sgd = FAT | {
        "client": {"batch_size": 16, "batches": 2, "optimizer": {"name": "sgd", "lr": 0.1}}
    }
    base, other = ready(tiny, "cuda", sgd), ready(tiny, "cuda", sgd, **changes)
    step, near = (played(prepared, 1) - base.start for prepared in (base, other))
    assert float((step - near).norm() / step.norm()) < (0.2 if "precision" in changes else 1e-3)


def test_tf32_is_for_training_alone(tiny: Tiny) -> None:
    if not has_tf32("cuda"):
        pytest.skip("this GPU has no TF32")
    prepared = ready(tiny, "cuda", precision="tf32")
    assert not torch.equal(played(prepared, 1), played(ready(tiny, "cuda"), 1))
    assert torch.get_float32_matmul_precision() == "highest"
    with prepared.plan.active():
        assert not torch.backends.cudnn.allow_tf32


def test_a_users_network_is_not_captured_but_trains(tiny: Tiny) -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(64, 10)
            self.asked = 0

        def forward(self, x: Tensor) -> Tensor:
            self.asked += 1
            return self.layer(x.sub_(0.5).flatten(1))

    prepared = ready(tiny, "cuda", FAT | {"model": Own()})
    before = prepared.model.asked
    played(prepared, 1)
    assert prepared.model.asked >= before + PGD["steps"]  # type: ignore[operator]


def test_steps_of_pgd_do_not_wait_for_the_host(tiny: Tiny) -> None:
    def waits(steps: int) -> int:
        attack = PGD | {"steps": steps}
        objective = {"name": "adversarial", "ratio": 0.5, "attack": attack}
        prepared = ready(tiny, "cuda", FAT | {"objective": objective})
        played(prepared, 1)  # captures
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")  # this warns, too
            try:
                played(prepared, 1)
            finally:
                torch.cuda.set_sync_debug_mode("default")
        return sum("synchroniz" in str(warning.message) for warning in found)

    assert 0 < waits(2) == waits(20)


def test_a_run_goes_on_to_the_same_bits(tiny: Tiny, tmp_path: Path) -> None:
    plan = {"device": "cuda", "threads": 1, "batch": 64}
    whole = run(tiny(**FAT, execution=plan, rounds=4), tmp_path / "whole")

    class StoppedError(Exception):
        pass

    def stop(log: RoundLog) -> None:
        if log.round == 3:
            raise StoppedError

    with pytest.raises(StoppedError):
        run(
            tiny(**FAT, execution=plan, rounds=4),
            tmp_path / "parts",
            progress=Progress(played=stop),
        )
    parts = run(tiny(**FAT, execution=plan, rounds=4), tmp_path / "parts", resume=True)
    assert torch.equal(parts.state.parameters, whole.state.parameters)
