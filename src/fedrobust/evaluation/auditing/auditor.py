"""The audit of one model."""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fedrobust.compute.network import (
    ascent,
    batched_logits,
    cross_entropy,
    evaluating,
    frozen,
    margin,
)
from fedrobust.compute.randomness import drawing
from fedrobust.compute.units import shared_by, workers
from fedrobust.config import arguments
from fedrobust.config.scalars import ratio
from fedrobust.evaluation.auditing.battery import (
    WIDEST,
    Attack,
    Budget,
    arriving,
    battery,
    claimed,
    compared,
    in_words,
    longer,
    transfers,
)
from fedrobust.evaluation.auditing.indicators import (
    BATTERY,
    OVERSTATED,
    Indicator,
    at_chance,
    lead,
    share,
    verdict,
)
from fedrobust.evaluation.auditing.loss_surface import Surface, surface
from fedrobust.evaluation.auditing.model_check import ModelCheck, subject, warn_of_channels_last
from fedrobust.evaluation.auditing.progress_file import About, ProgressFile
from fedrobust.evaluation.auditing.result import Audit
from fedrobust.evaluation.auditing.runner import AttackRunner
from fedrobust.evaluation.intervals import Share
from fedrobust.perturb import Pgd
from fedrobust.perturb.geometry import Norm, require_radius, unit
from fedrobust.progress import UNWATCHED, Progress
from fedrobust.typing import Images, Labels, Mask

_MANY = 16
"""The number of gradient entries that share one sign by chance in one of 2^15 examples."""


_CURVED = 4
"""By which factor a margin may fall faster or slower than its gradient says, within the ball."""


def audit(
    model: nn.Module,
    x: Images,
    y: Labels,
    *,
    eps: float | str,
    norm: Norm = "linf",
    budget: Budget = "quick",
    claim: Pgd | None = None,
    surrogates: Sequence[nn.Module] = (),
    batch_size: int = 256,
    seed: int = 0,
    journal: Path | str | None = None,
    progress: Progress | None = None,
) -> Audit:
    """Check whether the robustness that ``model`` shows under plain PGD is real.

    x: [b, ...] in [0, 1]; y: [b], whole numbers; ``eps`` in units of that range, or a text such as
    "8/255". ``claim`` is the attack behind the claimed accuracy, FAT's PGD of 40 steps unless
    given. ``surrogates`` are other models for the same data; their adversarial examples are tried
    too. Attacks run on the examples that still stand; the signs compare attacks on the same
    examples. ``journal`` is a file of finished work: calling an interrupted audit again with it
    goes on where it stopped. ``progress`` is told how far each attack is.

    The model is put into evaluation mode and back. The audit recognises a model that returns
    probabilities, lets no gradient through, is randomised, or whose answers depend on the batch. It
    handles such a model and names it in ``notes``. All random draws come from ``seed``.

    Raises: ``ValueError``, which names the argument, for inputs outside [0, 1], eps = 0, a claim
    for another ball, a model or a surrogate that does not fit the examples, or labels without a
    class of the model; ``RecordError`` for the journal of another audit.
    """
    x, y, eps = _require(model, x, y, eps, norm, budget)
    _require_settings(claim, surrogates, batch_size, seed, progress)
    plain = claim or claimed(eps, norm)
    if plain.eps != eps or plain.norm != norm:
        raise ValueError(
            f"the claim is PGD in {plain.norm} with eps = {plain.eps:g}, "
            f"the audit in {norm} with eps = {eps:g}"
        )
    if not plain.box:
        raise ValueError("the claim leaves [0, 1] (box: false): an audit needs box: true")
    everyone = nn.ModuleList([model, *surrogates])
    with evaluating(everyone), drawing(seed), shared_by(workers()):
        seen = subject(model, x, y, batch_size)
        warn_of_channels_last(model, x)
        others = [_surrogate(i, other, x, y) for i, other in enumerate(surrogates, start=1)]
        about = (plain, budget, batch_size, seed, type(model).__qualname__)
        asked = About.of([model, *surrogates], [x, y], seen.said, *about)
        kept = ProgressFile(None if journal is None else Path(journal), asked)
        battle = AttackRunner(
            seen.model, x, y, (eps, norm), batch_size, seed, progress or UNWATCHED, kept
        )
        found = _fought(seen, battle, plain, budget, others)
    settings: dict[str, str | float | int] = {
        "eps": eps,
        "norm": norm,
        "budget": budget,
        "claim": in_words(plain.steps, plain.step_size, plain.restarts),
        "surrogates": len(surrogates),
        "examples": len(x),
        "one answer": round(float(torch.bincount(y).max()) / len(y), 4),
        "batch_size": batch_size,
        "seed": seed,
    }
    return replace(found, settings=settings)


