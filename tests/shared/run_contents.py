"""Everything that a run leaves, to compare two runs."""

import json
from pathlib import Path
from typing import Any

import numpy as np

MADE = ("config.yaml", "metrics.jsonl", "rounds.jsonl", "summary.json", "examples.npz")


def contents(directory: Path) -> dict[str, Any]:
    """Everything a run made, without the seconds it took."""
    found: dict[str, Any] = {}
    for name in (*MADE, "model.safetensors", "best.safetensors"):
        content = (directory / name).read_bytes()
        if name.endswith((".json", ".jsonl")):
            lines = content.decode().splitlines() if name.endswith("l") else [content.decode()]
            found[name] = [without_seconds(json.loads(line)) for line in lines]
        elif name.endswith(".npz"):
            with np.load(directory / name) as arrays:
                found[name] = {key: arrays[key].tobytes() for key in arrays.files}
        else:
            found[name] = content
    return found


def without_seconds(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: without_seconds(v) for k, v in value.items() if k != "seconds"}
    return [without_seconds(v) for v in value] if isinstance(value, list) else value
