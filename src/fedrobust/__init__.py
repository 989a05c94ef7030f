"""Train federated models meant to be robust, attack their training, measure honestly.

``Experiment`` is one run as one value and ``run`` plays it; the parts live in ``fedrobust.data``,
``models``, ``objectives``, ``perturb``, ``attacks``, ``aggregators`` and ``evaluation``.
"""

from fedrobust.client import Client
from fedrobust.data import Dataset
from fedrobust.errors import UserError
from fedrobust.execution import Execution
from fedrobust.experiment import Evaluation, Experiment, load
from fedrobust.server import Server
from fedrobust.threat import ThreatModel, View
from fedrobust.training import Progress, Run, run

__all__ = [
    "Client",
    "Dataset",
    "Evaluation",
    "Execution",
    "Experiment",
    "Progress",
    "Run",
    "Server",
    "ThreatModel",
    "UserError",
    "View",
    "load",
    "run",
]
