"""The command line: run, sweep, report, audit, attack learn, list, data get and bench."""

from fedrobust.cli import attack, audit, bench, data, listing, training
from fedrobust.cli.app import app
from fedrobust.cli.components import kinds

__all__ = ["app", "attack", "audit", "bench", "data", "kinds", "listing", "main", "training"]


def main() -> None:
    """Run the command ``fedrobust``."""
    app()
