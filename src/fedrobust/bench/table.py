"""The table of a measurement, as Markdown, and the machine that it was made on."""

import platform
from importlib.metadata import version
from typing import Any

import torch

from fedrobust.bench.turns import Timed, product_rate
from fedrobust.compute.execution import default_device, processor
from fedrobust.compute.units import workers
from fedrobust.runs.provenance import commit

_COLUMNS = ("path", "a second", "plain / ours", "of the product", "memory")
_MEGABYTE = 2**20


def described() -> dict[str, Any]:
    """Return the machine and the versions of a measurement."""
    return {
        "fedrobust": version("fedrobust"),
        "commit": commit(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": processor(default_device()),
        "workers": workers(),
        "product": max(product_rate() for _ in range(3)),
    }


def head(found: dict[str, Any]) -> str:
    """Return what the table is about, and its head."""
    return (
        f"{found['processor']}, {found['workers']} workers, torch {found['torch']}; a float32 "
        f"product of 2048³ on one core: {found['product'] / 1e9:.0f} GFLOP/s. "
        f"Commit {(found['commit'] or 'unknown')[:9]}.\n\n"
        f"| {' | '.join(_COLUMNS)} |\n|{'---|' * len(_COLUMNS)}"
    )


def page(content: dict[str, Any]) -> str:
    """Return the table of a stored measurement."""
    rows = [line(Timed(**row)) for row in content["paths"]]
    return "\n".join([head(content), *rows])


def line(row: Timed) -> str:
    """Return one row of the table."""
    ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
    share = "" if row.share is None else f"{row.share:.0%}"
    memory = "" if row.memory is None else f"{row.memory / _MEGABYTE:.0f} MB"
    return f"| {row.name} | {row.rate:,.3g} {row.per} | {ratio} | {share} | {memory} |"
