"""The command ``fedrobust audit``."""

from fractions import Fraction
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from fedrobust.cli import completion
from fedrobust.cli.app import app, look_beside, say, tell_stopped, user_errors
from fedrobust.errors import ConfigError


@app.command("audit")
def audit_command(
    context: typer.Context,
    model: Annotated[
        str,
        typer.Argument(
            help="A run directory, a .safetensors file, or module:name.",
            autocompletion=completion.model,
        ),
    ],
    eps: Annotated[
        str | None,
        typer.Option(help="The radius, such as 0.3 or 8/255; a run knows its own."),
    ] = None,
    norm: Annotated[
        str | None,
        typer.Option(
            help="linf, which is the default, or l2; a run knows its own.",
            autocompletion=completion.one_of(*completion.NORMS),
        ),
    ] = None,
    claim: Annotated[
        str | None,
        typer.Option(
            help="The claim's PGD, as 20x2/255; if left out, a run's own, else 40 steps of eps/30."
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="The data set, by name, or a .npz of your own; a run knows its own.",
            autocompletion=completion.component("data"),
        ),
    ] = None,
    network: Annotated[
        str | None,
        typer.Option(
            "--model",
            help="The network of a .safetensors file, or of the surrogates.",
            autocompletion=completion.component("model"),
        ),
    ] = None,
    batch_norm: Annotated[
        str | None,
        typer.Option(
            help="How the BatchNorm of --model was treated; a run knows this.",
            autocompletion=completion.one_of(*completion.BATCH_NORMS),
        ),
    ] = None,
    budget: Annotated[
        str,
        typer.Option(
            help="quick, standard or full.",
            autocompletion=completion.one_of(*completion.BUDGETS),
        ),
    ] = "quick",
    samples: Annotated[int, typer.Option(help="Test examples, drawn at random.", min=1)] = 1000,
    seed: Annotated[
        int, typer.Option(help="The seed of examples and attacks.", min=0, max=2**63 - 1)
    ] = 0,
    batch: Annotated[int, typer.Option(help="Examples at a time.", min=1)] = 256,
    last: Annotated[bool, typer.Option("--last", help="A run's last model, not its best.")] = False,
    out: Annotated[
        Path | None, typer.Option(help="A new folder for the result and its page.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the audit there.")] = False,
    trust: Annotated[
        bool,
        typer.Option("--trust", help="Run code (module:name) that a run's config names."),
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 1 unless the verdict is genuine.")
    ] = False,
) -> None:
    """Check with a battery of attacks whether the robustness under plain PGD is real."""
    from fedrobust.display import AuditDisplay
    from fedrobust.report import write_report
    from fedrobust.runs.audit import Asked, audited
    from fedrobust.runs.own_audit import other_verdict

    with user_errors():
        look_beside()
        asked = Asked(
            where=model,
            eps=_radius(eps) if eps is not None else None,
            norm=norm,
            claim=claim,
            data=data,
            network=network,
            batch_norm=batch_norm,
            budget=budget,
            samples=samples,
            seed=seed,
            batch=batch,
            last=last,
            out=out,
            resume=resume,
            trust=trust,
        )
        display = AuditDisplay(Console(stderr=True))
        try:
            with display:
                found = audited(asked, display.progress)
        except KeyboardInterrupt as stop:
            if out is None:
                say("stopped; nothing was kept without --out", err=True)
            else:
                tell_stopped(context)
            raise typer.Exit(130) from stop
        say(str(found))
        kept = out is not None and (out / "audit.json").is_file()
        if out is not None and kept:
            say(f"page: {write_report([out])}")
        if out is None:
            say("nothing was written; for the record and its page: --out FOLDER")
        if other := other_verdict(found, asked.own(found)):
            say(f"two verdicts: {other}")
    if out is not None and not kept:
        raise typer.Exit(1)
    if strict and found.verdict != "genuine":
        raise typer.Exit(1)


def _radius(text: str) -> float:
    """Read a radius such as 0.3 or 8/255. Raises: ``ConfigError``."""
    try:
        value = float(Fraction(text))
    except (ValueError, OverflowError, ZeroDivisionError) as error:
        raise ConfigError(f"--eps is {text}; write a number such as 0.3 or 8/255") from error
    return value
