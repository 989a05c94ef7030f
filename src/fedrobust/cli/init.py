"""The command ``fedrobust init``."""

import re
import shlex
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from fedrobust.cli import completion
from fedrobust.cli.app import app, say, user_errors


@app.command("init")
def init_command(
    path: Annotated[Path, typer.Argument(help="The config to write.")] = Path("experiment.yaml"),
    data: Annotated[
        str | None,
        typer.Option(
            help="digits, mnist, fashion-mnist or cifar10.",
            autocompletion=completion.one_of(*completion.STARTERS),
        ),
    ] = None,
    clients: Annotated[int | None, typer.Option(help="How many clients.", min=1)] = None,
    malicious: Annotated[int | None, typer.Option(help="How many of them attack.", min=0)] = None,
    attack: Annotated[
        str | None,
        typer.Option(
            help="What they send, or none.", autocompletion=completion.component("attack", "none")
        ),
    ] = None,
    aggregator: Annotated[
        str | None,
        typer.Option(
            help="How the server merges.", autocompletion=completion.component("aggregator")
        ),
    ] = None,
    objective: Annotated[
        str | None,
        typer.Option(
            help="What clients minimise.", autocompletion=completion.component("objective")
        ),
    ] = None,
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
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).lstrip("._-") or "experiment"
        asks = not given and terminal()
        while True:
            try:
                if asks:
                    _ask_for(given)
                chosen, text = starter(Choices(name=name, path=str(path), **given))
                break
            except ConfigError as error:
                if not asks:
                    raise
                say(f"error: {error}\nAsked again; Enter keeps your answer.")
        try:
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            raise ConfigError(f"cannot write {path}: {error.strerror}") from error
        attackers = f"{chosen.malicious} malicious ({chosen.attack})"
        say(
            f"{chosen.data}, {chosen.clients} clients, "
            f"{attackers if chosen.malicious else 'none malicious'}, {chosen.aggregator}, "
            f"{chosen.objective}\n"
            f"config: {path}; play it with: fedrobust run {shlex.quote(str(path))}"
        )


def terminal() -> bool:
    """Whether somebody can be asked."""
    return sys.stdin.isatty()


def _ask_for(answers: dict[str, Any]) -> None:
    """Ask for what matters most, and put it into ``answers``; ask again after a wrong answer.

    The default is the answer that was given before, or else what suits the other answers.
    """
    from fedrobust.aggregators import AGGREGATORS
    from fedrobust.attacks import ATTACKS
    from fedrobust.cli.starter import SETTINGS, Choices, starter
    from fedrobust.config.kind import name_of
    from fedrobust.objectives import OBJECTIVES

    def ask(key: str, text: str, suits: object, valid: Callable[[str], Any]) -> Any:
        answers[key] = typer.prompt(text, answers.get(key, suits), value_proc=valid)
        return answers[key]

    data = ask("data", f"Data set ({', '.join(SETTINGS)})", Choices.data, _one_of(SETTINGS))
    clients = ask("clients", "Clients", SETTINGS[data].clients, _number(1))
    suits, _ = starter(Choices(name="suits", data=data, clients=clients))
    attacks, rules = ["none", *map(name_of, ATTACKS)], list(map(name_of, AGGREGATORS))
    if ask("attack", "Attack (or none; see list attack)", suits.attack, _one_of(attacks)) == "none":
        answers.pop("malicious", None)
    else:
        ask("malicious", "Malicious clients", max(1, clients // 5), _number(0))
    ask("aggregator", "Rule (see list aggregator)", suits.aggregator, _one_of(rules))
    losses = _one_of(map(name_of, OBJECTIVES))
    ask("objective", "Objective (see list objective)", Choices.objective, losses)
    ask("rounds", "Rounds", suits.rounds, _number(1))


def _one_of(names: Iterable[str]) -> Callable[[str], str]:
    known = list(names)

    def valid(text: str) -> str:
        if text not in known:
            from fedrobust.config.text import quoted, suggestion

            raise typer.BadParameter(
                f"there is no {quoted(text)}{suggestion(text, known)}; there are: "
                f"{', '.join(known)}"
            )
        return text

    return valid


def _number(least: int) -> Callable[[str], int]:
    def valid(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least:
            raise typer.BadParameter(f"write a whole number from {least} on")
        return value

    return valid
