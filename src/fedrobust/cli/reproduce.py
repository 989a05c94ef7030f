"""The command ``fedrobust reproduce``."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from fedrobust.cli import completion
from fedrobust.cli.app import (
    Address,
    CellSettings,
    Jobs,
    On,
    OtherProcessor,
    SlurmArgs,
    app,
    look_beside,
    say,
    tell_cells,
    user_errors,
)


@app.command("reproduce")
def reproduce_command(
    name: Annotated[
        str | None,
        typer.Argument(
            help="Such as fat-table3; left out: all that there are.",
            autocompletion=completion.reproduction,
        ),
    ] = None,
    scale: Annotated[
        str,
        typer.Option(
            help="smoke (seconds to minutes), cpu, or paper (for a GPU).",
            autocompletion=completion.one_of(*completion.SCALES),
        ),
    ] = "smoke",
    settings: CellSettings = None,
    out: Annotated[
        Path | None, typer.Option(help="The folder to write; runs/NAME-SCALE if left out.")
    ] = None,
    other_processor: OtherProcessor = False,
    jobs: Jobs = None,
    on: On = "processes",
    address: Address = None,
    slurm_args: SlurmArgs = None,
) -> None:
    """Play a published table or figure, and put ours beside it; goes on where it was stopped."""
    from fedrobust.display import SweepDisplay
    from fedrobust.report import write_report
    from fedrobust.runs.launchers.choose import chosen
    from fedrobust.runs.reproduce import known, load_reproduction, reproduce, told

    with user_errors():
        if name is None:
            say(told(known()))
            return
        look_beside()
        launcher = chosen(on, address, slurm_args or [])
        found = load_reproduction(name, scale, settings or [])
        directory = out or Path("runs") / f"{found.name}-{scale}"
        cells = sum(len(sweep.cells) for sweep in found.sweeps.values())
        display = SweepDisplay(Console(stderr=True), cells, directory)
        try:
            with display:
                failed = reproduce(
                    found,
                    directory,
                    jobs=jobs,
                    other_processor=other_processor,
                    progress=display.progress,
                    on=launcher,
                )
        except KeyboardInterrupt as stop:
            say(f"stopped; the same command goes on in {directory}", err=True)
            raise typer.Exit(130) from stop
        if tell_cells(failed, cells, directory):
            say(f"page: {write_report([directory])}")
    if failed:
        raise typer.Exit(1)
