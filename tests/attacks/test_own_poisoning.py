"""A user's own poisoning may hand out the same tensors each time: they are not written to."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from fedrobust.experiment import Experiment
from fedrobust.federation.round import run_round
from fedrobust.federation.threat import View
from fedrobust.objectives import Adversarial
from fedrobust.perturb import Pgd
from fedrobust.runs.prepare import prepare


class Backdoor:
    """Its clients train on one stored batch, in place of their own."""

    def __init__(self, expanded: bool) -> None:
        self.x, self.expanded = torch.full((64, 1, 8, 8), 0.5), expanded

    def poison(self, x: Tensor, y: Tensor, classes: int) -> tuple[Tensor, Tensor]:
        batch = self.x[:1].expand(len(x), -1, -1, -1) if self.expanded else self.x[: len(x)]
        return batch, torch.zeros_like(y)

    def craft(self, state: Any, view: View, rng: torch.Generator) -> tuple[Tensor, Any]:
        return view.own, state


@pytest.mark.parametrize("expanded", [False, True])
def test_perturbed_examples_stay_apart(expanded: bool, tiny: Callable[..., Experiment]) -> None:
    attack = Backdoor(expanded)
    pgd = Pgd(eps=0.1, step_size=0.1, steps=2)
    given = tiny(attack=attack, malicious=2, objective=Adversarial(ratio=1.0, attack=pgd))
    ready = prepare(given)
    state = ready.federation.start(ready.start)
    for _ in range(3):
        state, _ = run_round(state, ready.federation, ready.streams)
    assert torch.equal(attack.x, torch.full_like(attack.x, 0.5))
