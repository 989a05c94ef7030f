"""Print what a run came to: as lines for a reader, or as JSON for a program."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer

from fedrobust.cli.app import say


def print_run(summary: Mapping[str, Any], directory: Path) -> None:
    """Print the scores on the test split, the audits, and where the records are."""
    chosen, final = summary["test"]["best"], summary["test"]["final"]
    split = (summary.get("validation") or {}).get("best", {}).get("split", "validation")
    models = ((f"chosen on {split}", chosen), ("final", final))
    for label, scores in models:
        say(
            f"round {scores['round']} ({label}): {scores['accuracy']:.2%} accurate, "
            f"{scores['robust_accuracy']:.2%} robust on {scores['examples']:,} test examples"
        )
    for label, scores in models[chosen["round"] == final["round"] :]:
        if found := scores.get("audit"):
            say(
                f"audit of the model of round {scores['round']} ({label}): "
                f"{found['verdict']}; plain PGD leaves {found['claimed']:.2%} of "
                f"{found['examples']:,} test examples standing, the whole battery "
                f"{found['robust']:.2%}"
            )
    say(f"records: {directory}")


def tell_doubts(summary: Mapping[str, Any], err: bool) -> None:
    """Print what makes the result doubtful; ``err`` where the result itself is not printed."""
    chosen, final = summary["test"]["best"], summary["test"]["final"]
    for scores in (chosen, final)[chosen["round"] == final["round"] :]:
        if scores.get("audit", {}).get("verdict") == "masked":
            say(
                f"warning: the robust accuracy of the model of round {scores['round']} is not "
                "real: the audit calls it masked",
                err,
            )
    for trouble in summary["troubles"]:
        say(f"warning: {trouble}", err)


def show_json(summary: Mapping[str, Any], directory: Path, page: Path | None) -> None:
    """Print {"directory", "page", "summary"}; ``summary`` is the content of summary.json."""
    from fedrobust.records.plain import plain_json

    content = {
        "directory": str(directory),
        "page": None if page is None else str(page),
        "summary": plain_json(summary, "summary")[0],
    }
    typer.echo(json.dumps(content, indent=1, allow_nan=False))
