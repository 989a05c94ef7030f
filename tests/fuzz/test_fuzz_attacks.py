"""Wrong calls of rules and attacks: each ends in a ValueError that can be read, or is no mistake.

FEDROBUST_FUZZ is how many calls are made of each kind; they are the same each time.
"""

import os
import random
import warnings
from collections.abc import Callable
from dataclasses import fields
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from attack_table import CONFIGS, NETWORKS, attack_of
from rule_table import RULES as TABLE
from torch import Tensor, nn

from fedrobust.aggregators import Context, GeometricMedian, Krum, Mean, Median
from fedrobust.clients.client import Client
from fedrobust.clients.optimizers import Sgd
from fedrobust.federation.attack import poisons
from fedrobust.federation.projection import NoProjection
from fedrobust.federation.threat import View
from fedrobust.objectives import ERM

CALLS = int(os.environ.get("FEDROBUST_FUZZ", "100"))
MOST = 2000
"""Characters of the longest message."""
SCALES = {
    torch.float64: (1e-150, 1e-30, 1.0, 1e30, 1e150),
    torch.float32: (1e-30, 1e-10, 1.0, 1e15, 1e30),
    torch.bfloat16: (1e-30, 1.0, 1e30),
    torch.float16: (1.0,),
}

RULES = {name: partial(rule.make, 1) for name, rule in TABLE.items()}
RULES["geometric-median"] = partial(GeometricMedian, weighted=True)
ATTACKS = {
    name: partial(attack_of, config)
    for name, config in CONFIGS.items()
    if config["name"] not in NETWORKS
}


