"""The audit of one model."""

import math
from dataclasses import replace
from typing import get_args

import torch
from torch import nn

from fedrobust.evaluation.accuracy import evaluating, require_examples
from fedrobust.evaluation.auditing.battery import (
    Attack,
    Battle,
    Budget,
    Noise,
    Watch,
    battery,
    claimed,
    queries,
    rescaled,
)
from fedrobust.evaluation.auditing.result import Audit, Share
from fedrobust.evaluation.auditing.signs import Sign, lead, share, verdict
from fedrobust.evaluation.auditing.subject import Subject, subject
from fedrobust.perturb import Pgd
from fedrobust.perturb.geometry import Norm, require_radius
from fedrobust.perturb.pgd import frozen, input_gradient
from fedrobust.typing import Images, Labels, Mask


def audit(
    model: nn.Module,
    x: Images,
    y: Labels,
    *,
    eps: float,
    norm: Norm = "linf",
    budget: Budget = "quick",
    claim: Pgd | None = None,
    batch_size: int = 256,
    seed: int = 0,
    watch: Watch = lambda name, examples: None,
) -> Audit:
    """Whether the robustness that ``model`` shows under plain PGD is real.

    x: [b, ...] in [0, 1]; y: [b], whole; ``eps`` in units of that range. ``claim`` is the attack
    that the claim rests on, FAT's PGD of 40 steps unless given. Attacks work on the examples that
    still stand; the signs compare attacks on the same examples.

    The model is asked in evaluation mode and put back. One that returns probabilities, lets no
    gradient through or is randomised is recognised, handled and named in ``notes``.

    Raises: ``ValueError`` for inputs outside [0, 1], eps = 0, a claim of another ball, a model that
    does not fit the examples, or labels that it has no class for.
    """
    _require(model, x, y, eps, norm, budget)
    plain = claim or claimed(eps, norm)
    if plain.eps != eps or plain.norm != norm:
        raise ValueError(
            f"the claim is PGD in {plain.norm} with eps = {plain.eps:g}, "
            f"the audit in {norm} with eps = {eps:g}"
        )
    with evaluating(model):
        seen = subject(model, x, y)
        battle = Battle(seen.model, x, y, (eps, norm), batch_size, seed, watch)
        return _fought(seen, battle, plain, budget, batch_size, seed)


def _require(
    model: object, x: object, y: object, eps: object, norm: object, budget: object
) -> None:
    """Raises: ``ValueError`` for arguments of another kind than they have to be."""
    if not isinstance(model, nn.Module):
        raise ValueError(f"the model must be a torch.nn.Module; got {type(model).__name__}")
    if not isinstance(x, torch.Tensor) or not isinstance(y, torch.Tensor):
        raise ValueError("x and y must be tensors: torch.from_numpy makes them of arrays")
    if y.dim() != 1 or y.is_floating_point():
        raise ValueError(f"y must be whole labels [b]; got {y.dtype} {list(y.shape)}")
    require_examples(x, y)
    if isinstance(eps, bool) or not isinstance(eps, int | float) or not 0 < eps < math.inf:
        raise ValueError(f"eps is {eps!r}: without a ball there is no robustness to audit")
    for name, value, kind in (("norm", norm, Norm), ("budget", budget, Budget)):
        if value not in get_args(kind):
            raise ValueError(f"{name} is {value!r}; it can be {' or '.join(get_args(kind))}")
    require_radius(eps, norm, box=True)  # type: ignore[arg-type]


def _fought(
    seen: Subject, battle: Battle, plain: Pgd, budget: Budget, batch: int, seed: int
) -> Audit:
    model, x, y = seen.model, battle.x, battle.y
    clean = battle.stands
    felled = battle.run(Attack("plain PGD", plain))
    claims = battle.stands
    # These are compared with plain PGD, so each is tried on all that it was tried on.
    louder = battle.run(rescaled(model, x, y, plain, batch, seed), among=clean)
    asked = battle.run(queries(budget, plain.eps, plain.norm), among=clean)
    noisy = battle.run(Attack("noise", Noise(plain.eps, plain.norm)), among=clean)
    for attack in battery(budget, plain.eps, plain.norm, seen.classes):
        battle.run(attack)
    signs: tuple[Sign, ...] = (
        lead("rescaled logits beat plain PGD", louder, felled),
        lead("queries beat plain PGD", asked, felled),
        lead("noise beats plain PGD", noisy, felled),
        share("the gradient is 0", _flat(model, x, y, batch)),
        share("the battery beats plain PGD", claims & ~battle.stands),
    )
    if not seen.constant:  # whose answer no ball changes, and that is no masking
        survives = claims & ~battle.fells(_widest(plain, x), claims)
        signs += (share("survives the largest ball", survives),)
    shares = {
        name: Share(int(mask.sum()), len(x))
        for name, mask in (("clean", clean), ("claimed", claims), ("robust", battle.stands))
    }
    return Audit(
        verdict=verdict(signs, seen.steady and not seen.constant),
        clean=shares["clean"].value,
        claimed=shares["claimed"].value,
        robust=shares["robust"].value,
        shares=shares,
        taken=tuple(battle.taken),
        signs=signs,
        notes=seen.notes,
        settings={
            "eps": plain.eps,
            "norm": plain.norm,
            "budget": budget,
            "claim": f"PGD {plain.steps} x {plain.step_size:.4g}, restarts {plain.restarts}",
            "examples": len(x),
            "seed": seed,
        },
    )


def _flat(model: nn.Module, x: Images, y: Labels, batch: int) -> Mask:
    """Which examples have an input gradient of exactly 0, or none, at the clean point."""
    with frozen(model):
        slopes = [
            input_gradient(model, *pair).flatten(1).abs().amax(dim=1)
            for pair in zip(torch.split(x, batch), torch.split(y, batch), strict=True)
        ]
    largest = torch.cat(slopes)
    return (largest == 0) | ~largest.isfinite()


def _widest(plain: Pgd, x: Images) -> Attack:
    """Plain PGD in a ball that holds every image: an honest model has no defence in it."""
    reach = 1.0 if plain.norm == "linf" else x[0].numel() ** 0.5
    wide = replace(
        plain,
        eps=reach,
        step_size=reach / 10,
        steps=max(plain.steps, 40),
        random_start=True,
        box=True,
    )
    return Attack("plain PGD, widest ball", wide, radius=reach)
