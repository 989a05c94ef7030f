"""When a recorded gradient is used again, on a stand-in for the CUDA graph that runs on a CPU."""

import weakref

import pytest
import torch
from torch import nn

from fedrobust.compute import captured, network
from fedrobust.compute.captured import Recording
from fedrobust.compute.network import evaluating, frozen
from fedrobust.typing import Images, Labels


class Recorder:
    """Replays by computing into the place of the first answer, as a graph does."""

    def __init__(self) -> None:
        self.made = 0

    def __call__(self, model: nn.Module, x: Images, y: Labels) -> Recording:
        self.made += 1
        x, y = x.clone(), y.clone()
        slope = torch.empty_like(x)
        known = weakref.ref(model)  # a graph holds no model

        def replay() -> None:
            alive = known()
            assert alive is not None
            slope.copy_(network.input_gradient(alive, x, y))

        return Recording(x, y, slope, replay)


@pytest.fixture(autouse=True)
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    stand_in = Recorder()
    monkeypatch.setattr(captured, "recorded", stand_in)
    return stand_in


def batch(count: int) -> tuple[Images, Labels]:
    return torch.rand(count, 1, 4, 4), torch.arange(count) % 3


def test_a_replay_has_the_inputs_and_the_parameters_of_now(recorder: Recorder) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3), nn.ELU())
    found = []
    for i in range(3):
        x, y = batch(5)
        y = (y + i) % 3
        found.append(captured.input_gradient(model, x, y, captured.kind(model)))
        assert torch.equal(found[-1], network.input_gradient(model, x, y))
        with torch.no_grad():
            model[1].weight.mul_(-2)
    assert recorder.made == 1
    assert not torch.equal(found[0], found[1])  # the answer is the caller's own


def test_another_kind_of_call_is_recorded_anew(recorder: Recorder) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    x, y = batch(5)

    def asked() -> int:
        captured.input_gradient(model, x, y, captured.kind(model))
        return recorder.made

    assert asked() == 1
    with evaluating(model):
        assert asked() == 2
    with frozen(model):
        assert asked() == 3
    torch.set_float32_matmul_precision("high")
    try:
        assert asked() == 4
    finally:
        torch.set_float32_matmul_precision("highest")
    with torch.autocast("cpu", torch.bfloat16):
        assert asked() == 5
    assert asked() == 6
    model[1].weight = nn.Parameter(torch.zeros(3, 16))  # the old ones may be freed
    assert asked() == 7
    assert asked() == 7
    model.append(nn.LeakyReLU(0.1))
    assert asked() == 8
    model[2].negative_slope = 0.9
    assert asked() == 9
    model[2] = nn.ELU()
    assert asked() == 10
    captured.forget(model)
    assert asked() == 11


def test_only_a_few_graphs_are_kept(recorder: Recorder) -> None:
    """A full unit and a smaller last one alternate; a third size takes the place of the older."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    made = []
    for size in (6, 2, 6, 2, 9, 2, 6):
        captured.input_gradient(model, *batch(size), captured.kind(model))
        made.append(recorder.made)
    assert made == [1, 2, 2, 2, 3, 3, 4]


def test_a_models_graphs_end_with_it() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    captured.input_gradient(model, *batch(2), captured.kind(model))
    assert model in captured._RECORDINGS
    count = len(captured._RECORDINGS)
    del model
    assert len(captured._RECORDINGS) == count - 1
