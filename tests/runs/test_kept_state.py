"""What a refused update leaves behind: nothing. One bad batch must not cost a client all rounds."""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fedrobust import Experiment, run
from fedrobust.clients.client import Client
from fedrobust.clients.local_training import LocalTraining
from fedrobust.clients.optimizers import Adam, OptimizerSpec, Sgd
from fedrobust.clients.turn import Store
from fedrobust.compute.parameters import read
from fedrobust.compute.randomness import Streams
from fedrobust.data import Dataset, Split
from fedrobust.objectives import ERM


class ByLength(nn.Module):
    """Divides by the length of an image, which is 0 for a black one."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(64, 3)

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(1)
        return self.layer(flat / flat.norm(dim=1, keepdim=True))


def examples(black: int) -> tuple[Tensor, Tensor]:
    x = torch.rand(96, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    x[black] = 0
    return x, torch.arange(96) % 3


def own(config: Client, x: Tensor, y: Tensor, together: bool = False) -> LocalTraining:
    parts = (torch.arange(48), torch.arange(48, 96))
    model, device = ByLength(), torch.device("cpu")
    task = LocalTraining(model, Split(x, y), 3, parts, ERM(), config, 64, device)
    return replace(task, together=together)


@pytest.mark.parametrize("optimizer", [Adam(lr=0.01), Sgd(lr=0.1, momentum=0.9)])
@pytest.mark.parametrize("batches", [1, 3])
@pytest.mark.parametrize("together", [False, True])
def test_a_refused_update_leaves_the_state_of_before(
    optimizer: OptimizerSpec, batches: int, together: bool
) -> None:
    """Client 0 holds one black image: rounds in which it is drawn do not count for its state."""
    config = Client(batch_size=8, batches=batches, optimizer=optimizer, keep_optimizer=True)
    x, y = examples(black=5)
    task, store, streams = own(config, x, y, together), Store(), Streams(3)
    start = read(task.model)
    met, refused = Store(), 0
    for number in range(1, 13):
        before = {k: v.clone() for k, v in store.get(0, {}).items() if isinstance(v, Tensor)}
        rows = task.updates(start, store, [0, 1], streams, number)
        assert rows[1].isfinite().all()
        if rows[0].isfinite().all():
            # What plain training from the last good state gives.
            task.updates(start, met, [0], streams, number)
            assert set(store[0]) == set(met[0])
            for k in store[0]:
                torch.testing.assert_close(store[0][k], met[0][k], rtol=1e-4, atol=1e-7)
        else:
            refused += 1
            after = store.get(0, {})
            assert all(torch.equal(after[k], v) for k, v in before.items())
    assert 0 < refused < 12


class Steep(ByLength):
    """Logits a billion billion times as large as they should be."""

    def forward(self, x: Tensor) -> Tensor:
        return 1e25 * super().forward(x)


@pytest.mark.parametrize("together", [False, True])
def test_a_state_that_overflows_is_not_kept(together: bool) -> None:
    """Adam's second moment of a gradient of 1e25 is infinite, while its step is finite: 0."""
    config = Client(batch_size=8, batches=1, optimizer=Adam(lr=0.01), keep_optimizer=True)
    x, y = examples(black=5)
    task, store = replace(own(config, x, y, together), model=Steep()), Store()
    rows = task.updates(read(task.model), store, [1], Streams(0), 1)
    assert rows.isfinite().all()
    assert 1 not in store


Tiny = Callable[..., Experiment]


@pytest.mark.parametrize("rule", [{"name": "mean"}, {"name": "fl-trust"}])
def test_a_black_image_costs_the_rounds_in_which_it_is_drawn(
    tiny: Tiny, rule: dict[str, Any]
) -> None:
    x, y = examples(black=95)
    if rule["name"] == "fl-trust":
        x[90:] = 0  # half of them with the server
    bright = torch.rand(30, 1, 8, 8)
    data = Dataset.from_tensors(x, y, bright, torch.arange(30) % 3, validation=0)
    attack = {"name": "pgd", "eps": 0.05, "step_size": 0.05, "steps": 1}
    changes: dict[str, Any] = {
        "data": data,
        "model": ByLength(),
        "partition": {"name": "iid", "clients": 2},
        "objective": {"name": "erm"},
        "malicious": 0,
        "attack": None,
        "aggregator": rule,
        "rounds": 40,
        "evaluation": {"attack": attack, "every": 40, "split": "train", "samples": 9},
        "client": {
            "batch_size": 8,
            "batches": 1,
            "optimizer": {"name": "adam", "lr": 0.01},
            "keep_optimizer": True,
        },
    }
    if rule["name"] == "fl-trust":
        changes["server"] = {"root": 48}
    result = run(tiny(**changes))
    told = " ".join(result.summary["troubles"])
    # The server's own update, which FLTrust needs, is refused like a client's.
    where = r"refused in (\d+) round" if rule["name"] == "mean" else r"(\d+) rounds? made no step"
    [times] = re.findall(where, told)
    assert 1 <= int(times) <= (15 if rule["name"] == "mean" else 28)
    assert result.state.parameters.isfinite().all()
