"""A protocol on the digits, its played cells, and results that were not played."""

from pathlib import Path
from typing import Any

from demo import demo_config
from ruamel.yaml import YAML

from fedrobust.records.leaderboard import sealed
from fedrobust.records.reading import shaped
from fedrobust.records.schema.leaderboard import ResultRecord


def protocol(path: Path) -> Path:
    """Write a protocol of two rules, two attacks and two seeds, whose cells take a second each."""
    config = demo_config(name="leaderboard-tiny", rounds=2)
    for key in ("malicious", "attack", "aggregator"):
        del config[key]
    config["evaluation"] |= {
        "every": 2,
        "samples": 20,
        "test_samples": 40,
        "audit": {"budget": "quick", "samples": 1, "test_samples": 10, "every": 9},
    }
    reversed_mean = {"name": "inner-product", "epsilon": 10.0}
    config["grid"] = {
        "rule": {
            "mean": {"aggregator": {"name": "mean"}},
            "krum": {"aggregator": {"name": "krum", "f": 2}},
        },
        "attack": {
            "none": {"malicious": 0},
            "reversed": {"malicious": 2, "attack": reversed_mean, "threat": {"benign": True}},
        },
        "seed": [0, 1],
    }
    written(path, config)
    return path


def written(path: Path, config: dict[str, Any]) -> None:
    """Write a config, its keys in order."""
    yaml = YAML(typ="safe", pure=True)
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    with path.open("w") as file:
        yaml.dump(config, file)


def made(
    rule: str, attack: str, robust: float, claimed: float | None = None, seed: int = 0, **more: Any
) -> ResultRecord:
    """A result that nobody played, under a protocol of three attacks."""
    knows = {"none": "own data", "flip": "own data", "mimic": "benign updates"}
    claimed = robust if claimed is None else claimed
    audit = {"budget": "quick", "examples": 100, "claimed": claimed, "robust": robust}
    content = {
        "protocol": {
            "name": "made",
            "digest": "0" * 64,
            "data": "digits",
            "attacks": knows,
            "settings": {"rounds": 2},
        },
        "rule": {"label": rule, "config": {"name": rule}, "root": 0, "knows_f": False},
        "attack": {"label": attack, "malicious": 0, "config": None, "threat": {}},
        "seed": seed,
        "clean": 0.9,
        "examples": 100,
        "audit": {**audit, "low": robust / 2, "high": (1 + robust) / 2, "verdict": "genuine"},
        "rounds": 2,
        "seconds": 1.0,
        "played": {"fedrobust": "0", "commit": None, "platform": "x", "device": "cpu"},
        "submitted_by": "a test",
        "run": "0" * 64,
    }
    return shaped(ResultRecord, sealed(content | more))
