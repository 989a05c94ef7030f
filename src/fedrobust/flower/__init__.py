"""Real federations with Flower: our rules on its server, our objectives on its clients.

``RobustStrategy`` is a Flower ``Strategy``. ``client_app`` makes a Flower ``ClientApp``.
``part_of`` gives one client's examples of an experiment that shares out a public data set. Flower
is imported when one of these names is used for the first time.
"""

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

from fedrobust.errors import ConfigError

if TYPE_CHECKING:
    from fedrobust.flower.client import client_app
    from fedrobust.flower.client_data import part_of
    from fedrobust.flower.strategy import RobustStrategy

_HOMES = {"RobustStrategy": "strategy", "client_app": "client", "part_of": "client_data"}

__all__ = ["RobustStrategy", "client_app", "part_of"]


def __getattr__(name: str) -> object:
    """Import a public name when it is first used. Raises: ``ConfigError`` without Flower."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if find_spec("flwr") is None:
        raise ConfigError(
            "fedrobust.flower needs Flower: pip install 'fedrobust[flower]', in an environment of "
            "its own with --constraint constraints-flower.txt, as Flower wants an older rich and "
            "typer (in a checkout: make setup-flower)"
        )
    return getattr(import_module(f"fedrobust.flower.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    """List the public names."""
    return sorted(__all__)
