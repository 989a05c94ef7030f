"""The experiments and figures that come with fedrobust: where they lie, and their names."""

from functools import cache
from pathlib import Path

from fedrobust.config.text import quoted, suggestion
from fedrobust.errors import ConfigError

_PACKAGED = Path(__file__).parents[1] / "shelf"
_CHECKOUT = Path(__file__).parents[3]


def shelf(*below: str) -> Path:
    """Return a path below the committed experiments and results that come with fedrobust.

    In an installed package they lie in its folder ``shelf``, and in a checkout at its root.
    """
    root = _PACKAGED if _PACKAGED.is_dir() else _CHECKOUT
    return root.joinpath(*below)


@cache
def experiments() -> dict[str, Path]:
    """Return the configs that come with fedrobust, by names such as ``fat/recipe``."""
    root = shelf("experiments")
    return {
        path.relative_to(root).with_suffix("").as_posix(): path
        for path in sorted(root.rglob("*.yaml"))
        if path.stem != "reproductions"
    }


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
