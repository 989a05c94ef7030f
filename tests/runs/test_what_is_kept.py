"""A checkpoint holds what a user's rule, attack and optimiser keep, and no more than that."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fedrobust import Experiment, run
from fedrobust.aggregators.aggregator import Aggregation, Context
from fedrobust.errors import ConfigError, RecordError

Tiny = Callable[..., Experiment]


@dataclass
class Remembering:
    """A mean whose memory is made as ``how`` says of the rows."""

    how: str

    def aggregate(self, updates: Tensor, context: Context) -> Aggregation:
        mean = updates.mean(dim=0)
        before = mean if context.memory is None else context.memory
        vector = mean + 0.1 * (before if before.dim() == 1 else before.mean(dim=0))
        made = {
            "clone": updates[1].clone(),
            "view": updates[1],
            "expanded": vector.expand(len(updates), -1),
            "transposed": updates[:2].T,
        }[self.how]
        return Aggregation(vector, memory=made if self.how != "transposed" else made[:, 0])


@dataclass
class Repeating:
    """An attack whose state is one row, repeated without memory."""

    def start(self, rng: torch.Generator) -> None:
        return None

    def craft(self, state: Any, view: Any, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        row = -view.own[0] if state is None else 0.5 * state[0] - view.own[0]
        return row.expand(len(view.own), -1), row.expand(view.rows, -1)


def again(tiny: Tiny, path: Path, **changes: Any) -> None:
    """Check that a run that is extended has the bits of one that was not interrupted."""
    changes |= {"objective": {"name": "erm"}}
    whole = run(tiny(**changes, rounds=4), out=path / "whole")
    run(tiny(**changes, rounds=2), out=path / "cut")
    cut = run(tiny(**changes, rounds=4), out=path / "cut", resume=True)
    assert torch.equal(cut.state.parameters, whole.state.parameters)


@pytest.mark.parametrize("how", ["clone", "view", "expanded", "transposed"])
def test_a_rules_memory_of_any_strides_is_read_again(tiny: Tiny, tmp_path: Path, how: str) -> None:
    again(tiny, tmp_path, aggregator=Remembering(how), malicious=0, attack=None)


@dataclass
class Sharing:
    """A rule whose memory is written in place, and has two names."""

    ordered: bool = False

    def aggregate(self, updates: Tensor, context: Context) -> Aggregation:
        memory: Any = context.memory
        if memory is None:
            flat = torch.zeros_like(updates[0])
            memory = {"flat": flat, "head": flat[:10]}
            memory = OrderedDict(memory) if self.ordered else memory
        memory["flat"].mul_(0.5).add_(updates.mean(dim=0))
        assert torch.equal(memory["head"], memory["flat"][:10])
        return Aggregation(memory["flat"] + 0, memory=memory)


@pytest.mark.parametrize("ordered", [False, True])
def test_memory_that_shares_its_entries_goes_on_sharing_them(
    tiny: Tiny, tmp_path: Path, ordered: bool
) -> None:
    again(tiny, tmp_path, aggregator=Sharing(ordered), malicious=0, attack=None)


def test_an_attacks_repeated_row_is_read_again(tiny: Tiny, tmp_path: Path) -> None:
    again(tiny, tmp_path, aggregator={"name": "mean"}, attack=Repeating())


def test_a_view_does_not_keep_the_rows_of_a_round(tiny: Tiny, tmp_path: Path) -> None:
    sizes = {}
    for how in ("clone", "view"):
        rule = Remembering(how)
        out = tmp_path / how
        result = run(tiny(aggregator=rule, malicious=0, attack=None, rounds=2), out=out)
        kept: Any = result.state.memory
        assert kept.untyped_storage().nbytes() == kept.numel() * kept.element_size()
        sizes[how] = (out / "checkpoint.pt").stat().st_size
    assert sizes["view"] == sizes["clone"]


def of(name: str) -> dict[str, Any]:
    optimizer = {"name": f"keeping_optimizers:{name}", "lr": 0.05}
    return {"batch_size": 8, "batches": 2, "optimizer": optimizer, "keep_optimizer": True}


@pytest.mark.parametrize("batches", [1, 2])
@pytest.mark.parametrize("name", ["Listing", "Viewing"])
def test_what_an_optimiser_keeps_besides_tensors_is_read_again(
    tiny: Tiny, tmp_path: Path, name: str, batches: int
) -> None:
    again(tiny, tmp_path, client=of(name) | {"batches": batches})


def test_an_optimiser_that_keeps_its_steps_elsewhere_is_refused(tiny: Tiny) -> None:
    with pytest.raises(ConfigError, match="also keeps steps in its param_groups: set keep_optim"):
        tiny(client=of("Warming"))
    tiny(client=of("Warming") | {"keep_optimizer": False})
    tiny(client=of("Filling"))


class Sized:
    """An optimiser that is made for one model."""

    lr = 0.1

    def build(self, *parameters: torch.nn.Parameter) -> torch.optim.Optimizer:
        assert len(parameters[0]) == 38_282
        return torch.optim.SGD(parameters, lr=self.lr)

    def slots(self) -> int:
        return 0


def test_an_optimiser_for_one_model_is_not_tried_on_another(tiny: Tiny) -> None:
    tiny(client=of("Filling") | {"optimizer": Sized()})


def test_a_module_with_other_initial_weights_is_told_apart(tiny: Tiny, tmp_path: Path) -> None:
    """A user who makes the module anew in another process, without a seed, reads what to do."""
    changes: dict[str, Any] = {"aggregator": {"name": "mean"}, "malicious": 0, "attack": None}

    def network(seed: int) -> torch.nn.Module:
        torch.manual_seed(seed)
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))

    run(tiny(**changes, model=network(0), rounds=1), out=tmp_path / "run")
    with pytest.raises(RecordError, match=r"model.fingerprint.*call torch.manual_seed before"):
        run(tiny(**changes, model=network(1), rounds=2), out=tmp_path / "run", resume=True)
    run(tiny(**changes, model=network(0), rounds=2), out=tmp_path / "run", resume=True)
