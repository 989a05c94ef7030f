"""Time rounds of FAT on a GPU: 51 clients, by network, beside the plain loop on the same GPU.

    python benchmarks/gpu.py --out results/benchmarks/gpu.json

A row changes one thing against the first of its network. The plain loop trains one client after
another in float32. ``--table FILE`` prints the table of a stored file, and measures nothing.
"""

import sys
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import torch

from fedrobust.bench.paths import CIFAR, MNIST, fat_round
from fedrobust.bench.table import described, page
from fedrobust.bench.turns import HotPath, timed
from fedrobust.compute.execution import Execution, has_tf32
from fedrobust.models import CifarCnn, MnistCnn, MnistCnnSmall
from fedrobust.models.build import ModelSpec
from stored import command

NETWORKS: list[tuple[str, ModelSpec, tuple[int, ...], int]] = [
    ("small", MnistCnnSmall(), MNIST, 40),
    ("Madry's", MnistCnn(), MNIST, 40),
    ("CIFAR", CifarCnn(), CIFAR, 10),
]


def paths() -> Iterator[HotPath]:
    """Yield a round of each network in each form of the execution plan."""
    forms: dict[str, dict[str, Any]] = {
        "": {},
        ", one client after another": {"gradients": "autograd"},
        ", bfloat16": {"precision": "bfloat16"},
    }
    if has_tf32("cuda"):
        forms[", tf32"] = {"precision": "tf32"}
    for name, spec, shape, steps in NETWORKS:
        for form, changes in forms.items():
            plan = Execution(device="cuda", **changes)
            yield fat_round(spec, name + form, steps, shape, plan)


def measured(arguments: Namespace) -> dict[str, Any]:
    """Return all rows, and the machine."""
    if not torch.cuda.is_available():
        sys.exit("there is no GPU that PyTorch can use")
    content = described()
    content["paths"] = [asdict(timed(path, arguments.turns)) for path in paths()]
    return content


def main() -> None:
    """Measure or load, and print the table."""
    command(__doc__, measured, page, turns=3)


if __name__ == "__main__":
    main()
