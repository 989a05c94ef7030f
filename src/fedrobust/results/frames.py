"""Turn records into pandas tables, where pandas is installed."""

from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from fedrobust.errors import ConfigError

if TYPE_CHECKING:
    import pandas as pd

_BY_USER = {"per_user", "per_client"}


def frame(rows: Sequence[Mapping[str, Any]]) -> "pd.DataFrame":
    """Return a table with one line for each of ``rows``.

    Raises: ``ConfigError`` where pandas is not installed.
    """
    try:
        pandas = import_module("pandas")
    except ModuleNotFoundError as error:
        raise ConfigError(
            "tables need pandas: pip install 'fedrobust[notebook]', or read .metrics"
        ) from error
    found: pd.DataFrame = pandas.DataFrame(list(rows))
    return found


def flat(record: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the single values of a record, nested ones with dotted keys: ``audit.robust``.

    Lists are left out, and so are the scores by user or client, which may be thousands.
    """
    for key, value in record.items():
        if isinstance(value, Mapping):
            if key not in _BY_USER:
                yield from flat(value, f"{before}{key}.")
        elif not isinstance(value, list | tuple):
            yield f"{before}{key}", value
