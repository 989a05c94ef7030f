"""What no call should be given, and the calls that are given it."""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fedrobust.evaluation import accuracy, audit, certificate, robust_accuracy
from fedrobust.evaluation.shift import error_under_shift
from fedrobust.objectives import ERM, Adversarial, WassersteinDRO
from fedrobust.perturb import Apgd, Ascent, Fab, Pgd, Square, pgd, wasserstein_ascent
from fedrobust.progress import Progress

PGD = Pgd(eps=0.1, step_size=0.05, steps=2)


class Odd(nn.Module):
    """A linear network with something done to its logits."""

    def __init__(self, after: Callable = lambda z: z, before: Callable = lambda x: x) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.after, self.before = nn.Linear(12, 3), after, before

    def forward(self, x: Tensor) -> Any:
        return self.after(self.layer(self.before(x).flatten(1)))


def fail(z: Tensor) -> Tensor:
    raise KeyError("x")


X, Y = torch.rand(10, 3, 2, 2, generator=torch.Generator().manual_seed(0)), torch.arange(10) % 3


@cache
def wrong_models() -> list[Any]:
    return [
        None,
        "model",
        Odd,
        lambda x: x,
        Odd(lambda z: (z, z)),
        Odd(lambda z: {"logits": z}),
        Odd(lambda z: z[:, :1]),
        Odd(lambda z: z.argmax(1)),
        Odd(lambda z: z.softmax(1)),
        Odd(lambda z: z[:, None]),
        Odd(lambda z: z[:1]),
        Odd(lambda z: z.sum()),
        Odd(fail),
        Odd(torch.squeeze),
        Odd(lambda z: z.detach().numpy()),
        Odd(lambda z: z.long()),
        Odd(lambda z: z.to(torch.complex64)),
        Odd(lambda z: z.to_sparse()),
        Odd(before=Tensor.detach),
        Odd(lambda z: z * torch.nan),
        Odd(lambda z: z / 0),
        nn.Linear(12, 3),
        nn.Flatten(),
        nn.Conv2d(1, 3, 2),
        nn.Sequential(nn.Flatten(), nn.Linear(7, 3)),
        Odd().double(),
        Odd().half(),
        Odd().to("meta"),
        nn.Sequential(nn.BatchNorm2d(3, track_running_stats=False), Odd()),
        Odd(before=lambda x: x.mul_(2)),
        Odd(before=lambda x: x.sqrt()),
        Odd(before=lambda x: x.log()),
        Odd(lambda z: z[torch.randperm(len(z))]),
        Odd(lambda z: z + torch.randn_like(z)),
    ]


@cache
def wrong_inputs() -> list[Any]:
    return [
        None,
        3,
        "x",
        X.numpy(),
        X.tolist(),
        X[0],
        X[:0],
        X[:, :0],
        X[0, 0, 0],
        torch.tensor(0.5),
        (255 * X).byte(),
        X.long(),
        X > 0.5,
        X.double(),
        X.half(),
        X.bfloat16(),
        X.to(torch.complex64),
        X * torch.nan,
        X * torch.inf,
        X * 255,
        X - 0.5,
        X.to_sparse(),
        X.to("meta"),
        X[..., None],
        torch.nested.nested_tensor([X[0], X[1]]),
        X[:1],
        X.clone().requires_grad_(True),
        X * 2.0,
        X.permute(0, 2, 3, 1),
        X[:, :2],
        np.zeros(3),
        X + 1e-6,
        X.transpose(2, 3),
        [X],
        (X, Y),
    ]


@cache
def wrong_labels() -> list[Any]:
    return [
        None,
        1,
        "y",
        Y.numpy(),
        Y.tolist(),
        Y[:3],
        Y[:0],
        Y[:, None],
        Y.float(),
        Y.int(),
        Y.byte(),
        Y.short(),
        Y > 0,
        Y + 1,
        Y - 1,
        torch.eye(3)[Y],
        torch.eye(3).long()[Y],
        Y.to_sparse(),
        torch.full((10,), 7),
        torch.full((10,), -100),
        Y.to("meta"),
        Y.to(torch.complex64),
        Y.expand(2, 10),
    ]


