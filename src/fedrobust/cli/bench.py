"""The command ``fedrobust bench``."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from fedrobust.cli.app import app, say, user_errors


@app.command()
def bench(
    quick: Annotated[
        bool, typer.Option("--quick", help="Fewer steps and turns, and small networks only.")
    ] = False,
    file: Annotated[
        Path | None, typer.Option("--json", help="Also write the figures to this new file.")
    ] = None,
) -> None:
    """Time the hot paths on this machine beside the plain way to do the same."""
    with user_errors():
        from fedrobust.bench.paths import hot_paths
        from fedrobust.bench.table import described, head, line
        from fedrobust.bench.turns import timed
        from fedrobust.files import require_new, written

        if file is not None:
            require_new(file)
        found, rows = described(), []
        say(head(found))
        for path in hot_paths(quick):
            rows.append(timed(path, 3 if quick else 5))
            say(line(rows[-1]))
        if file is not None:
            content = found | {"paths": [asdict(row) for row in rows]}
            written(file, json.dumps(content, indent=1) + "\n")
