"""Find a config: a file of the user's, or an experiment that comes with fedrobust."""

from functools import cache
from pathlib import Path

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
