"""The command line: ``fedrobust`` and its commands, a module for each."""

from fedrobust.cli import (
    attack,
    audit,
    bench,
    data,
    init,
    leaderboard,
    listing,
    reproduce,
    training,
)
from fedrobust.cli.app import app
from fedrobust.cli.components import kinds

__all__ = [
    "app",
    "attack",
    "audit",
    "bench",
    "data",
    "init",
    "kinds",
    "leaderboard",
    "listing",
    "main",
    "reproduce",
    "training",
]


def main() -> None:
    """Run the command ``fedrobust``."""
    app()
