"""The command ``fedrobust attack learn``."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from fedrobust.cli import completion
from fedrobust.cli.app import OtherProcessor, app, look_beside, say, tell_stopped, user_errors
from fedrobust.config.shelf import found

attack = typer.Typer(help="Prepare attacks.", no_args_is_help=True)
app.add_typer(attack, name="attack")


@attack.command("learn")
def attack_learn(
    context: typer.Context,
    config: Annotated[
        Path,
        typer.Argument(
            help="An experiment whose attack is learned.", autocompletion=completion.config
        ),
    ],
    out: Annotated[Path, typer.Option(help="The policy to write, a .safetensors file.")],
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "-s",
            "--set",
            help="Override a key: attack.horizon=200. May be repeated.",
            autocompletion=completion.setting,
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an interrupted training.")
    ] = False,
    other_processor: OtherProcessor = False,
) -> None:
    """Train a policy, for attack: {name: learned, policy: FILE}."""
    from fedrobust.display import Display
    from fedrobust.experiment import load
    from fedrobust.runs.learn_policy import learn_policy

    with user_errors():
        config = found(config)
        look_beside(config)
        experiment = load(config, settings or [])
        display = Display(Console(stderr=True))
        try:
            with display:
                _, about = learn_policy(
                    experiment,
                    out,
                    resume,
                    other_processor=other_processor,
                    progress=display.progress,
                )
        except KeyboardInterrupt as stop:
            tell_stopped(context)
            raise typer.Exit(130) from stop
    spent = about["report"]
    say(
        f"{spent['simulated_rounds']:,} simulated rounds, {spent['seconds']:.0f} s, after "
        f"{spent['observed_rounds']} observed rounds; the policy does {spent['value']:.3g} of the "
        f"possible harm in fresh episodes of the simulation; policy: {out}"
    )
    for trouble in spent["troubles"]:
        say(f"warning: {trouble}")