def normal(chance: random.Random, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    draw = torch.Generator().manual_seed(chance.randrange(2**31))
    return torch.randn(*shape, generator=draw, dtype=torch.float64).to(dtype)


def rows(chance: random.Random, n: int, d: int, dtype: torch.dtype) -> Tensor:
    """Finite rows of one scale or of several, some of them equal, or 0."""
    sizes = torch.tensor([chance.choice(SCALES[dtype]) for _ in range(n)], dtype=torch.float64)
    if chance.random() < 0.6:
        sizes[:] = sizes[:1].clone()
    found = (normal(chance, n, d) * sizes[:, None]).to(dtype)
    if n and chance.random() < 0.3:
        found[chance.randrange(n)] = found[0]
    if chance.random() < 0.2:
        found[:, 0] = 0
    return torch.zeros_like(found) if chance.random() < 0.05 else found


def odd(chance: random.Random, n: int, d: int) -> Any:
    """What is no finite, dense matrix [n, d] of floats."""
    base = normal(chance, n, d, dtype=torch.float32)
    choices: list[Callable[[], Any]] = [
        lambda: None,
        lambda: "rows" * 1000,
        lambda: 3,
        lambda: -1.5,
        lambda: True,
        lambda: (),
        lambda: {"rows": 1},
        lambda: object(),
        lambda: Tensor,
        lambda: base.tolist(),
        lambda: list(range(100_000)),
        lambda: base.numpy(),
        lambda: np.float64(1.0),
        lambda: list(base),
        lambda: tuple(base),
        lambda: base[:1].reshape(-1),
        lambda: base.new_tensor(1.0),
        lambda: base[None],
        lambda: base[:, :0],
        lambda: base[:0],
        lambda: torch.cat([base, base], dim=1),
        lambda: torch.cat([base, base]),
        lambda: base.T.contiguous(),
        lambda: base.long(),
        lambda: base > 0,
        lambda: base.to(torch.uint8),
        lambda: base.to_sparse(),
        lambda: base.to_sparse_csr(),
        lambda: base.to("meta"),
        lambda: torch.nested.nested_tensor(list(base) or [base.new_zeros(d)]),
        lambda: base.to(torch.complex64),
        lambda: torch.quantize_per_tensor(base, 0.1, 0, torch.qint8),
        lambda: base.to(torch.float8_e4m3fn),
        lambda: base.clone().requires_grad_(),
        lambda: nn.Parameter(base),
        lambda: base * torch.nan,
        lambda: base / 0,
        lambda: torch.where(torch.arange(n)[:, None] == 0, torch.nan, base),
        lambda: base.expand(2, n, d)[0],
        lambda: base[:, :1].expand(n, d),
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of sparse and nested tensors, which PyTorch calls new
        return chance.choice(choices)()


def outcome(call: Callable[[], Any], told: str) -> Any:
    """What ``call`` gives; None where it is refused in words."""
    try:
        return call()
    except Exception as error:
        text = f"{told}: {type(error).__name__}: {str(error)[:300]}"
        if not isinstance(error, ValueError) or not 0 < len(str(error)) <= MOST:
            pytest.fail(text)
    return None


def is_finite(value: Any) -> bool:
    plain = isinstance(value, Tensor) and value.layout == torch.strided and not value.is_nested
    return plain and not value.is_meta and bool(value.isfinite().all())


def context(chance: random.Random, n: int, d: int) -> Any:
    given: dict[str, Any] = {"root": normal(chance, d)}
    if chance.random() < 0.5:
        size = chance.choice([1.0, 1e-300, 1e305])
        given["counts"] = (normal(chance, n).abs() + 0.1) * size
    if chance.random() < 0.3:
        given[chance.choice([f.name for f in fields(Context)])] = odd(chance, n, d)
    return Context(**given) if chance.random() < 0.97 else odd(chance, n, d)


@pytest.mark.parametrize("name", RULES)
def test_rules(name: str) -> None:
    for number in range(CALLS):
        chance = random.Random(number)
        n, d, dtype = chance.randrange(1, 13), chance.randrange(1, 6), chance.choice([*SCALES])
        given = rows(chance, n, d, dtype) if chance.random() < 0.6 else odd(chance, n, d)
        told = f"{name}, call {number}"
        known = outcome(partial(context, chance, n, d), told)
        answer = outcome(partial(RULES[name](), given, known), told)
        if answer is not None:
            assert answer.shape == given.shape[1:], told
            assert not answer.requires_grad, told
            assert is_finite(answer), told


def view(chance: random.Random, spoil: bool) -> View:
    """What m colluders see; with ``spoil``, one field or two are odd."""
    m, b, d = chance.randrange(1, 5), chance.randrange(0, 8), chance.randrange(1, 6)
    dtype = chance.choice([torch.float32, torch.float64])
    given: dict[str, Any] = {
        "round": chance.randrange(1, 4),
        "parameters": rows(chance, 1, d, dtype)[0],
        "history": (),
        "model": lambda: nn.Linear(1, 1),
        "objective": ERM(),
        "client": Client(batches=1, optimizer=Sgd(0.1)),
        "classes": 2,
        "server_lr": 1.0,
        "projection": NoProjection(),
        "rows": m,
        "data": tuple,
        "own": rows(chance, m, d, dtype),
        "clients": chance.choice([None, m + b, 1, 20]),
    }
    if chance.random() < 0.7:
        given |= {"benign": rows(chance, b, d, dtype), "benign_clients": tuple(range(b))}
    if chance.random() < 0.7:
        given["rule"] = chance.choice([Mean(), Median(), Krum(1), lambda rows: rows[0]])
        if chance.random() < 0.1:
            given["rule"] = lambda rows: odd(chance, m, d)
    if spoil:
        for _ in range(chance.randrange(1, 3)):
            name = chance.choice([f.name for f in fields(View)])
            size = (b, d) if name == "benign" else (m, d)
            given[name] = odd(chance, *size)
    return View(**given)


@pytest.mark.slow
@pytest.mark.parametrize("name", ATTACKS)
def test_attacks(name: str) -> None:
    for number in range(CALLS):
        chance = random.Random(number)
        attack, told = ATTACKS[name](), f"{name}, call {number}"
        seen = outcome(partial(view, chance, chance.random() < 0.5), told)
        if seen is None:
            continue
        draw: Any = torch.Generator().manual_seed(0)
        state, asked = attack.init(), seen
        if chance.random() < 0.2:
            state, asked, draw = (
                odd(chance, 3, 2) if chance.random() < 0.5 else right
                for right in (state, asked, draw)
            )
        whole = all(map(is_finite, (seen.own, seen.parameters, seen.benign, *seen.history)))
        whole = whole or (seen.benign is None and is_finite(seen.own))
        for _ in range(2):
            answer = outcome(partial(attack.craft, state, asked, draw), told)
            if answer is None:
                break
            sent, state = answer
            assert sent.shape == (seen.rows, len(seen.parameters)), told
            assert not whole or not is_finite(seen.parameters) or not sent.isnan().any(), told


POISONERS = {name: make for name, make in ATTACKS.items() if hasattr(make(), "poison")}


@pytest.mark.parametrize("name", POISONERS)
def test_poisonings(name: str) -> None:
    for number in range(CALLS):
        chance = random.Random(number)
        attack, told = POISONERS[name](), f"{name}, call {number}"
        b, classes = chance.randrange(0, 5), chance.choice([1, 2, 3, 10, 0, -1, 2.5, None, "2"])
        x: Any = normal(chance, b, 3)
        y: Any = torch.tensor([chance.randrange(3) for _ in range(b)], dtype=torch.long)
        if chance.random() < 0.7:
            x, y = (odd(chance, b, 3) if chance.random() < 0.5 else right for right in (x, y))
        answer = outcome(partial(attack.poison, x, y, classes), told)
        if answer is not None:
            assert len(answer[0]) == len(answer[1]) > 0, told
            assert not poisons(attack) or int(answer[1].min()) >= 0, told
            assert int(answer[1].max()) < classes, told
