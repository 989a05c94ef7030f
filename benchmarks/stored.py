"""The command line of a benchmark whose figures are stored and shown again as a table."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any


def command(
    doc: str | None,
    measured: Callable[[argparse.Namespace], dict[str, Any]],
    table: Callable[[dict[str, Any]], str],
    turns: int | None = None,
) -> None:
    """Measure and print the table; or, with ``--table FILE``, print it from a stored file.

    ``turns``, where given, is the default of the option ``--turns``.
    """
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    if turns is not None:
        parser.add_argument("--turns", type=int, default=turns)
    parser.add_argument("--out", type=Path, help="Also write the figures to this file.")
    parser.add_argument("--table", type=Path, help="Print the table of a stored file.")
    arguments = parser.parse_args()
    if arguments.table:
        print(table(json.loads(arguments.table.read_text("utf-8"))))
        return
    content = measured(arguments)
    print(table(content))
    if arguments.out:
        arguments.out.write_text(json.dumps(content, indent=1) + "\n", "utf-8")
