"""The command line: run, sweep, reproduce, report, audit, attack learn, list, data get, bench."""

from fedrobust.cli import attack, audit, bench, data, listing, reproduce, training
from fedrobust.cli.app import app
from fedrobust.cli.components import kinds

__all__ = [
    "app",
    "attack",
    "audit",
    "bench",
    "data",
    "kinds",
    "listing",
    "main",
    "reproduce",
    "training",
]


def main() -> None:
    """Run the command ``fedrobust``."""
    app()
