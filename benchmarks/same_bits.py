"""Whether this checkout computes the same bits as another one, such as an earlier commit's.

    git worktree add ../before COMMIT
    python benchmarks/same_bits.py ../before [--only NAME ...]

It plays the demo and one cell of each committed sweep in both checkouts, under the execution plan
that the other one chose, and compares the parameters, every evaluation, every round and the
summary, but for seconds. Cells that take many minutes play fewer rounds. It prints a line for each,
and ends with 1 where one differs.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent.parent

# The config, the cell (None: no sweep), and what is set to make it shorter.
CASES: dict[str, tuple[str, str | None, dict[str, Any]]] = {
    "demo": ("experiments/demo.yaml", None, {}),
    "byzantine": ("experiments/byzantine/digits.yaml", "mixed-trimmed-mean-searched-a-little", {}),
    "ring-optimized": (
        "experiments/drfl/ring-smoke.yaml",
        "median-none-0",
        {
            "malicious": 2,
            "attack": {
                "name": "optimized",
                "attack": {"name": "inner-product", "epsilon": 1.0},
                "grid": 3,
                "refine": 2,
            },
            "threat": {"clients": True, "rule": True},
        },
    ),
    "ring": ("experiments/drfl/ring.yaml", "krum-fang-0", {}),
    "ring-margin": ("experiments/drfl/ring-margin.yaml", "krum-fang-2", {}),
    "ring-beyond": ("experiments/drfl/ring-beyond.yaml", "non-iid-learned-0", {}),
    "ring-early": ("experiments/drfl/ring-early.yaml", "krum-fang-4", {}),
    "ring-learned": ("experiments/drfl/ring-learned.yaml", "none-learned-4", {}),
    "ring-learners": ("experiments/drfl/ring-learners.yaml", "cross-entropy-2", {}),
    "ring-splits": ("experiments/drfl/ring-splits.yaml", "fair-1-32-2", {}),
    "mnist": ("experiments/drfl/mnist.yaml", "krum-fang-0", {"rounds": 12}),
    "mnist-splits": ("experiments/drfl/mnist-splits.yaml", "5-to-9-8-0", {"rounds": 30}),
    "mnist-learned": (
        "experiments/drfl/mnist-learned.yaml",
        "krum-zero-late-1",
        {"rounds": 14, "attack.start": 8},
    ),
    "mnist-learned-rest": (
        "experiments/drfl/mnist-learned-rest.yaml",
        "median-fang-late-0",
        {"rounds": 14, "attack.start": 8},
    ),
    "fat-distillation": (
        "experiments/fat/mnist-krum-distillation.yaml",
        "bulyan",
        {"rounds": 8, "attack.start": 5, "evaluation.test_samples": 200},
    ),
    "fat-mean": (
        "experiments/fat/mnist-mean-quick.yaml",
        "1",
        {"rounds": 8, "evaluation.test_samples": 200},
    ),
}
FILES = ("model.safetensors", "best.safetensors", "metrics.jsonl", "rounds.jsonl", "summary.json")


def main() -> int:
    """Play the cases in both checkouts. Returns: 1 where one differs, else 0."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("other", type=Path)
    parser.add_argument("--only", nargs="*", choices=CASES)
    asked = parser.parse_args()
    differing = 0
    for name in asked.only or CASES:
        with tempfile.TemporaryDirectory() as folder:
            before = played(asked.other.resolve(), name, Path(folder) / "before", None)
            plan = Path(folder) / "before" / "config.yaml"
            after = played(HERE, name, Path(folder) / "after", plan)
        wrong = [file for file in FILES if before[file] != after[file]]
        differing += bool(wrong)
        same = f"the same bits {after[FILES[0]][:12]}"
        told = f"differs in {', '.join(wrong)}" if wrong else same
        print(f"{name:20} {told}", flush=True)
    return int(differing > 0)


def played(checkout: Path, name: str, out: Path, plan: Path | None) -> dict[str, str]:
    """Digests of what the case recorded, played by the code of ``checkout``."""
    path, cell, changes = CASES[name]
    environment = os.environ | {"PYTHONPATH": str(checkout / "src")}
    arguments = [str(HERE / path), cell or "", json.dumps(changes), str(out), str(plan or "")]
    subprocess.run([sys.executable, "-c", PLAY, *arguments], env=environment, check=True)
    return {file: _digest(out / file) for file in FILES}


def _digest(path: Path) -> str:
    content = path.read_bytes()
    if path.suffix == ".json":
        content = _timeless(json.loads(content))
    elif path.suffix == ".jsonl":
        content = b"\n".join(_timeless(json.loads(line)) for line in content.splitlines())
    return hashlib.sha256(content).hexdigest()


def _timeless(value: Any) -> bytes:
    def without(node: Any) -> Any:
        if isinstance(node, dict):
            return {k: without(v) for k, v in node.items() if k != "seconds"}
        return [without(item) for item in node] if isinstance(node, list) else node

    return json.dumps(without(value), sort_keys=True).encode()


PLAY = """
import sys, json
from pathlib import Path
try:
    from fedrobust.runs.grid import load_sweep
    from fedrobust.runs.run import run
    from fedrobust.config.component import from_config
except ImportError:  # before the packages of the flow
    from fedrobust.grid import load_sweep
    from fedrobust.training import run
    from fedrobust.component import from_config
from fedrobust.experiment import Experiment, read_yaml
path, cell, changes, out, plan = sys.argv[1:]
if cell:
    config = {each.name: each.config for each in load_sweep(path).cells}[cell]
else:
    config = read_yaml(Path(path))
for key, value in json.loads(changes).items():
    *above, last = key.split(".")
    node = config
    for step in above:
        node = node[step]
    node[last] = value
if plan:
    config["execution"] = read_yaml(Path(plan))["execution"]
run(from_config(Experiment, config), out)
"""

if __name__ == "__main__":
    sys.exit(main())
