"""The command ``fedrobust reproduce``."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from fedrobust.cli.app import OtherProcessor, app, say, user_errors


@app.command("reproduce")
def reproduce_command(
    name: Annotated[
        str | None, typer.Argument(help="Such as fat-table3; left out: all that there are.")
    ] = None,
    scale: Annotated[
        str, typer.Option(help="smoke (seconds to minutes), cpu, or paper (for a GPU).")
    ] = "smoke",
    settings: Annotated[
        list[str] | None,
        typer.Option("-s", "--set", help="Override a key of every cell. May be repeated."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The folder to write; runs/NAME-SCALE if left out.")
    ] = None,
    other_processor: OtherProcessor = False,
    jobs: Annotated[
        int | None, typer.Option(help="Cells at a time; as many as cores if left out.", min=1)
    ] = None,
) -> None:
    """Play a published table or figure, and put ours beside it; goes on where it was stopped."""
    from fedrobust.cli.progress import SweepDisplay
    from fedrobust.report import write_report
    from fedrobust.runs.reproduce import known, load_reproduction, reproduce, told

    with user_errors():
        if name is None:
            say(told(known()))
            return
        found = load_reproduction(name, scale, settings or [])
        directory = out or Path("runs") / f"{found.name}-{scale}"
        cells = sum(len(sweep.cells) for sweep in found.sweeps.values())
        display = SweepDisplay(Console(stderr=True), cells)
        try:
            with display:
                failed = reproduce(
                    found,
                    directory,
                    jobs=jobs,
                    other_processor=other_processor,
                    progress=display.progress,
                )
        except KeyboardInterrupt as stop:
            say(f"stopped; the same command goes on in {directory}", err=True)
            raise typer.Exit(130) from stop
        for cell, reason in failed.items():
            say(f"failed: {cell}: {reason}", err=True)
        say(f"{cells - len(failed)} of {cells} cells are done; records: {directory}")
        if cells > len(failed):
            say(f"report: {write_report([directory])}")
    if failed:
        raise typer.Exit(1)
