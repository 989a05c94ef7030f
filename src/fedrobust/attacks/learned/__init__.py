"""The two-stage learned attack of DRFL, in reading order: inversion, distribution, simulation,
environment, policy, pipeline."""

from fedrobust.attacks.learned.attack import Learned
from fedrobust.attacks.learned.inversion import Inversion
from fedrobust.attacks.learned.training import PAPER, Training

__all__ = ["PAPER", "Inversion", "Learned", "Training"]
