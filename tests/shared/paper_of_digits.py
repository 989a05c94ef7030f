"""A paper of one table, whose two sweeps take seconds on the digits."""

import json
from pathlib import Path
from typing import Any

from demo import demo_config
from ruamel.yaml import YAML

PGD = {"name": "pgd", "eps": 0.15, "step_size": 0.05, "steps": 3}
PAPER = {
    "source": "a paper",
    "tables": {
        "table-1": {
            "title": "Digits",
            "setting": {"objective.attack.steps": 40},
            "rows": [
                {
                    "label": "plain",
                    "match": {"data.name": "digits", "attack": None},
                    "setting": {"client.batch_size": 16},
                    "accuracy": 50.0,
                    "robust_accuracy": 25.0,
                },
                {
                    "label": "attacked",
                    "match": {"data.name": "digits", "attack.name": "sign-flip"},
                    "setting": {"malicious": 5},
                    "accuracy": 40.0,
                    "robust_accuracy": 30.5,
                },
                {
                    "label": "on faces",
                    "match": {"data.name": "faces"},
                    "setting": {},
                    "accuracy": 1.0,
                },
            ],
        }
    },
}
TITLE = "A paper, Table 1"


def dump(content: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    YAML(typ="safe").dump(content, path)


def lay_out(root: Path) -> None:
    """Write the paper's figures and its reproduction, as fedrobust's own lie in a checkout."""
    base = demo_config(malicious=0, attack=None, aggregator={"name": "mean"}, rounds=3)
    base["evaluation"] = {"every": 1, "samples": 50, "test_samples": 50, "attack": PGD}
    attacked = {"malicious": 2, "attack": {"name": "sign-flip"}}
    dump(base | {"name": "one", "grid": {"seed": [0, 1]}}, root / "experiments/paper/one.yaml")
    dump(
        base | {"name": "two", "grid": {"cell": {"alone": {}, "flip": attacked}}},
        root / "experiments/paper/two.yaml",
    )
    part = {"sweeps": {"one": "one.yaml", "two": "two.yaml"}, "cost": "seconds"}
    scales = {"smoke": part | {"deviations": ["Digits, not faces."]}}
    content = {"title": TITLE, "paper": "paper", "table": "table-1", "scales": scales}
    dump(
        {"paper-table1": content, "paper-figure2": "paper-table1"},
        root / "experiments/paper/reproductions.yaml",
    )
    figures = root / "results/published/paper.json"
    figures.parent.mkdir(parents=True)
    figures.write_text(json.dumps(PAPER))