NUMBERS: list[Any] = [
    -1,
    0,
    0.0,
    -0.5,
    1,
    2,
    300,
    0.3,
    1e-30,
    1e30,
    float("nan"),
    float("inf"),
    -float("inf"),
    True,
    None,
    "0.3",
    "many",
    [1],
    {},
    1.5,
    10**400,
    torch.tensor(0.1),
    np.float32(0.1),
    np.int64(2),
]
WORDS: list[Any] = [
    "linf",
    "l2",
    "l1",
    "",
    None,
    3,
    "constant",
    "backtracking",
    "quick",
    "slow",
    [],
]
GENERATORS: list[Any] = [
    None,
    3,
    "seed",
    torch.Generator().manual_seed(1),
    np.random.default_rng(0),
]
ATTACKS: list[Any] = [
    PGD,
    None,
    Pgd,
    "pgd",
    3,
    nn.Linear(1, 1),
    lambda x: x,
    Apgd(eps=0.1, steps=2),
    Square(eps=0.1, queries=3),
    ERM(),
]


def nothing() -> None:
    return None


def calls() -> dict[str, tuple[Callable, dict[str, tuple[Any, list[Any]]]]]:
    """For each function its arguments: a right value, and wrong ones."""
    data = {"model": (Odd(), wrong_models()), "x": (X, wrong_inputs()), "y": (Y, wrong_labels())}
    batch = {"batch_size": (4, NUMBERS)}
    step = {
        "gamma": (1.0, NUMBERS),
        "steps": (2, NUMBERS),
        "tolerance": (0.0, NUMBERS),
        "rule": ("constant", WORDS),
        "box": (False, NUMBERS),
    }
    ball = {"eps": (0.1, NUMBERS), "norm": ("linf", WORDS)}
    found: dict[str, Any] = {
        "pgd": (
            pgd,
            data
            | ball
            | batch
            | {
                "step_size": (0.05, NUMBERS),
                "steps": (2, NUMBERS),
                "restarts": (1, NUMBERS),
                "random_start": (True, NUMBERS),
                "box": (True, NUMBERS),
                "generator": (None, GENERATORS),
            },
        ),
        "wasserstein_ascent": (wasserstein_ascent, data | step | batch | {"size": (1.0, NUMBERS)}),
        "certificate": (certificate, data | step | batch),
        "accuracy": (accuracy, data | batch),
        "robust_accuracy": (
            robust_accuracy,
            data | batch | {"attack": (PGD, ATTACKS), "generator": (None, GENERATORS)},
        ),
        "error_under_shift": (
            error_under_shift,
            data
            | batch
            | {
                "levels": ((0.1,), [(x,) for x in NUMBERS] + [()]),
                "method": ("pgd", [*WORDS, "wrm"]),
                "steps": (2, NUMBERS),
                "ascent": (Ascent(steps=2), [Ascent(steps=1)]),
            },
        ),
        "audit": (
            audit,
            data
            | ball
            | batch
            | {
                "budget": ("quick", WORDS),
                "seed": (0, NUMBERS),
                "claim": (None, ATTACKS),
                "surrogates": ((), [[None], 3, [Odd(fail)], [Odd(lambda z: (z, z))], Odd()]),
                "progress": (Progress(), [lambda *a: None, 3]),
            },
        ),
    }
    for how in (
        PGD,
        Apgd(eps=0.1, steps=2),
        Fab(eps=0.1, steps=2, targets=1),
        Square(eps=0.1, queries=3),
        Adversarial(ratio=0.5, attack=PGD),
        WassersteinDRO(gamma=1.0, ascent=Ascent(steps=2)),
        ERM(),
    ):
        asked = data | {"draw": (nothing, [None, 3, "draw"]), "batch": (4, NUMBERS)}
        if isinstance(how, Pgd | Adversarial):
            asked |= {"draw": (nothing, [3, "draw"])}
        if isinstance(how, Square | Fab | Apgd):
            asked |= {"draw": (lambda how=how: how.draw(X, torch.Generator()), [3, "draw"])}
        found[f"{how.name}.maximize"] = how.maximize, asked
        drawn = {"x": (X, wrong_inputs()), "generator": (torch.Generator(), GENERATORS)}
        found[f"{how.name}.draw"] = how.draw, drawn
        if hasattr(how, "perturbed"):
            counts = {"examples": (8, NUMBERS), "round": (1, NUMBERS)}
            found[f"{how.name}.perturbed"] = how.perturbed, counts
    return found
