"""State that a user's object keeps in itself: a checkpoint holds it, or the run is refused."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fedrobust import run
from fedrobust.aggregators import Mean
from fedrobust.attacks import Jittered
from fedrobust.config.fingerprint import stateful
from fedrobust.errors import ConfigError, RecordError
from fedrobust.experiment import Experiment


class Hoarder:
    """A rule that keeps state where no checkpoint sees it."""

    def __init__(self) -> None:
        self.seen = 0

    def __call__(self, updates: Any) -> Any:
        self.seen += 1
        return updates.mean(dim=0) * self.seen


@dataclass
class InTurn:
    """A participation that counts the rounds itself."""

    asked: int = 0

    def size(self, clients: int) -> int:
        return 5

    def choose(self, clients: int, generator: Any) -> tuple[int, ...]:
        self.asked += 1
        return tuple(sorted((5 * self.asked + i) % clients for i in range(5)))


class Growing:
    """An objective that counts."""

    seen = 0

    def perturbed(self, count: int, round: int) -> int:
        self.seen += 1
        return 0

    def draw(self, x: Any, generator: Any) -> None:
        return None

    def maximize(self, model: Any, x: Any, y: Any, draw: Any, batch: int) -> Any:
        return x


class Counter:
    """An attack that counts in itself, and is hidden in a wrapper here."""

    rounds = 0

    def craft(self, state: Any, view: Any, rng: Any) -> Any:
        self.rounds += 1
        return view.own, state


class Unstorable:
    """An attack whose state a checkpoint could be written with, but not read again."""

    def craft(self, state: Any, view: Any, rng: Any) -> Any:
        return view.own, np.ones(3)


def test_state_that_would_be_lost_is_refused_in_the_first_round(
    tmp_path: Path, tiny: Callable[..., Experiment]
) -> None:
    with pytest.raises(ConfigError, match=r"aggregator changed in the rounds up to 1.*memory"):
        run(tiny(aggregator=Hoarder()), tmp_path / "hoarder")
    jittered = Jittered(Counter(), radius=0.1)
    for part, changes in (
        ("participation", {"participation": InTurn(), "aggregator": Mean()}),
        ("objective", {"objective": Growing()}),
        ("attack", {"attack": jittered}),
    ):
        with pytest.raises(ConfigError, match=f"the {part} changed in the rounds up to 1"):
            run(tiny(**changes), tmp_path / part)
    run(tiny(rounds=1), tmp_path / "hoarder")  # nothing of the refused run is in the way
    with pytest.raises(RecordError, match=r"state.attack is a numpy.ndarray, which a checkpoint"):
        run(tiny(attack=Unstorable()), tmp_path / "unstorable")


class Stepping(torch.optim.Optimizer):
    """SGD that counts its steps in a plain number, as many optimisers outside of PyTorch do."""

    def __init__(self, params: Any, lr: float = 0.1) -> None:
        super().__init__(params, {"lr": lr})

    def step(self, closure: Any = None) -> Any:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                kept = self.state[parameter]
                kept["step"] = kept.get("step", 0) + 1
                parameter.data -= group["lr"] / kept["step"] * parameter.grad


def test_an_optimiser_that_keeps_plain_numbers_goes_on(
    tmp_path: Path, tiny: Callable[..., Experiment]
) -> None:
    optimizer = {"name": f"{__name__}:Stepping", "lr": 0.1}
    client = {"batch_size": 16, "batches": 1, "keep_optimizer": True, "optimizer": optimizer}
    run(tiny(rounds=4, client=client), tmp_path / "straight")
    run(tiny(rounds=2, client=client), tmp_path / "run")
    assert run(tiny(rounds=4, client=client), tmp_path / "run", resume=True).summary.rounds == 4
    models = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("straight", "run")]
    assert models[0] == models[1]


class Caching:
    """A rule with two texts, and a cache that no pickle holds."""

    def __init__(self) -> None:
        self.a = self.b = "norm"
        self.cache: dict[str, int] = {}

    def __getstate__(self) -> dict[str, str]:
        return {"a": self.a, "b": self.b}


def test_what_does_not_change_is_not_called_state() -> None:
    """A text that is equal, but another object now, and a cache that fills."""
    rule = Caching()
    changed = stateful({"rule": rule})
    rule.a, rule.cache["x"] = "".join(["no", "rm"]), 1
    assert changed() == []
    rule.a = "mean"
    assert changed() == ["rule"]
