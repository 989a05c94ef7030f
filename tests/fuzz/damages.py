"""What a disk or a hand may make of a record."""

import json
import os
import random
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from records import Originals

ODD: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 7, 10**6, 2**62, 10**30, -(10**30), 0.5, -0.5, 1e308, 1e-320),
    *("", "x", "x" * 3000, "../..", "\x00", "\ud800", "NaN", [], {}, [[]], [1, "x"], [None]),
    *({"a": 1}, {"name": None}, {"name": "krum"}, float("nan"), float("inf"), ["x"] * 300),
)


@dataclass(frozen=True)
class Damage:
    """One damage: to which file of which record, of what kind, and whether it can be told at all.

    A number that was turned into another number cannot, where nothing else says what it was.
    """

    record: str
    file: str
    kind: str
    telling: bool
    do: Callable[[Path], None]


def damages(originals: Originals, chance: random.Random) -> Damage:
    """One damage, drawn at random."""
    record = chance.choice(
        ["run", "run", "begun", "sweep", "audit", "progress", "policy", "training"]
    )
    files = sorted(
        str(path.relative_to(originals.folder / record))
        for path in (originals.folder / record).rglob("*")
        if path.is_file() and path.name != ".lock" and "report" not in path.parts
    )
    file = chance.choice(files)
    path = originals.folder / record / file
    kinds = ["cut", "empty", "turned", "inserted", "folder", "other", "removed", "link", "noise"]
    if path.suffix in (".json", ".jsonl", ".yaml"):
        kinds += ["value", "value", "value", "lost", "whole", "deep"]
    if path.suffix == ".jsonl":
        kinds += ["swapped", "doubled", "line", "cut"]
    if path.name == "checkpoint.pt":
        kinds += ["tensors"] * 4
    if os.geteuid() != 0:
        kinds.append("unreadable")
    kind = chance.choice(kinds)
    content, seed = path.read_bytes(), chance.random()
    telling = kind not in ("turned", "inserted", "value", "lost", "other")
    return Damage(record, file, kind, telling, _doing(kind, content, seed, originals))


def _doing(kind: str, content: bytes, seed: float, originals: Originals) -> Callable[[Path], None]:
    chance = random.Random(seed)

    def bytes_of() -> bytes:
        at = chance.randrange(len(content)) if content else 0
        if kind == "cut":
            return content[:at]
        if kind == "turned":
            turned = bytes(byte ^ (1 << chance.randrange(8)) for byte in content[at : at + 1])
            return content[:at] + turned + content[at + 1 :]
        if kind == "inserted":
            return content[:at] + chance.randbytes(1) + content[at:]
        if kind == "noise":
            return chance.randbytes(len(content))
        if kind == "other":
            others = [p for p in originals.folder.rglob("*") if p.is_file() and p.name != ".lock"]
            return chance.choice(sorted(others)).read_bytes()
        return b""

    def do(path: Path) -> None:
        if kind in ("removed", "folder", "link"):
            path.unlink()
        if kind == "folder":
            path.mkdir()
            (path / "mine.txt").write_text("mine")
        elif kind == "link":
            path.symlink_to(path.parent / "nowhere" / path.name)
        elif kind == "unreadable":
            path.chmod(0)
        elif kind in ("value", "lost", "whole", "deep"):
            path.write_bytes(_mutated(kind, path, chance))
        elif kind in ("swapped", "doubled", "line"):
            path.write_bytes(_lines(kind, content, chance))
        elif kind == "tensors":
            _retensored(path, chance)
        elif kind != "removed":
            path.write_bytes(bytes_of())

    return do


def _lines(kind: str, content: bytes, chance: random.Random) -> bytes:
    lines = content.splitlines(keepends=True) or [b"[3]\n"]
    i, j = chance.randrange(len(lines)), chance.randrange(len(lines))
    if kind == "swapped":
        lines[i], lines[j] = lines[j], lines[i]
    elif kind == "doubled":
        lines.insert(j, lines[i])
    else:
        del lines[i]
    return b"".join(lines)


def _mutated(kind: str, path: Path, chance: random.Random) -> bytes:
    if path.suffix == ".yaml":
        from ruamel.yaml import YAML

        whole = [YAML(typ="safe", pure=True).load(path)]
    else:
        lines = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
        whole = [json.loads(line) for line in lines]
    if not whole:  # a training keeps no log
        return b"[3]\n"
    at = chance.randrange(len(whole))
    if kind == "whole":
        whole[at] = chance.choice(ODD)
    elif kind == "deep":
        deep = "[" * 3000 + "]" * 3000 if chance.random() < 0.5 else "[" * 90 + "]" * 90
        return (f'{{"rounds": {deep}}}\n').encode()
    else:
        _change(whole[at], kind, chance)
    return "".join(f"{json.dumps(item)}\n" for item in whole).encode()


def _change(value: Any, kind: str, chance: random.Random) -> None:
    """Change or drop something at random depth."""
    places: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        keys = list(node) if isinstance(node, dict) else range(len(node))
        for key in keys:
            places.append((node, key))
            if isinstance(node[key], dict | list):
                walk(node[key])

    walk(value)
    if not places:
        return
    node, key = chance.choice(places)
    if kind == "lost":
        del node[key]
    else:
        node[key] = deepcopy(chance.choice(ODD))


def _retensored(path: Path, chance: random.Random) -> None:
    """A checkpoint with other shapes, types or keys, sealed as it was, or as before there were."""
    content = torch.load(path, weights_only=True)
    if chance.random() < 0.5:
        del content["seal"]
    change = chance.randrange(8)
    state = content["state"]
    vector = state["parameters"]
    if change == 0:
        state["parameters"] = vector[:-1]
    elif change == 1:
        state["parameters"] = vector.double()
    elif change == 2:
        content["best"] = content["best"].view(1, -1)
    elif change == 3:
        del content[chance.choice(["digest", "state", "metrics", "rounds", "best", "seconds"])]
    elif change == 4:
        content["extra"] = torch.zeros(3)
    elif change == 5:
        state["extra"] = 1
    elif change == 6:
        state["round"] = chance.choice([0, -1, 10**9, "x", None, 1.5])
    else:
        key = chance.choice(["digest", "state", "metrics", "rounds", "best", "seconds"])
        content[key] = chance.choice([None, 3, "x", [], {}, [3], torch.zeros(2)])
    torch.save(content, path)
