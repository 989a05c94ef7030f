"""Error under shift: the error on test examples that are moved by a given Wasserstein distance."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from fedrobust.compute.global_draws import draws
from fedrobust.compute.network import answers, batched_logits, cross_entropy, evaluating
from fedrobust.compute.randomness import drawing
from fedrobust.compute.units import computed, seeds, slices
from fedrobust.config import arguments
from fedrobust.perturb.inputs import require_inputs
from fedrobust.perturb.pgd import Pgd
from fedrobust.perturb.wasserstein import THOROUGH, Ascent
from fedrobust.typing import Images, Labels

Method: TypeAlias = Literal["wrm", "pgd"]
_CLOSE = 0.02
"""A level counts as reached within this share of it."""
_TRIES = 40


@dataclass(frozen=True)
class Shifted:
    """A model's error on examples moved to the level ``rho``, a mean squared distance.

    ``reached`` is the mean squared distance that was reached. ``error`` is the share of
    misclassified examples. ``false_positive`` and ``false_negative`` are the misclassified shares
    of the negative (0) and of the positive (1) examples; they are None unless there are two
    classes, and for a class without examples.
    """

    method: Method
    rho: float
    reached: float
    loss: float
    error: float
    false_positive: float | None
    false_negative: float | None


def error_under_shift(
    model: nn.Module,
    x: Images,
    y: Labels,
    *,
    levels: tuple[float, ...],
    method: Method = "wrm",
    ascent: Ascent = THOROUGH,
    steps: int = 40,
    batch_size: int = 1024,
) -> list[Shifted]:
    """Return the error of ``model`` on examples x [b, ...], y [b] at each of ``levels`` of shift ρ.

    ρ is a mean squared ℓ2 distance. ``wrm`` moves the examples to T_γ and solves for the price γ
    that reaches the level, so it moves most where that raises the loss most (Sinha et al. 2018).
    ``pgd`` moves each example by at most √ρ in ℓ2, with ``steps`` steps of 2.5 √ρ / steps and no
    random start. Examples stay in [0, 1] where ``ascent.box`` is true. If no price reaches a level
    (the gradients have vanished, or the box is full), the nearest distance is taken: see
    ``reached``.

    Raises: ``ValueError`` for a negative level, and for examples that do not fit the model.
    """
    arguments.whole("batch_size", batch_size)
    arguments.whole("steps", steps)
    arguments.choice("method", method, Method)
    if not all(_is_level(level) for level in levels):
        raise ValueError(f"levels must be mean squared distances >= 0; got {list(levels)!r:.80}")
    x, y = require_inputs(model, x, y)
    with evaluating(model), drawing(0):
        if method == "pgd":
            return [_by_pgd(model, x, y, rho, steps, ascent.box, batch_size) for rho in levels]
        return _by_price(model, x, y, levels, ascent, batch_size)


def _by_pgd(
    model: nn.Module, x: Images, y: Labels, rho: float, steps: int, box: bool, batch: int
) -> Shifted:
    if rho == 0:
        return _score("pgd", 0.0, model, x, x, y, batch)
    attack = Pgd(
        eps=math.sqrt(rho),
        step_size=2.5 * math.sqrt(rho) / steps,
        steps=steps,
        norm="l2",
        random_start=False,
        box=box,
    )
    moved = _by_units(
        model, x, batch, lambda one, i: attack.maximize(one, x[i], y[i], lambda: None)
    )
    return _score("pgd", rho, model, x, moved, y, batch)


def _by_price(
    model: nn.Module, x: Images, y: Labels, levels: tuple[float, ...], ascent: Ascent, batch: int
) -> list[Shifted]:
    """Find the price that reaches each level. ρ(γ) falls in γ, so γ is bracketed and bisected.

    The prices tried for one level are used for the others too, so none is tried twice.
    """
    tried: dict[float, Shifted] = {}
    scores = []
    for rho in levels:
        if rho == 0:
            scores.append(_score("wrm", 0.0, model, x, x, y, batch))
            continue
        for _ in range(_TRIES):
            gamma = _next_price({g: score.reached for g, score in tried.items()}, rho)
            if gamma is None:
                break
            moved = _by_units(model, x, batch, partial(_moved, x, y, gamma, ascent))
            tried[gamma] = _score("wrm", rho, model, x, moved, y, batch)
        best = min(tried.values(), key=lambda score: abs(score.reached - rho))
        scores.append(replace(best, rho=rho))
    return scores


def _next_price(known: dict[float, float], rho: float) -> float | None:
    """Return the next γ to try for the level ρ, given the known ρ(γ); None to stop the search."""
    if not known:
        return 1.0
    too_far = [g for g, r in known.items() if r >= rho]  # the price is too low
    too_near = [g for g, r in known.items() if r < rho]
    if any(abs(r - rho) <= _CLOSE * rho for r in known.values()):
        return None
    if not too_far:
        lowest = min(too_near)
        return lowest / 4 if lowest > 1e-12 else None
    if not too_near:
        highest = max(too_far)
        return highest * 4 if highest < 1e12 else None
    # An ascent that stops short need not reach less at a higher price: several pairs may enclose ρ.
    pairs = [(g, h) for g, h in pairwise(sorted(known)) if known[g] >= rho > known[h]]
    if not pairs:
        return None
    low, high = pairs[-1]
    if high / low < 1 + 1e-6:
        return None
    a, b = known[low], known[high]
    if math.isfinite(a) and b > 0:  # ρ(γ) is nearly a power of γ between two near prices
        share = min(max(math.log(a / rho) / math.log(a / b), 0.1), 0.9)
    else:
        share = 0.5
    return float(low * (high / low) ** share)


def _moved(
    x: Images, y: Labels, gamma: float, ascent: Ascent, model: nn.Module, part: slice
) -> Images:
    return ascent.solve(model, x[part], y[part], gamma).x


def _by_units(
    model: nn.Module, x: Images, batch: int, work: Callable[[nn.Module, slice], Tensor]
) -> Tensor:
    """Return what ``work`` gives for each unit of ``batch`` of the examples x, in one tensor."""
    units = slices(len(x), batch)
    seed, found = seeds(0), draws(model, x)
    return torch.cat(computed(model, units, work, seed=seed, draws=found, anywhere=True))


def _score(
    method: Method, rho: float, model: nn.Module, x: Images, moved: Images, y: Labels, batch: int
) -> Shifted:
    found = _by_units(model, x, batch, lambda one, i: batched_logits(one, moved[i], batch))
    wrong = (answers(found) != y).double()
    binary = found.shape[-1] == 2
    costs = (moved - x).flatten(1).double().square().sum(dim=1)
    cost = costs.mean().nan_to_num(torch.inf, posinf=torch.inf).item()
    loss = cross_entropy(found, y).mean().item()
    return Shifted(
        method=method,
        rho=rho,
        reached=cost,
        loss=loss,
        error=wrong.mean().item(),
        false_positive=_share(wrong[y == 0]) if binary else None,
        false_negative=_share(wrong[y == 1]) if binary else None,
    )


def _is_level(value: object) -> bool:
    return arguments.is_real(value) and 0 <= value < math.inf  # type: ignore[operator]


def _share(values: Tensor) -> float | None:
    return values.mean().item() if len(values) else None