def _require(
    model: object, x: object, y: object, eps: object, norm: object, budget: object
) -> tuple[Images, Labels, float]:
    """Return examples, clipped after rounding, labels and ε. Raises: ``ValueError`` for others."""
    arguments.module(model)
    x = arguments.images(x)
    y = arguments.labels(y, len(x))
    radius: Any = ratio(eps)
    if not arguments.is_real(radius) or not 0 < radius < math.inf:
        raise ValueError(
            f"eps is {eps!r:.80}: give a radius above 0, such as 0.3 or 8 / 255; without a ball "
            "there is no robustness to audit"
        )
    arguments.choice("norm", norm, Norm)
    arguments.choice("budget", budget, Budget)
    require_radius(radius, norm, box=True)  # type: ignore[arg-type]
    try:
        return arguments.pixels(x), y, radius
    except ValueError as error:
        raise ValueError(
            f"{error}. An audit needs images in [0, 1]: normalise them inside the model"
        ) from error


def _require_settings(
    claim: object, surrogates: object, batch_size: object, seed: object, progress: object
) -> None:
    if claim is not None and not isinstance(claim, Pgd):
        raise ValueError(f"claim must be a Pgd; got {arguments.told(claim)}")
    if not isinstance(surrogates, list | tuple):
        raise ValueError(f"surrogates must be a list of models; got {arguments.told(surrogates)}")
    for number, other in enumerate(surrogates, start=1):
        arguments.module(other, f"surrogate {number}")
    arguments.whole("batch_size", batch_size)
    arguments.whole("seed", seed, 0)
    if not isinstance(progress, Progress | None):
        raise ValueError(f"progress must be a Progress; got {arguments.told(progress)}")


def _surrogate(number: int, model: nn.Module, x: Images, y: Labels) -> nn.Module:
    """Return the surrogate as it must be called. Raises: ``ValueError`` for an unusable one."""
    try:
        seen = subject(model, x, y)
        if not seen.differentiable:
            raise ValueError("no gradient reaches its input, so there is nothing to transfer")
    except ValueError as error:
        raise ValueError(f"surrogate {number}: {error}") from error
    return seen.model


def _fought(
    seen: ModelCheck,
    battle: AttackRunner,
    plain: Pgd,
    budget: Budget,
    surrogates: Sequence[nn.Module],
) -> Audit:
    model, eps, norm = seen.model, plain.eps, plain.norm
    clean = battle.stands
    felled = battle.run(Attack("plain PGD", plain))
    claims = battle.stands
    # The claim's PGD may be weak. Masking is what plain PGD misses even when it has converged.
    felled = felled | battle.run(arriving(eps, norm))
    plainly = clean & ~felled
    # These attacks are compared with plain PGD, so each runs on the same examples.
    quieter, louder = battle.rescaled(arriving(eps, norm).how, claimed(eps, norm))
    signs = [
        lead(f"{attack.name} beats plain PGD", battle.run(attack, among=clean), felled)
        for attack in (quieter, *compared(budget, eps, norm))
    ]
    if louder is not None:
        battle.run(louder)
    if surrogates:
        strays = [battle.run(attack, among=clean) for attack in transfers(eps, norm, surrogates)]
        signs.append(lead("transfer beats plain PGD", torch.stack(strays).any(dim=0), felled))
    flat = battle.mask("the gradient is 0", lambda: _flat(model, battle))
    signs.append(share("the gradient is 0", flat))
    signs += _later(battle, plainly, longer(budget, eps, norm))
    for attack in battery(budget, eps, norm, seen.classes):
        battle.run(attack)
    signs.append(share(BATTERY, plainly & ~battle.stands))
    survives = claims & ~battle.fells(_widest(plain, battle.x), claims)
    signs.append(share("survives the largest ball", survives))
    signs.append(at_chance(clean, battle.y))
    signs.append(share(OVERSTATED, claims & ~battle.stands, among=claims))
    shares = {
        name: Share(int(mask.sum()), len(mask))
        for name, mask in (("clean", clean), ("claimed", claims), ("robust", battle.stands))
    }
    drawn = battle.recalled("surface", lambda: surface(model, battle.x, battle.y, plain))
    found = "inconclusive" if seen.constant else verdict(signs, seen.steady)
    return Audit(
        verdict=found,
        clean=shares["clean"].value,
        claimed=shares["claimed"].value,
        robust=shares["robust"].value,
        shares=shares,
        taken=tuple(battle.taken),
        signs=tuple(signs),
        notes=(*seen.notes, *map(_refused, battle.refused.items())),
        settings={},
        surface=Surface(**drawn),
    )


