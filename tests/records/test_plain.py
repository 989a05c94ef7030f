"""What a user's attack says of itself is stored, or named; it never costs the results."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fedrobust import run
from fedrobust.errors import ConfigError
from fedrobust.experiment import Experiment
from fedrobust.records.plain import attack_pictures, attack_report, plain_json
from fedrobust.records.reading import shaped
from fedrobust.records.schema.run import Summary
from fedrobust.runs.directory import RunDirectory, require_storable


@dataclass
class Found:
    share: float
    places: tuple[int, ...]


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (torch.tensor([[1.0, 2.0]], requires_grad=True), [[1.0, 2.0]]),
        (torch.tensor(3), 3),
        (torch.ones(2, dtype=torch.bfloat16), [1.0, 1.0]),
        (np.float32(0.5), 0.5),
        (np.array([True, False]), [True, False]),
        ({3, 1, 2}, [1, 2, 3]),
        (frozenset({"b", "a"}), ["a", "b"]),
        ({1: "a", np.int64(2): (1, 2)}, {"1": "a", "2": [1, 2]}),
        (Found(0.5, (1, 2)), {"share": 0.5, "places": [1, 2]}),
        (Path("a") / "b", "a/b"),
        ({"nested": [{"deep": np.int8(3)}]}, {"nested": [{"deep": 3}]}),
        (None, None),
    ],
)
def test_what_means_a_json_value_becomes_it(value: object, plain: object) -> None:
    found, lost = plain_json(value, "its report")
    assert found == plain
    assert not lost
    assert json.loads(json.dumps(found, allow_nan=False)) == found


@pytest.mark.parametrize(
    ("value", "plain", "why"),
    [
        ({"a": float("nan")}, {"a": None}, "its report.a is nan, which no record holds"),
        ([1.0, float("inf")], [1.0, None], r"its report\[1\] is inf"),
        (torch.tensor([1.0, torch.nan]), [1.0, None], r"its report\[1\] is nan"),
        ({"f": print, "b": 1}, {"b": 1}, "its report.f is a value of type builtin"),
        ([torch.zeros(3).to_sparse()], [None], r"its report\[0\] is a tensor"),
        ({"n": 10**30}, {}, "its report.n is too large a number"),
        ({"c": 1j}, {}, "its report.c is a value of type complex"),
        (np.zeros(10**6), None, "its report is a value of type ndarray"),
    ],
)
def test_what_no_file_holds_is_left_out_and_named(value: object, plain: object, why: str) -> None:
    found, lost = plain_json(value, "its report")
    assert found == plain
    assert len(lost) == 1
    with pytest.raises(ValueError, match=why):
        raise ValueError(lost[0])
    json.dumps(found, allow_nan=False)


def test_what_never_ends_is_cut_off_and_much_is_told_shortly() -> None:
    round: dict[str, Any] = {}
    round["self"] = round
    found, lost = plain_json(round, "its report")
    json.dumps(found)
    assert "nested more than" in lost[0]
    _, lost = plain_json([float("nan")] * 1000, "its report")
    assert len(lost) == 11
    assert lost[-1] == "and 990 more of this kind"


def raising() -> object:
    raise KeyError("radius")


def test_a_report_that_fails_or_is_none_is_a_trouble() -> None:
    assert attack_report(lambda: None) is None
    assert attack_report(lambda: {"rounds": 3}) == {"rounds": 3}
    assert attack_report(raising) == {
        "troubles": ["its report failed and left nothing: KeyError: 'radius'"]
    }
    assert attack_report(lambda: [1]) == {
        "troubles": ["its report is a value of type list, not a mapping: it was left out"]
    }
    found = attack_report(lambda: {"troubles": ("weak", 3), "loss": np.nan})
    assert found is not None
    assert found["loss"] is None
    assert found["troubles"][:2] == ["weak", "3"]
    assert "its report.loss is nan" in found["troubles"][2]


def test_pictures_that_no_file_holds_are_named() -> None:
    assert attack_pictures(lambda: None) == (None, [])
    arrays, lost = attack_pictures(
        lambda: {"file": torch.ones(2), "words": np.array(["a"]), "many": [[1], [1, 2]], "a/b": 1}
    )
    assert arrays is not None
    assert list(arrays) == ["file"]
    assert len(lost) == 3
    arrays, lost = attack_pictures(raising)
    assert arrays is None
    assert lost == ["its pictures failed and left nothing: KeyError: 'radius'"]


class Showing:
    """Its pictures fail when the run ends."""

    def craft(self, state: Any, view: Any, rng: Any) -> Any:
        return view.own, 1

    def pictures(self, state: Any, truth: Any) -> Any:
        raise RuntimeError("no space for pictures")


class ShowingMuch(Showing):
    """Its pictures have names that NumPy's own writer takes for arguments."""

    def pictures(self, state: Any, truth: Any) -> Any:
        return {"file": torch.ones(2), "allow_pickle": np.zeros(3), "word": "x"}


