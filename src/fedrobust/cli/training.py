"""The commands ``fedrobust run``, ``sweep`` and ``report``."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from fedrobust.cli import completion
from fedrobust.cli.app import (
    Address,
    AsJson,
    CellSettings,
    Jobs,
    On,
    OtherProcessor,
    Quiet,
    SlurmArgs,
    app,
    look_beside,
    say,
    tell_cells,
    tell_stopped,
    user_errors,
)
from fedrobust.cli.result import print_run, show_json, tell_doubts
from fedrobust.config.shelf import found
from fedrobust.errors import ConfigError


@app.command("run")
def run_command(
    context: typer.Context,
    config: Annotated[
        Path,
        typer.Argument(
            help="A YAML file, or an experiment of `fedrobust list experiments`.",
            autocompletion=completion.config,
        ),
    ],
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "-s",
            "--set",
            help="Override a key: aggregator.f=12. May be repeated.",
            autocompletion=completion.setting,
        ),
    ] = None,
    rounds: Annotated[
        int | None,
        typer.Option(
            help="As -s rounds=N. With --resume, a run of fewer rounds is extended.", metavar="N"
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The run directory to write; runs/NAME if left out.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run that is there.")
    ] = False,
    other_processor: OtherProcessor = False,
    no_report: Annotated[bool, typer.Option("--no-report", help="Write no page.")] = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Play one experiment, record it, and write its page."""
    from fedrobust.config.component import to_config
    from fedrobust.config.trust import Trusted
    from fedrobust.display import Display
    from fedrobust.experiment import load
    from fedrobust.runs.run import play

    with user_errors():
        config = found(config)
        look_beside(config)
        length = [] if rounds is None else [f"rounds={rounds}"]
        experiment = load(config, [*(settings or []), *length])
        directory = out or Path("runs") / experiment.name
        display = Display(Console(stderr=True, quiet=quiet))
        try:
            with display:
                result = play(
                    experiment,
                    directory,
                    resume,
                    other_processor=other_processor,
                    progress=display.progress,
                )
        except KeyboardInterrupt as stop:
            tell_stopped(context)
            raise typer.Exit(130) from stop
        if not (quiet or as_json):
            print_run(result.summary, directory)
        tell_doubts(result.summary, err=quiet or as_json)
        if result.unkept is not None:
            say(f"error: {result.unkept}; put that right, then go on with --resume", err=True)
            raise typer.Exit(1)
        page = None
        if not no_report:
            from fedrobust.report import write_report

            page = write_report([directory], trust=Trusted.of(to_config(experiment)))
            if not (quiet or as_json):
                say(f"page: {page}")
        if as_json:
            show_json(result.summary, directory, page)


@app.command("sweep")
def sweep_command(
    context: typer.Context,
    config: Annotated[
        Path,
        typer.Argument(
            help="A YAML file with a grid:, or an experiment of `fedrobust list experiments`.",
            autocompletion=completion.config,
        ),
    ],
    settings: CellSettings = None,
    out: Annotated[
        Path | None, typer.Option(help="The folder to write; runs/NAME if left out.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the sweep there.")] = False,
    other_processor: OtherProcessor = False,
    jobs: Jobs = None,
    on: On = "processes",
    address: Address = None,
    slurm_args: SlurmArgs = None,
    no_report: Annotated[bool, typer.Option("--no-report", help="Write no page.")] = False,
    quiet: Quiet = False,
) -> None:
    """Play every cell of a grid, here or on a cluster, and write its page."""
    from fedrobust.config.component import to_config
    from fedrobust.config.trust import Trusted
    from fedrobust.display import SweepDisplay
    from fedrobust.report import write_report
    from fedrobust.runs.grid import load_sweep
    from fedrobust.runs.launchers.choose import chosen
    from fedrobust.runs.sweep import run_sweep

    with user_errors():
        config = found(config)
        look_beside(config)
        launcher = chosen(on, address, slurm_args or [])
        sweep = load_sweep(config, settings or [])
        directory = out or Path("runs") / sweep.name
        display = SweepDisplay(Console(stderr=True, quiet=quiet), len(sweep.cells), directory)
        try:
            with display:
                failed = run_sweep(
                    sweep,
                    directory,
                    resume,
                    jobs=jobs,
                    other_processor=other_processor,
                    progress=display.progress,
                    on=launcher,
                )
        except KeyboardInterrupt as stop:
            tell_stopped(context)
            raise typer.Exit(130) from stop
        done = tell_cells(failed, len(sweep.cells), directory, quiet)
        if done and not no_report:
            named = Trusted.of(*(to_config(cell.experiment) for cell in sweep.cells))
            page = write_report([directory], trust=named)
            if not quiet:
                say(f"page: {page}")
    if failed:
        raise typer.Exit(1)


@app.command()
def report(
    runs: Annotated[
        list[Path],
        typer.Argument(
            help="A run, several to compare, a sweep, a reproduction, an audit, or a leaderboard."
        ),
    ],
    out: Annotated[Path | None, typer.Option(help="The folder of the report.")] = None,
    trust: Annotated[
        bool, typer.Option("--trust", help="Run code (module:name) that a sweep's configs name.")
    ] = False,
    latex: Annotated[
        bool, typer.Option("--latex", help="Write each table as LaTeX (booktabs) too.")
    ] = False,
    csv: Annotated[bool, typer.Option("--csv", help="Write each table as CSV too.")] = False,
    pdf: Annotated[
        bool, typer.Option("--pdf", help="Write each figure as PDF too, for a paper's column.")
    ] = False,
    width: Annotated[
        float | None,
        typer.Option(help="The width of the PDF figures in inches; 3.5 if left out.", metavar="IN"),
    ] = None,
) -> None:
    """Make one self-contained HTML page, and its figures as PNG and SVG."""
    from fedrobust.report import write_report

    with user_errors():
        if width is not None and not pdf:
            raise ConfigError("--width is the width of the PDF figures: add --pdf")
        drawn = pdf if width is None else width
        say(f"page: {write_report(runs, out, trust=trust, latex=latex, csv=csv, pdf=drawn)}")
