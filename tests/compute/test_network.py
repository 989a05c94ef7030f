"""A model is asked in one place: its caller's tensors, modes and draws are kept."""

import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fedrobust.compute import network, trial
from fedrobust.errors import ModelError, UndifferentiableError


class Wrapped(nn.Module):
    """A linear network, with something done before or after."""

    def __init__(self, before: Callable = lambda x: x, after: Callable = lambda z: z) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.before, self.after = nn.Linear(12, 3), before, after

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.layer(self.before(x).flatten(1)))


X = torch.rand(6, 3, 2, 2, generator=torch.Generator().manual_seed(0))
Y = torch.arange(6) % 3


def centred(x: Tensor) -> Tensor:
    return x.sub_(0.3).div_(0.35)


def test_a_model_may_work_in_place_and_nobody_sees_it() -> None:
    own, plain, given = Wrapped(centred), Wrapped(lambda x: (x - 0.3) / 0.35), X.clone()
    assert torch.equal(network.logits(own, given), plain(X))
    assert torch.equal(network.input_gradient(own, given, Y), network.input_gradient(plain, X, Y))
    assert torch.equal(
        network.parameter_gradient(own, given, Y), network.parameter_gradient(plain, X, Y)
    )
    assert network.right(own, given, Y, 4).tolist() == network.right(plain, X, Y, 4).tolist()
    assert torch.equal(given, X)


@pytest.mark.parametrize(
    ("after", "message"),
    [
        (lambda z: (z, z.mean()), "a tuple of 2: wrap it"),
        (lambda z: [z], "a list of 1: wrap it"),
        (lambda z: {"logits": z, "loss": z.mean()}, "a mapping with logits, loss: wrap it"),
        (lambda z: None, "got None|gave None"),
        (lambda z: z[:, None], r"gave shape \[6, 1, 3\]"),
        (lambda z: z[:2], r"gave shape \[2, 3\]"),
        (lambda z: z.argmax(dim=1, keepdim=True), "torch.int64"),
        (lambda z: z.numpy(), "does not take examples"),
        (lambda z: z @ z, "does not take examples torch.float32 .3, 2, 2., 6 at a time: Runtime"),
    ],
)
def test_what_is_no_logits_is_said_in_words(after: Callable, message: str) -> None:
    for ask in (network.logits, lambda m, x: network.input_gradient(m, x, Y)):
        with pytest.raises(ModelError, match=message) as refused:
            ask(Wrapped(after=after), X)
        assert isinstance(refused.value, ValueError)
        assert len(str(refused.value)) < 600


def test_probabilities_are_refused_and_log_probabilities_are_logits() -> None:
    with pytest.raises(ModelError, match="leave out its softmax"):
        trial.require_logits(Wrapped(after=lambda z: z.softmax(dim=1)), X)
    assert trial.require_logits(Wrapped(after=lambda z: z.log_softmax(dim=1)), X) == 3
    assert trial.require_logits(Wrapped(after=torch.relu), X) == 3
    with pytest.raises(ModelError, match="one number for each example"):
        trial.require_logits(Wrapped(after=lambda z: z[:, :1]), X)


def batch_normed() -> nn.Module:
    norm = nn.BatchNorm2d(3, track_running_stats=False)
    return nn.Sequential(norm, Wrapped(after=lambda z: 5 * z))


def test_an_answer_that_depends_on_its_batch_is_refused() -> None:
    with pytest.raises(ModelError, match=r"depends on the rest of its batch.*track_running_stats"):
        trial.require_logits(batch_normed(), X)
    assert trial.require_logits(batch_normed(), X, alone=False) == 3
    assert trial.mixes(batch_normed().eval(), X)
    assert not trial.mixes(Wrapped(), X)
    kept = nn.Sequential(nn.BatchNorm2d(3), Wrapped())
    assert trial.require_logits(kept, X) == 3
    assert kept[0].num_batches_tracked == 0


def test_a_model_must_answer_one_example_alone() -> None:
    with pytest.raises(ModelError, match=r"gave shape \[3\]: it must answer a batch of one"):
        trial.require_logits(Wrapped(after=torch.squeeze), X)
    one = nn.Sequential(
        nn.Flatten(), nn.BatchNorm1d(12, track_running_stats=False), nn.Linear(12, 3)
    )
    with pytest.raises(ModelError, match="1 at a time: ValueError: Expected more than 1 value"):
        trial.require_logits(one, X)


def test_a_randomised_model_is_no_batch_dependent_one_and_leaves_generators_alone() -> None:
    noisy = Wrapped(lambda x: x + torch.randn_like(x) * random.random() * np.random.rand())
    torch.manual_seed(3)
    random.seed(3)
    np.random.seed(3)
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    assert trial.require_logits(noisy, X) == 3
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert np.random.get_state()[1].tolist() == states[2]


def test_modes_and_what_requires_a_gradient_come_back_also_after_a_failure() -> None:
    model = nn.Sequential(nn.Dropout(), Wrapped(after=lambda z: z[:, 0]))
    model[0].eval()
    model[1].layer.bias.requires_grad_(False)
    with pytest.raises(ModelError), network.evaluating(model), network.frozen(model):
        network.logits(model, X)
    assert [part.training for part in (model, model[0], model[1])] == [True, False, True]
    assert [p.requires_grad for p in model.parameters()] == [True, False]


def test_no_way_for_a_gradient_is_an_error_of_its_own() -> None:
    for before in (Tensor.detach, lambda x: torch.from_numpy(x.detach().numpy().copy())):
        with pytest.raises(UndifferentiableError, match="no gradient reaches"):
            network.input_gradient(Wrapped(before), X, Y)
        assert not network.differentiable(Wrapped(before), X)
    assert network.differentiable(Wrapped(torch.round), X)
    assert not network.input_gradient(Wrapped(torch.round), X, Y).any()


def test_labels_without_a_class_are_named() -> None:
    with pytest.raises(ValueError, match=r"labels run from 0 to 7.*classes 0 to 2"):
        network.input_gradient(Wrapped(), X, torch.tensor([0, 1, 2, 0, 1, 7]))


def test_slopes_are_made_usable_example_by_example() -> None:
    inf, nan = torch.inf, torch.nan
    slope = torch.tensor([[1.0, -inf, nan], [inf, nan, -inf], [nan, nan, nan], [3e38, 3e38, -1.0]])
    found = network.usable(slope)
    expected = [[1.0, -1.0, 0.0], [1.0, 0.0, -1.0], [0.0, 0.0, 0.0]]
    assert torch.equal(found[:3], torch.tensor(expected))
    assert torch.equal(found[3], slope[3])
    plain = torch.randn(4, 3)
    assert network.usable(plain) is plain


def test_an_expanded_gradient_serves() -> None:
    """Of a model that sums its pixels, autograd gives one number expanded to all of them."""
    summed = Wrapped(lambda x: x.sum(dim=(1, 2, 3), keepdim=True).expand(-1, 12, 1, 1))
    assert network.input_gradient(summed, X, Y).shape == X.shape
