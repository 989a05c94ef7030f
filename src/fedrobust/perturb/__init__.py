"""The inner maximisations: what an adversary does to one input."""

from typing import TYPE_CHECKING, Any, TypeAlias

from fedrobust.config.component import one_of
from fedrobust.perturb.apgd import Apgd
from fedrobust.perturb.fab import Fab, Nearest
from fedrobust.perturb.pgd import Perturbation, Pgd, pgd
from fedrobust.perturb.square import Square
from fedrobust.perturb.transport import Transport
from fedrobust.perturb.wasserstein import Ascent, wasserstein_ascent

PERTURBATIONS: tuple[type, ...] = (Pgd, Apgd, Fab, Square)
if TYPE_CHECKING:
    AnyPerturbation: TypeAlias = Perturbation
else:
    AnyPerturbation: Any = one_of("perturbation", *PERTURBATIONS, has=("draw", "maximise"))

__all__ = [
    "PERTURBATIONS",
    "AnyPerturbation",
    "Apgd",
    "Ascent",
    "Fab",
    "Nearest",
    "Perturbation",
    "Pgd",
    "Square",
    "Transport",
    "pgd",
    "wasserstein_ascent",
]
