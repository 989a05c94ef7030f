"""The command ``fedrobust audit``."""

import shlex
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from fedrobust.cli.app import app, look_beside, say, user_errors

if TYPE_CHECKING:
    from fedrobust.runs.audit import Asked


@app.command("audit")
def audit_command(
    model: Annotated[
        str, typer.Argument(help="A run directory, a .safetensors file, or module:name.")
    ],
    eps: Annotated[
        str | None,
        typer.Option(help="The radius, such as 0.3 or 8/255; a run knows its own."),
    ] = None,
    norm: Annotated[
        str | None, typer.Option(help="linf, which is the default, or l2; a run knows its own.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="The data set, by name; a run knows its own.")
    ] = None,
    network: Annotated[
        str | None,
        typer.Option("--model", help="The network of a .safetensors file, or of the surrogates."),
    ] = None,
    batch_norm: Annotated[
        str | None,
        typer.Option(help="How the BatchNorm of --model was treated; a run knows this."),
    ] = None,
    budget: Annotated[str, typer.Option(help="quick, standard or full.")] = "quick",
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
    from fedrobust.runs.audit import Asked, audited, radius

    with user_errors():
        look_beside()
        asked = Asked(
            where=model,
            eps=radius(eps) if eps is not None else None,
            norm=norm,
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
            then = f"go on with: {_again(asked)}" if out else "nothing was kept without --out"
            say(f"stopped; {then}", err=True)
            raise typer.Exit(130) from stop
        say(str(found))
        kept = out is not None and (out / "audit.json").is_file()
        if out is not None and kept:
            say(f"page: {write_report([out])}")
        if out is None:
            say("nothing was written; for the record and its page: --out FOLDER")
    if out is not None and not kept:
        raise typer.Exit(1)
    if strict and found.verdict != "genuine":
        raise typer.Exit(1)


def _again(asked: "Asked") -> str:
    """Return the command that goes on with an audit: every option that is not the default."""
    words = ["fedrobust", "audit", asked.where]
    for option in fields(asked):
        value, name = getattr(asked, option.name), option.name.replace("_", "-")
        if option.name in ("where", "resume") or value == option.default:
            continue
        name = "model" if name == "network" else name
        words += [f"--{name}"] if value is True else [f"--{name}", str(value)]
    return shlex.join([*words, "--resume"])
