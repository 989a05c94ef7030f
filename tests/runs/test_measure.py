"""Which round is chosen, and whose test examples a client's score is of."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from fedrobust.experiment import Experiment
from fedrobust.runs.measure import on_test
from fedrobust.runs.prepare import prepare
from fedrobust.runs.summary import best_of


def test_robust_accuracy_chooses_then_accuracy_then_the_earlier() -> None:
    scores = [(1, 0.9, 0.3), (2, 0.7, 0.5), (3, 0.8, 0.5), (4, 0.8, 0.5), (5, 0.99, 0.4)]
    metrics = [{"round": r, "accuracy": a, "robust_accuracy": b} for r, a, b in scores]
    assert best_of(metrics)["round"] == 3


class AlwaysThree(nn.Module):
    """Answers 3 whatever it sees: robust, and right on the threes alone."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.eye(10)[3])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 0.0 * x.flatten(1).sum(dim=1, keepdim=True) + self.bias


@pytest.mark.parametrize("samples", [None, 90])
def test_each_client_is_scored_on_its_own_test_examples(
    tiny: Callable[..., Experiment], samples: int | None
) -> None:
    attack = {"name": "pgd", "eps": 0.1, "step_size": 0.1, "steps": 1}
    evaluation = {"attack": attack, "samples": 100, "test_samples": samples}
    ready = prepare(tiny(model=AlwaysThree(), evaluation=evaluation))
    scores = on_test(ready, ready.start, 1)
    read = set(ready.test.tolist())
    assert scores["examples"] == (samples or 360)
    counted = 0
    for client, part in enumerate(ready.partition.test):
        mine = [i for i in part.tolist() if i in read]
        threes = sum(int(ready.dataset.test.y[i]) == 3 for i in mine)
        counted += len(mine)
        assert scores["per_client"]["examples"][str(client)] == len(mine)
        assert scores["per_client"]["accuracy"][str(client)] == pytest.approx(threes / len(mine))
    assert scores["clients"]["examples"] == counted
