"""Copy the finished cells of a sweep or a reproduction, without large models and checkpoints.

``python results/lean.py runs/table3 results/fat/table3`` copies what a page is made from: configs,
environments, metrics and summaries, and models of the ring, whose boundaries pages show. Cells
that are not finished are left out, and so are the validation scores of single users, which no page
of a finished cell shows. Files that are there already stay as they are. A sweep goes on from such a
copy: finished cells are not played again.
"""

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

METRICS = "metrics.jsonl"
RECORDS = ("config.yaml", "environment.json", METRICS, "summary.json")
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


def without_users(line: str) -> str:
    """Return an evaluation without the scores of single users."""
    content = json.loads(line)
    if "per_user" not in content:
        return f"{line}\n"
    del content["per_user"]
    return f"{json.dumps(content)}\n"


def main(source: Path, target: Path) -> None:
    """Copy what is not there yet; the records of the sweeps themselves are copied anew."""
    for path in records(source):
        there = target / path.relative_to(source)
        if path.name in WHOLE or not there.exists():
            there.parent.mkdir(parents=True, exist_ok=True)
            if path.name == METRICS:
                there.write_text("".join(map(without_users, path.read_text().splitlines())))
            else:
                shutil.copyfile(path, there)
            print(there)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
