"""The command line: run, sweep, report, audit, attack learn, list, data get."""

from fedrobust.cli import attack, audit, data, listing, training
from fedrobust.cli.app import app
from fedrobust.cli.listing import kinds

__all__ = ["app", "attack", "audit", "data", "kinds", "listing", "main", "training"]


def main() -> None:
    """The entry point of ``fedrobust``."""
    app()
