"""Run other toolboxes' attacks with our settings: ART's PGD and APGD, and AutoAttack.

This module needs the extra ``agreement``. ART (adversarial-robustness-toolbox) gets the raw logits
and torch's cross-entropy. AutoAttack is the package ``pyautoattack``, its authors' code. Both draw
from global generators, which are seeded here and restored.
"""

import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn

from fedrobust.compute.randomness import isolated
from fedrobust.perturb import Apgd, Pgd
from fedrobust.perturb.geometry import Norm
from fedrobust.perturb.pgd import answers, frozen
from fedrobust.typing import Images, Labels, Mask

# ART makes a folder in the home directory when it is imported; this home is temporary.
with tempfile.TemporaryDirectory() as _home, patch.dict(os.environ, HOME=_home):
    from art.attacks.evasion import AutoProjectedGradientDescent, ProjectedGradientDescent
    from art.estimators.classification import PyTorchClassifier
    from pyautoattack import AutoAttack
    from pyautoattack.autopgd_base import APGDAttack

ORDER: dict[Norm, Any] = {"linf": np.inf, "l2": 2}
STANDARD = ("apgd-ce", "apgd-t", "fab-t", "square")
"""The attacks of AutoAttack's standard version, in its order."""
_SLACK = 1e-5


def art_pgd(
    model: nn.Module,
    x: Images,
    y: Labels,
    attack: Pgd,
    *,
    seed: int = 0,
    start: Tensor | None = None,
) -> Images:
    """Return the points of ART's PGD with the settings of ``attack``, from ``start`` if given."""
    theirs = ProjectedGradientDescent(
        _classifier(model, x, attack.box),
        norm=ORDER[attack.norm],
        eps=attack.eps,
        eps_step=attack.step_size,
        max_iter=attack.steps,
        num_random_init=attack.restarts if attack.random_start else 0,
        batch_size=256 if start is None else len(x),
        verbose=False,
    )
    return _generated(theirs, model, x, y, seed, start)


def art_apgd(
    model: nn.Module,
    x: Images,
    y: Labels,
    attack: Apgd,
    *,
    seed: int = 0,
    start: Tensor | None = None,
) -> Images:
    """Return the points of ART's APGD with the settings of ``attack``.

    Its step starts at 2ε like ours. With a ``start``, all of x must be classified correctly, since
    ART uses the start only for such examples.
    """
    losses = {"ce": "cross_entropy", "dlr": "difference_logits_ratio"}
    theirs = AutoProjectedGradientDescent(
        _classifier(model, x, attack.box),
        norm=ORDER[attack.norm],
        eps=attack.eps,
        eps_step=2 * attack.eps,
        max_iter=attack.steps,
        nb_random_init=attack.restarts,
        batch_size=256 if start is None else len(x),
        loss_type=losses[attack.loss],
        verbose=False,
    )
    return _generated(theirs, model, x, y, seed, start)


def authors_apgd(
    model: nn.Module, x: Images, y: Labels, attack: Apgd, *, start: Tensor
) -> tuple[Images, Mask]:
    """Return the points with the largest loss of AutoAttack's APGD, and which examples fell."""
    name = {"linf": "Linf", "l2": "L2"}[attack.norm]
    theirs = APGDAttack(
        model,
        n_iter=attack.steps,
        norm=name,
        eps=attack.eps,
        loss=attack.loss,
        device="cpu",
        logger=logging.getLogger(__name__),
    )
    theirs.init_hyperparam(x)
    with frozen(model):
        best, right, _, _ = theirs.attack_single_run(x, y, x_init=x + start)
    return best.detach(), ~right


def autoattack(
    model: nn.Module, x: Images, y: Labels, *, eps: float, norm: Norm, seed: int = 0
) -> dict[str, Mask]:
    """Return which examples stand after each attack of AutoAttack's standard version, in order.

    Each attack works on the examples that still stood before it, as in ``run_standard_evaluation``:
    the same examples in the same batches from the same seed.
    """
    name = {"linf": "Linf", "l2": "L2"}[norm]
    theirs = AutoAttack(model, norm=name, eps=eps, seed=seed, version="standard")
    theirs.verbose = False
    if tuple(theirs.attacks_to_run) != STANDARD:
        raise RuntimeError(f"AutoAttack's standard version is {theirs.attacks_to_run} by now")
    now = stands(model, x, y, x, eps=eps, norm=norm)
    found = {}
    for attack in STANDARD:
        left = now.nonzero()[:, 0]
        if len(left):
            theirs.attacks_to_run = [attack]
            with isolated(), frozen(model):
                points, _ = theirs.run_standard_evaluation(x[left], y[left])
            now[left] = stands(model, x[left], y[left], points, eps=eps, norm=norm)
        found[attack] = now.clone()
    return found


def stands(
    model: nn.Module, x: Images, y: Labels, found: Images, *, eps: float, norm: Norm
) -> Mask:
    """Return which examples the model classifies correctly both clean and at the points ``found``.

    Raises: ``RuntimeError`` for points that leave the ball or [0, 1], which do not count.
    """
    offset = (found - x).flatten(1)
    size = offset.abs().amax(dim=1) if norm == "linf" else offset.norm(dim=1)
    if not (size <= eps * (1 + _SLACK) + _SLACK).all() or found.min() < 0 or found.max() > 1:
        raise RuntimeError(f"points at {size.max():g} > {eps:g}, or outside [0, 1]")
    right = torch.ones_like(y, dtype=torch.bool)
    with torch.no_grad():
        for points in (x, found):
            right &= torch.cat([answers(model(part)) for part in points.split(256)]) == y
    return right


def _classifier(model: nn.Module, x: Images, box: bool) -> Any:
    with torch.no_grad():
        classes = model(x[:1]).shape[1]
    return PyTorchClassifier(
        model,
        loss=nn.CrossEntropyLoss(),
        input_shape=tuple(x.shape[1:]),
        nb_classes=classes,
        clip_values=(0.0, 1.0) if box else None,
        device_type="cpu",
    )


def _generated(
    attack: Any, model: nn.Module, x: Images, y: Labels, seed: int, start: Tensor | None
) -> Tensor:
    def given(points: int, *_: object) -> Any:
        assert start is not None
        assert points == len(start), "ART starts from other examples than it was given"
        return start.flatten(1).numpy()

    drawn = (
        nullcontext() if start is None else patch.object(_module(attack), "random_sphere", given)
    )
    with _seeded(seed), frozen(model), drawn:
        found = attack.generate(x.numpy(), y.numpy())
    # ART adds its offset to x, which may round a pixel out of the box by one part in 1e7.
    box = attack.estimator.clip_values is not None
    return torch.from_numpy(found).clamp(0, 1) if box else torch.from_numpy(found)


def _module(attack: Any) -> Any:
    """Return the module in which an attack of ART looks up the function for its random start."""
    worker = getattr(attack, "_attack", attack)
    return sys.modules[type(worker).__module__]


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Within the context, seed numpy's global generator; afterwards restore its state."""
    before = np.random.get_state()
    np.random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(before)