@pytest.mark.parametrize(
    ("attack", "trouble", "kept"),
    [
        (Showing(), "its pictures failed and left nothing: RuntimeError: no space", None),
        (ShowingMuch(), "its pictures.word is 'x', which an .npz", {"file", "allow_pickle"}),
    ],
)
def test_a_run_is_not_lost_to_its_attacks_pictures(
    tmp_path: Path,
    tiny: Callable[..., Experiment],
    attack: object,
    trouble: str,
    kept: set[str] | None,
) -> None:
    found = run(tiny(rounds=1, attack=attack), tmp_path)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert shaped(Summary, summary) == found.summary
    assert any(text.startswith(f"the attack: {trouble}") for text in summary["troubles"])
    if kept is None:
        assert not (tmp_path / "attack.npz").exists()
    else:
        with np.load(tmp_path / "attack.npz") as arrays:
            assert set(arrays) == kept


def test_what_is_not_finite_is_written_as_null(tmp_path: Path) -> None:
    with RunDirectory(tmp_path, resume=False) as directory:
        directory.write_json("found.json", {"loss": float("inf")})
        directory.write_lines("found.jsonl", [{"loss": float("nan")}, {"loss": 1.0}])
    assert json.loads((tmp_path / "found.json").read_text()) == {"loss": None}
    assert (tmp_path / "found.jsonl").read_text() == '{"loss": null}\n{"loss": 1.0}\n'


class Extra(nn.Linear):
    def get_extra_state(self) -> Any:
        return {"temperature": 3.0}

    def set_extra_state(self, state: Any) -> None:
        pass


def with_buffer(value: torch.Tensor) -> nn.Module:
    model = nn.Linear(2, 2)
    model.register_buffer("held", value)
    return model


class Failing(nn.Linear):
    def state_dict(self, *args: Any, **keys: Any) -> Any:
        raise RuntimeError("not now")


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (nn.Sequential(Extra(2, 2)), "0._extra_state: it is a value of type dict, not a tensor"),
        (with_buffer(torch.eye(2).to_sparse()), "held: it is a tensor that is sparse"),
        (with_buffer(torch.ones(2, dtype=torch.complex64)), "held: it is a tensor that is complex"),
        (with_buffer(torch.ones(2, device="meta")), "held: it is a tensor that is on the meta"),
        (nn.LazyLinear(3), "weight: it is not initialised yet"),
        (Failing(2, 2), "its state_dict fails, so that it cannot be stored: RuntimeError: not now"),
    ],
)
def test_a_network_that_no_file_holds_is_refused_in_words(model: nn.Module, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        require_storable(model)


def test_tied_weights_are_stored_whole(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    require_storable(model)
    with RunDirectory(tmp_path, resume=False) as directory:
        directory.write_model("tied.safetensors", model.state_dict())
    from fedrobust.records.reading import fill

    other = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    fill(other, tmp_path / "tied.safetensors")
    assert torch.equal(other[1].weight, model[0].weight)