def _refused(found: tuple[str, int]) -> str:
    """Return the note on points that are no adversarial examples."""
    attack, count = found
    return (
        f"{attack} gave {count:,} points that are no adversarial examples (not finite, or outside "
        "the ball or [0, 1]): they count as not found"
    )


def _later(battle: AttackRunner, plainly: Mask, attacks: Sequence[Attack]) -> list[Indicator]:
    """Return the signs that converged plain PGD takes more with more steps or more restarts."""
    names = ("more steps take more", "restarts take more")
    return [
        share(name, battle.run(attack, among=plainly))
        for name, attack in zip(names, attacks, strict=False)
    ]


def _flat(model: nn.Module, battle: AttackRunner) -> Mask:
    """Return which examples have an input gradient without information at the clean point.

    Such a gradient is exactly 0, or not finite, or has many entries that all share one sign. One
    sign says something where the margin falls along it about as fast as its own gradient says, as
    in a model that rises with each of its inputs.
    """
    parts = zip(*(torch.split(part, battle.batch) for part in (battle.x, battle.y)), strict=True)
    with frozen(model):
        return torch.cat([_flat_of(model, x, y, battle.eps, battle.norm) for x, y in parts])


def _flat_of(model: nn.Module, x: Images, y: Labels, eps: float, norm: Norm) -> Mask:
    slope = ascent(model, x, partial(_loss, y))[2]
    flat = slope.flatten(1)
    some = flat.abs().amax(dim=1)
    up, down = ((way * flat > 0).sum(dim=1) for way in (1, -1))
    one_way = (torch.minimum(up, down) == 0) & (torch.maximum(up, down) >= _MANY)
    if one_way.any():
        step = eps * (slope.sign() if norm == "linf" else unit(slope))
        ahead, back = ((x + way * step).clamp(0, 1) for way in (1, -1))
        leads = [margin(batched_logits(model, at, len(x)), y) for at in (back, ahead)]
        steep = ascent(model, x, partial(margin, y=y))[2]
        expected = -(steep * (ahead - back)).flatten(1).sum(dim=1)
        ratio = (leads[0] - leads[1]) / expected
        one_way &= ~((ratio > 1 / _CURVED) & (ratio < _CURVED))
    return (some == 0) | ~some.isfinite() | one_way


def _loss(y: Labels, found: torch.Tensor) -> torch.Tensor:
    return cross_entropy(found, y)


def _widest(plain: Pgd, x: Images) -> Attack:
    """Return plain PGD in a ball that holds every image; no honest model resists it."""
    reach = 1.0 if plain.norm == "linf" else x[0].numel() ** 0.5
    wide = replace(
        plain,
        eps=reach,
        step_size=reach / 10,
        steps=max(plain.steps, 40),
        random_start=True,
        box=True,
    )
    return Attack(WIDEST, wide, radius=reach)
