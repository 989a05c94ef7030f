"""The command line with its commands run, sweep, report, audit, attack learn, list, data get."""

from fedrobust.cli import attack, audit, data, listing, training
from fedrobust.cli.app import app
from fedrobust.cli.components import kinds

__all__ = ["app", "attack", "audit", "data", "kinds", "listing", "main", "training"]


def main() -> None:
    """Run the command ``fedrobust``."""
    app()
