"""Copy the finished cells of a sweep or a reproduction, without large models and checkpoints.

``python results/lean.py runs/table3 results/fat/table3`` copies what a page is made from: configs,
environments, metrics and summaries, and models of the ring, whose boundaries pages show. Cells
that are not finished are left out, and files that are there already stay as they are. A sweep goes
on from such a copy: finished cells are not played again.
"""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

RECORDS = ("config.yaml", "environment.json", "metrics.jsonl", "summary.json")
MODEL, LARGE = "model.safetensors", 10_000
"""A model with more bytes than this is left out."""
WHOLE = ("sweep.json", "reproduction.json")


def records(folder: Path) -> Iterator[Path]:
    """Yield the records below ``folder`` that are copied."""
    for name in WHOLE:
        yield from folder.rglob(name)
    for summary in folder.rglob("cells/*/summary.json"):
        yield from (path for name in RECORDS if (path := summary.with_name(name)).exists())
        model = summary.with_name(MODEL)
        if model.exists() and model.stat().st_size <= LARGE:
            yield model


def main(source: Path, target: Path) -> None:
    """Copy what is not there yet; the records of the sweeps themselves are copied anew."""
    for path in records(source):
        there = target / path.relative_to(source)
        if path.name in WHOLE or not there.exists():
            there.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, there)
            print(there)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
