"""Wrong calls from Python: each ends in a ``ValueError`` that is short, or in an answer.

``FEDROBUST_FUZZ`` says how many calls are tried.
"""

import os
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from wrong_calls import PGD, Odd, X, Y, calls, nothing, wrong_models

from fedrobust.evaluation import accuracy, certificate, robust_accuracy
from fedrobust.objectives import ERM
from fedrobust.perturb import pgd

CALLS = int(os.environ.get("FEDROBUST_FUZZ", "100"))


def values(found: Any) -> list[float]:
    """The numbers of an answer that must never be NaN from finite logits."""
    if isinstance(found, float):
        return [found]
    return [float(found.double().sum())] if isinstance(found, Tensor) else []


@pytest.mark.filterwarnings("ignore")
def test_a_wrong_call_is_a_short_value_error_or_has_an_answer() -> None:
    table = calls()
    cheap = [name for name in table if name != "audit"]
    for number in range(CALLS):
        chance = random.Random(number)
        name = "audit" if chance.random() < 0.03 else chance.choice(cheap)
        function, arguments = table[name]
        given = {key: right for key, (right, _) in arguments.items()}
        for key in chance.sample(list(given), chance.choice([1, 1, 1, 2])):
            given[key] = chance.choice(arguments[key][1])
        kept = {key: value.clone() for key, value in (("x", X), ("y", Y))}
        told = ", ".join(f"{k}={v!r:.60}" for k, v in given.items() if v is not arguments[k][0])
        where = f"{number}: {name}({told})"
        try:
            found = function(**given)
        except ValueError as error:
            message = str(error)
        except Exception as error:
            pytest.fail(f"{where}: {type(error).__name__}: {error}"[:1500])
        else:
            message = "an answer"
            odd = given.get("model") in wrong_models()[19:21]
            assert odd or not any(np.isnan(v) for v in values(found)), where
        assert 0 < len(message) < 1500, f"{where}: {message[:300]}"
        assert torch.equal(X, kept["x"])
        assert torch.equal(Y, kept["y"])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: accuracy(Odd(), X.numpy(), Y), "x must be a tensor.*torch.from_numpy"),
        (lambda: accuracy(Odd(), X, Y[:, None]), r"one label for each example.*pass y\[:, 0\]"),
        (lambda: accuracy(Odd(), X, torch.eye(3).long()[Y]), r"one-hot labels: pass y.argmax\(1\)"),
        (
            lambda: accuracy(Odd(), X, Y.float()),
            r"whole numbers, got torch.float32; pass y.long\(\)",
        ),
        (
            lambda: accuracy(Odd(), X, Y + 1),
            "labels run from 1 to 3, but the model has classes 0 to 2",
        ),
        (lambda: accuracy(Odd(), X, Y, batch_size=0), "batch_size must be a whole number from 1"),
        (lambda: accuracy(Odd, X, Y), "model must be a torch.nn.Module; got the class Odd"),
        (lambda: accuracy(Odd(), (255 * X).byte(), Y), r"pass x.float\(\) / 255 for pixels"),
        (lambda: robust_accuracy(Odd(), X, Y, attack="pgd"), "attack must be a perturbation"),
        (
            lambda: pgd(Odd(), X, Y, eps=0.1, step_size=0.1, steps=1, batch_size=-1),
            "batch_size must",
        ),
        (lambda: pgd(Odd(), X, Y, eps=0.1, step_size=0.1, steps=1, generator=3), "torch.Generator"),
        (lambda: pgd(Odd(), X + 0.1, Y, eps=0.1, step_size=0.1, steps=1), r"not in \[0, 1\]"),
        (lambda: certificate(Odd(), X, Y, gamma=-1.0), "gamma must be above 0"),
        (lambda: certificate(Odd(lambda z: (z, z)), X, Y, gamma=1.0), "it gave a tuple of 2"),
        (lambda: PGD.maximize(Odd(), X, Y, nothing, batch=-1), "batch must be a whole number"),
        (lambda: PGD.draw(X, 3), "generator must be a torch.Generator"),
        (lambda: ERM().perturbed("8", 1), "examples must be a whole number from 0"),
    ],
)
def test_the_message_names_the_argument_and_the_cure(call: Callable, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_labels_of_any_whole_type_and_pixels_within_rounding_are_right() -> None:
    plain = robust_accuracy(Odd(), X, Y, attack=PGD)
    for labels in (Y.int(), Y.short(), Y.byte()):
        assert robust_accuracy(Odd(), X, labels, attack=PGD) == plain
    white = X.clone()
    white[0, 0, 0, 0], white[1, 0, 0, 0] = 1.0000001, -1e-7
    moved = pgd(Odd(), white, Y, eps=0.1, step_size=0.05, steps=2)
    assert moved.min() >= 0
    assert moved.max() <= 1
