"""The command ``fedrobust init``."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from fedrobust.cli.app import app, say, user_errors


@app.command("init")
def init_command(
    path: Annotated[Path, typer.Argument(help="The config to write.")] = Path("experiment.yaml"),
    data: Annotated[
        str | None, typer.Option(help="digits, mnist, fashion-mnist or cifar10.")
    ] = None,
    clients: Annotated[int | None, typer.Option(help="How many clients.", min=1)] = None,
    malicious: Annotated[int | None, typer.Option(help="How many of them attack.", min=0)] = None,
    attack: Annotated[str | None, typer.Option(help="What they send, or none.")] = None,
    aggregator: Annotated[str | None, typer.Option(help="How the server merges.")] = None,
    objective: Annotated[str | None, typer.Option(help="What clients minimise.")] = None,
    rounds: Annotated[int | None, typer.Option(help="How many rounds.", min=1)] = None,
) -> None:
    """Write a commented config to begin with, from these options or from questions.

    On a terminal, without any option, it asks. What is left out suits the data set.
    """
    from fedrobust.cli.starter import Choices, starter
    from fedrobust.errors import ConfigError

    with user_errors():
        if path.exists() or path.is_symlink():
            raise ConfigError(f"{path} exists; name another file")
        given: dict[str, Any] = {
            "data": data,
            "clients": clients,
            "malicious": malicious,
            "attack": attack,
            "aggregator": aggregator,
            "objective": objective,
            "rounds": rounds,
        }
        given = {key: value for key, value in given.items() if value is not None}
        if not given and terminal():
            given = _asked()
        text = starter(Choices(name=path.stem, **given))
        try:
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            raise ConfigError(f"cannot write {path}: {error.strerror}") from error
        say(f"config: {path}; play it with: fedrobust run {path}")


def terminal() -> bool:
    """Whether somebody can be asked."""
    return sys.stdin.isatty()


def _asked() -> dict[str, Any]:
    """Ask for what matters most, each with a default."""
    from fedrobust.cli.starter import SETTINGS, Choices

    data = typer.prompt(f"Data set ({', '.join(SETTINGS)})", Choices.data)
    many = SETTINGS[data].clients if data in SETTINGS else 11
    clients = typer.prompt("Clients", many, type=int)
    attack = typer.prompt("Attack (or none; fedrobust list attack)", Choices.attack)
    found: dict[str, Any] = {"data": data, "clients": clients, "attack": attack}
    if attack != "none":
        found["malicious"] = typer.prompt("Malicious clients", clients // 5, type=int)
    found["aggregator"] = typer.prompt("Rule (fedrobust list aggregator)", Choices.aggregator)
    found["objective"] = typer.prompt("Objective (fedrobust list objective)", Choices.objective)
    return found
