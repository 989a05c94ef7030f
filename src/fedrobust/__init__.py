"""Train federated models meant to be robust, attack their training, measure honestly.

``Experiment`` describes one run as one value, and ``run`` plays it. The parts live in
``fedrobust.data``, ``models``, ``objectives``, ``perturb``, ``attacks``, ``aggregators`` and
``evaluation``.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING

# Idle threads of GNU OpenMP spin for milliseconds, which makes a run many times slower as soon as
# another process wants a core. OpenMP reads this variable once, when PyTorch is loaded, so it must
# be set before. If PyTorch is loaded already, or the user has set it, this line changes nothing.
os.environ.setdefault("GOMP_SPINCOUNT", "2000")

if TYPE_CHECKING:
    from fedrobust.clients.client import Client
    from fedrobust.compute.execution import Execution
    from fedrobust.data import Dataset
    from fedrobust.errors import UserError
    from fedrobust.experiment import Evaluation, Experiment, load
    from fedrobust.federation.server import Server
    from fedrobust.federation.threat import ThreatModel, View
    from fedrobust.progress import Progress
    from fedrobust.runs.run import Run, run

_HOMES = {
    "Client": "clients.client",
    "Dataset": "data",
    "Evaluation": "experiment",
    "Execution": "compute.execution",
    "Experiment": "experiment",
    "Progress": "progress",
    "Run": "runs.run",
    "Server": "federation.server",
    "ThreatModel": "federation.threat",
    "UserError": "errors",
    "View": "federation.threat",
    "load": "experiment",
    "run": "runs.run",
}

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


def __getattr__(name: str) -> object:
    """Import a public name when it is first used: PyTorch takes a second to load."""
    if name in _HOMES:
        return getattr(import_module(f"fedrobust.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """List the public names too that nobody has used yet."""
    return sorted({*globals(), *__all__})
