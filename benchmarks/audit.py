"""Time audits of three MNIST models: natural, adversarially trained, and distilled.

    python benchmarks/audit.py --out results/benchmarks/audit.json

This command audits each ``mnist-cnn-small`` (``subjects.py``) on 1,000 test images, on two threads,
with the budget ``quick``; ``--budget`` takes other budgets. Models are kept in ``--work``, as by
``agreement.py``. Measure when nothing else runs.
"""

import argparse
import json
import platform
import time
from pathlib import Path
from typing import Any

import torch

from fedrobust.evaluation import audit
from fedrobust.runs.provenance import commit
from subjects import EPS, RECIPES, tested, trained


def main() -> None:
    """Parse the arguments, measure, print and store."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=Path("runs/agreement"))
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--budget", default="quick")
    parser.add_argument("--out", type=Path, help="where to store the results as JSON")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    x, y = tested(options.samples)
    found: dict[str, Any] = {
        "budget": options.budget,
        "examples": len(x),
        "threads": options.threads,
        "commit": commit(),
        "platform": platform.platform(),
        "torch": torch.__version__,
        "rows": [],
    }
    for name, recipe in RECIPES.items():
        model, _ = trained(name, recipe, options.work / "models")
        began = time.monotonic(), time.process_time()
        said = audit(model, x, y, eps=EPS, budget=options.budget)
        row = {
            "model": name,
            "seconds": round(time.monotonic() - began[0], 1),
            "cpu seconds": round(time.process_time() - began[1], 1),
            "verdict": said.verdict,
            "clean": said.clean,
            "claimed": said.claimed,
            "robust": said.robust,
            "attacks": {taken.name: round(taken.seconds, 1) for taken in said.taken},
        }
        print(row, flush=True)
        found["rows"].append(row)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
