"""The two-stage learned attack of DRFL.

Start to read with attack.py, then stage_one.py, stage_two.py, simulation.py, environment.py and
policy.py.
"""

from fedrobust.attacks.learned.attack import Learned
from fedrobust.attacks.learned.inversion import Inversion
from fedrobust.attacks.learned.paper import PAPER
from fedrobust.attacks.learned.training import Training

__all__ = ["PAPER", "Inversion", "Learned", "Training"]
