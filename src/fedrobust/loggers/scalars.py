"""What a logger takes from a run: single numbers and settings with dotted names."""

from collections.abc import Mapping
from dataclasses import asdict
from importlib import import_module
from typing import Any

from fedrobust.config.component import to_config
from fedrobust.errors import ConfigError
from fedrobust.experiment import Experiment
from fedrobust.results.frames import flat
from fedrobust.results.run import Run


def scalars(record: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of an evaluation or of a score; nested ones as ``audit.robust``."""
    return {
        key: float(value)
        for key, value in flat(record)
        if isinstance(value, int | float) and key != "round"
    }


def settings(experiment: Experiment) -> dict[str, Any]:
    """Return the settings of an experiment with dotted names: ``client.optimizer.lr``."""
    return dict(flat(to_config(experiment)))


def ended(run: Run) -> dict[str, float]:
    """Return the test scores of the chosen and of the last model, as ``test.best.accuracy``."""
    test = run.summary.test
    if test is None:
        return {}
    found = {"best_round": float(run.summary.best_round)}
    for name, score in (("best", test.best), ("final", test.final)):
        found |= {f"test.{name}.{key}": value for key, value in scalars(asdict(score)).items()}
    return found


def imported(module: str, package: str) -> Any:
    """Import the library of a logger. Raises: ``ConfigError`` where it is not installed."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"this logger needs {package}: pip install {package}, or pip install "
            "'fedrobust[loggers]' for all three"
        ) from error
