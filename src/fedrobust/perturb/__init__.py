"""Inner maximisations: how an adversary changes one input."""

from fedrobust.perturb.apgd import Apgd
from fedrobust.perturb.fab import Fab, Nearest
from fedrobust.perturb.perturbation import PERTURBATION, AnyPerturbation, Perturbation
from fedrobust.perturb.pgd import Pgd, pgd
from fedrobust.perturb.square import Square
from fedrobust.perturb.transport import Transport
from fedrobust.perturb.wasserstein import Ascent, wasserstein_ascent

PERTURBATIONS = PERTURBATION.of(Pgd, Apgd, Fab, Square)
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
