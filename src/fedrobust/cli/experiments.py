"""Find a config: a file of the user's, or an experiment that comes with fedrobust."""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from fedrobust.config.shelf import shelf
from fedrobust.config.text import quoted, suggestion
from fedrobust.errors import ConfigError


@cache
def experiments() -> dict[str, Path]:
    """Return the configs that come with fedrobust, by names such as ``fat/recipe``."""
    root = shelf("experiments")
    return {
        path.relative_to(root).with_suffix("").as_posix(): path
        for path in sorted(root.rglob("*.yaml"))
        if path.stem != "reproductions"
    }


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


def found(config: Path) -> Path:
    """Return the file of ``config``: a path, or the name of an experiment such as ``fat/recipe``.

    A file of the user's goes before an experiment of the same name. The path of an experiment in
    the repository, ``experiments/fat/recipe.yaml``, finds it too where there is no repository.

    Raises: ``ConfigError`` where there is neither.
    """
    if not config.is_dir() and (config.exists() or config.is_symlink()):
        return config
    name = config.as_posix().removesuffix(".yaml").removeprefix("experiments/")
    known = experiments()
    if name in known:
        return known[name]
    if config.is_dir():
        return config  # whoever reads it says so
    raise ConfigError(
        f"there is no file {config}, and no experiment {quoted(name)} comes with fedrobust"
        f"{suggestion(name, list(known))}; `fedrobust list experiments` names them, and "
        "`fedrobust init` writes a config to begin with"
    )
