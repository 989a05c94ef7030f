"""What ``fedrobust list experiments`` says of the experiments that come with fedrobust."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fedrobust.config.shelf import experiments, shelf


def about(path: Path) -> str:
    """Return the first sentence of the comment at the top of a config."""
    lines = []
    for line in path.read_text("utf-8").splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").strip())
        if lines[-1].endswith((".", ":")):
            break
    text = " ".join(lines)
    return text.split(". ")[0].rstrip(".:")


def command(path: Path) -> str:
    """Return the command that plays a config: ``sweep`` if it has a grid, and else ``run``."""
    return "sweep" if re.search(r"(?m)^grid:", path.read_text("utf-8")) else "run"


def costs() -> dict[Path, str]:
    """Return what it costs to play a config, where that is known.

    A config says it in a line ``# Cost: ...``. The sweeps of a reproduction have the cost of all of
    them together.
    """
    known = {}
    for path in experiments().values():
        if told := re.search(r"(?m)^# Cost: (.+?)\.?$", path.read_text("utf-8")):
            known[path] = told[1]
    for folder, name, content in _definitions():
        if isinstance(content, str):
            continue  # a figure on the page of another reproduction
        for part in content["scales"].values():
            whole = f"{part['cost']} for all of {name}"
            known |= {folder / file: whole for file in part["sweeps"].values()}
    return known


def reproductions() -> list[str]:
    """Return the names of the published tables and figures that can be reproduced.

    ``fedrobust.runs.reproduce`` reads and checks the same definitions; it needs PyTorch.
    """
    return [name for _, name, _ in _definitions()]


def _definitions() -> Iterator[tuple[Path, str, Any]]:
    """Yield each definition of a reproduction, with its folder and its name."""
    from fedrobust.config.yaml import read_yaml  # takes a tenth of a second to import

    for path in sorted(shelf("experiments").glob("*/reproductions.yaml")):
        for name, content in read_yaml(path).items():
            yield path.parent, name, content
