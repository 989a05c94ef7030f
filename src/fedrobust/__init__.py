"""Train federated models meant to be robust, attack their training, measure honestly.

``Experiment`` describes one run as one value, ``run`` plays it, and ``open`` reads what a run, a
sweep or an audit has written. The parts live in
``fedrobust.data``, ``models``, ``objectives``, ``perturb``, ``attacks``, ``aggregators`` and
``evaluation``.
"""

import os
from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING

# Idle threads of GNU OpenMP spin for milliseconds, which makes a run many times slower as soon as
# another process wants a core. OpenMP reads this variable once, when PyTorch is loaded, so it must
# be set before. If PyTorch is loaded already, or the user has set it, this line changes nothing.
os.environ.setdefault("GOMP_SPINCOUNT", "2000")

if TYPE_CHECKING:
    from fedrobust.clients.client import Client
    from fedrobust.compute.execution import Execution
    from fedrobust.compute.parameters import read as flatten
    from fedrobust.compute.parameters import write as unflatten
    from fedrobust.compute.randomness import Streams
    from fedrobust.data import Dataset
    from fedrobust.errors import UserError
    from fedrobust.experiment import Evaluation, Experiment, load
    from fedrobust.federation.round import run_round
    from fedrobust.federation.server import Server
    from fedrobust.federation.state import Federation
    from fedrobust.federation.threat import ThreatModel, View
    from fedrobust.progress import Progress
    from fedrobust.results.callbacks import Callback
    from fedrobust.results.opening import open as open
    from fedrobust.results.play import run
    from fedrobust.results.run import Run

_HOMES = {
    "Callback": "results.callbacks",
    "Client": "clients.client",
    "Dataset": "data",
    "Evaluation": "experiment",
    "Execution": "compute.execution",
    "Experiment": "experiment",
    "Federation": "federation.state",
    "Progress": "progress",
    "Run": "results.run",
    "Server": "federation.server",
    "Streams": "compute.randomness",
    "ThreatModel": "federation.threat",
    "UserError": "errors",
    "View": "federation.threat",
    "flatten": "compute.parameters:read",
    "load": "experiment",
    "open": "results.opening",
    "run": "results.play",
    "run_round": "federation.round",
    "unflatten": "compute.parameters:write",
}

__all__ = [
    "Callback",
    "Client",
    "Dataset",
    "Evaluation",
    "Execution",
    "Experiment",
    "Federation",
    "Progress",
    "Run",
    "Server",
    "Streams",
    "ThreatModel",
    "UserError",
    "View",
    "flatten",
    "load",
    "run",
    "run_round",
    "unflatten",
]


def __getattr__(name: str) -> object:
    """Import a public name when it is first used: PyTorch takes a second to load."""
    if name in _HOMES:
        module, _, inside = _HOMES[name].partition(":")
        return getattr(import_module(f"fedrobust.{module}"), inside or name)
    if name == "__version__":
        return version("fedrobust")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """List the public names."""
    return sorted([*__all__, "__version__", "open"])
