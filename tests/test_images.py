"""Every data set with a network that fits it, and images of any number of channels, end to end.

The batch of the inner maximisation is measured here, as it is for everybody who gives none, except
for large networks.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fedrobust import Experiment, run
from fedrobust.data import Dataset
from fedrobust.evaluation import audit
from fedrobust.report import write_report

pytestmark = pytest.mark.long

Tiny = Callable[..., Experiment]
SHARED = Path(os.environ.get("FEDROBUST_DATA", "/nowhere"))
L2 = {"name": "pgd", "eps": 0.5, "norm": "l2", "step_size": 0.2, "steps": 2}
LINF = {"name": "pgd", "eps": 0.03, "step_size": 0.01, "steps": 2}
PLAN = {"device": "cpu", "threads": 1}
LARGE = ("mnist-cnn", "leaf-cnn", "cifar-cnn")
"""Networks for which measuring the batch takes seconds."""


def small(attack: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """One round, evaluated on few examples, without a measured batch."""
    few = {"every": 1, "samples": 24, "test_samples": 24, "attack": attack}
    one = {"batch_size": 8, "batches": 1, "optimizer": {"name": "adam", "lr": 0.001}}
    learn = {"name": "adversarial", "ratio": 0.5, "attack": attack}
    return {
        "rounds": 1,
        "execution": PLAN,
        "evaluation": few,
        "client": one,
        "objective": learn,
        **changes,
    }


@pytest.mark.parametrize(
    ("data", "model", "clients", "attack"),
    [
        ("digits", "digits-cnn", 11, L2),
        ("mnist", "mnist-cnn-small", 51, LINF),
        ("mnist", "elu-cnn", 11, L2),
        ("fashion-mnist", "mnist-cnn", 11, L2),
        ("cifar10", "cifar-cnn", 11, L2),
        ("cifar10", "mnist-cnn-small", 11, LINF),
        ("cifar10", "elu-cnn", 11, LINF),
        ("femnist", "leaf-cnn", None, L2),
    ],
)
def test_every_data_set_with_a_network_that_fits(
    tiny: Tiny, data: str, model: str, clients: int | None, attack: dict[str, Any]
) -> None:
    if data != "digits" and not (SHARED / data).is_dir():
        pytest.skip("FEDROBUST_DATA does not name the data")
    changes: dict[str, Any] = {"data": {"name": data}, "model": {"name": model}}
    if model == "elu-cnn":
        changes["model"] = {"name": model, "width": 16}
    if clients is None:
        changes |= {
            "partition": {"name": "by-writer"},
            "participation": {"name": "sample", "clients": 11},
        }
    else:
        changes["partition"] = {"name": "iid", "clients": clients}
    if model in LARGE:
        changes["execution"] = PLAN | {"batch": 64}
    result = run(tiny(**small(attack, **changes)))
    assert result.summary.troubles == ()
    assert result.metrics[-1]["examples"] == 24
    assert result.state.parameters.isfinite().all()


def test_the_ring_with_a_measured_batch(tiny: Tiny) -> None:
    away = {"name": "pgd", "eps": 0.1, "norm": "l2", "step_size": 0.05, "steps": 2, "box": False}
    changes = {"data": {"name": "synthetic-ring", "n": 2000}, "model": {"name": "ring-mlp"}}
    result = run(tiny(**small(away, **changes | {"data": {"name": "synthetic-ring", "n": 8000}})))
    assert result.summary.troubles == ()


@pytest.mark.parametrize(
    ("shape", "model"),
    [
        ((1, 9, 14), "digits-cnn"),
        ((2, 12, 12), "mnist-cnn-small"),
        ((5, 13, 11), "cifar-cnn"),
    ],
)
def test_images_of_any_channels_and_sides_from_run_to_report_and_audit(
    tiny: Tiny, tmp_path: Path, shape: tuple[int, ...], model: str
) -> None:
    y = torch.arange(600) % 3
    noise = torch.rand(600, *shape, generator=torch.Generator().manual_seed(0))
    x = noise * 0.3 + 0.3 * y.view(-1, 1, 1, 1)
    own = Dataset.from_tensors(x[:480], y[:480], x[480:], y[480:], validation=60)
    drift = {"gamma": 1.0, "levels": [0.1], "samples": 24, "ascent": {"steps": 2}}
    evaluation = {"every": 1, "samples": 24, "attack": LINF, "wasserstein": drift}
    kind = {"name": model, "width": 16} if model == "cifar-cnn" else {"name": model}
    plan = PLAN | {"batch": 64} if model in LARGE else PLAN
    changes = {"model": kind, "evaluation": evaluation, "execution": plan}
    result = run(tiny(**small(L2, data=own, **changes)), tmp_path / "run")
    assert not [text for text in result.summary["troubles"] if "gamma" not in text]
    assert result.summary["test"]["final"]["shift"][0]["reached"] == pytest.approx(0.1, rel=0.03)
    assert write_report([tmp_path / "run"]).is_file()
    x, y = x[480:488], y[480:488]
    found = audit(result.model, x, y, eps=0.02, norm="l2")
    with torch.no_grad():
        right = int((result.model(x).argmax(dim=1) == y).sum())
    assert found.clean == right / 8
