"""The attacks of an audit, and which of them each budget runs."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import torch
from torch import nn

from fedrobust.compute.network import right
from fedrobust.perturb import Apgd, Fab, Pgd, Square
from fedrobust.perturb.geometry import Norm, inside, on_sphere, per_example
from fedrobust.perturb.perturbation import Draw, Perturbation
from fedrobust.typing import Images, Labels

Budget: TypeAlias = Literal["quick", "standard", "full"]

AMPLE = 100
"""The number of steps after which plain PGD should have converged."""


WIDEST = "plain PGD, widest ball"
"""The attack whose ball holds every image; its ball is not the audit's."""


@dataclass(frozen=True)
class Attack:
    """One attack of a battery. ``factor`` scales the logits that the attack sees.

    ``radius`` is the radius of the attack's ball, where it differs from the audit's own.
    """

    name: str
    how: Perturbation
    factor: float = 1.0
    radius: float | None = None

    @property
    def asks(self) -> list[nn.Module]:
        """The models that this attack asks besides the one under audit."""
        return [self.how.surrogate] if isinstance(self.how, Transfer) else []

    def of(self, models: nn.Module) -> "tuple[nn.Module, Attack]":
        """Return the first of ``models``, and this attack with the others as those that it asks."""
        assert isinstance(models, nn.ModuleList)
        model, *others = models
        if not isinstance(self.how, Transfer):
            return model, self
        return model, replace(self, how=replace(self.how, surrogate=others[0]))


@dataclass(frozen=True)
class Noise:
    """Random points on the ball's surface, which any attack should beat."""

    eps: float
    norm: Norm
    points: int = 10

    def draw(self, x: Images, generator: torch.Generator) -> torch.Tensor | None:
        """Draw one point for each example, before clipping."""
        return on_sphere(x, self.eps, self.norm, generator)

    def maximize(
        self, model: nn.Module, x: Images, y: Labels, draw: Draw, *, batch: int | None = None
    ) -> Images:
        """Return a point on which the model errs, where one was drawn; else the last point."""
        best, open_ = x.clone(), torch.ones_like(y, dtype=torch.bool)
        for _ in range(self.points):
            noise = draw()
            assert noise is not None
            at = inside(x + noise, x, self.eps, self.norm, box=True)
            best = torch.where(per_example(open_, x), at, best)
            open_ = open_ & right(model, best, y, batch or max(len(x), 1))
        return best


@dataclass(frozen=True)
class Transfer:
    """Adversarial examples of another model. They are made without the model under audit."""

    surrogate: nn.Module
    how: Perturbation

    def draw(self, x: Images, generator: torch.Generator) -> torch.Tensor | None:
        """Draw the noise of the attack on the surrogate."""
        return self.how.draw(x, generator)

    def maximize(
        self, model: nn.Module, x: Images, y: Labels, draw: Draw, *, batch: int | None = None
    ) -> Images:
        """Return the surrogate's adversarial examples."""
        return self.how.maximize(self.surrogate, x, y, draw, batch=batch)


def claimed(eps: float, norm: Norm, steps: int = 40) -> Pgd:
    """Return the plain PGD that papers evaluate with: FAT's 40 steps of ε/30."""
    return Pgd(eps=eps, step_size=eps / 30, steps=steps, norm=norm)


def in_words(steps: int, step_size: float, restarts: int) -> str:
    """Return the name by which an audit's settings tell the PGD of a claim."""
    return f"PGD {steps} x {step_size:.4g}, restarts {restarts}"


def compared(budget: Budget, eps: float, norm: Norm) -> tuple[Attack, ...]:
    """Return the attacks that run on the same examples as plain PGD, since signs compare them."""
    queries = 500 if budget == "quick" else 5000
    return (
        Attack("Square", Square(eps=eps, norm=norm, queries=queries)),
        Attack("noise", Noise(eps, norm)),
        Attack("one step", Pgd(eps=eps, step_size=eps, steps=1, norm=norm, random_start=False)),
    )


def transfers(eps: float, norm: Norm, surrogates: Sequence[nn.Module]) -> tuple[Attack, ...]:
    """Return the attacks that run plain PGD on each surrogate."""
    how = _arriving(eps, norm, AMPLE)
    return tuple(
        Attack(f"transfer {i}", Transfer(other, how)) for i, other in enumerate(surrogates, start=1)
    )


def arriving(eps: float, norm: Norm) -> Attack:
    """Return plain PGD that should have converged, since a claim's own PGD may not have."""
    return Attack(f"PGD, {AMPLE} steps", _arriving(eps, norm, AMPLE))


def longer(budget: Budget, eps: float, norm: Norm) -> tuple[Attack, ...]:
    """Return plain PGD with more steps, and plain PGD with more restarts, as the budget allows."""
    found = [Attack(f"PGD, {4 * AMPLE} steps", _arriving(eps, norm, 4 * AMPLE))]
    many = Pgd(eps=eps, step_size=eps / 30, steps=AMPLE, norm=norm, restarts=40)
    found.append(Attack(f"PGD, {AMPLE} steps, 40 restarts", many))
    return tuple(found[: ("quick", "standard", "full").index(budget)])


def _arriving(eps: float, norm: Norm, steps: int) -> Pgd:
    """Return plain PGD with Madry's step size, 2.5 ε / 100."""
    return Pgd(eps=eps, step_size=2.5 * eps / AMPLE, steps=steps, norm=norm)


def battery(budget: Budget, eps: float, norm: Norm, classes: int) -> tuple[Attack, ...]:
    """Return the attacks on examples that still stand: AutoAttack's without Square, which ran."""
    steps, targets = (50, 3) if budget == "quick" else (100, 9)
    restarts = 5 if budget == "full" else 1
    found = [Attack("APGD-CE", Apgd(eps=eps, norm=norm, steps=steps, restarts=restarts))]
    if classes >= 4:
        how = Apgd(eps=eps, norm=norm, steps=steps, loss="dlr-targeted", targets=targets)
        found.append(Attack("targeted APGD-DLR", how))
    elif classes == 3:
        found.append(Attack("APGD-DLR", Apgd(eps=eps, norm=norm, steps=steps, loss="dlr")))
    if budget != "quick":
        found.append(Attack("FAB", Fab(eps=eps, norm=norm, restarts=restarts)))
    return tuple(found)
