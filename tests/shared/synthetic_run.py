"""Run directories as a training run leaves them, made up in milliseconds."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from ruamel.yaml import YAML

PGD = {"name": "pgd", "norm": "linf", "eps": 0.3, "step_size": 0.01, "steps": 40}


def config(name: str = "mnist-bulyan-alie", **changes: Any) -> dict[str, Any]:
    return {
        "name": name,
        "seed": 0,
        "rounds": 500,
        "data": {"name": "mnist", "validation": 5000},
        "partition": {"name": "iid", "clients": 51},
        "model": {"name": "mnist-cnn-small"},
        "objective": {"name": "adversarial", "ratio": 0.5, "attack": PGD},
        "client": {
            "batch_size": 64,
            "batches": 1,
            "optimizer": {"name": "adam", "lr": 0.005},
            "keep_optimizer": True,
        },
        "participation": {"name": "all"},
        "malicious": 12,
        "attack": {"name": "a-little-is-enough", "k": -1.0},
        "threat": {"name": "threat", "colluders": True, "benign": False, "rule": False},
        "aggregator": {"name": "bulyan", "f": 12},
        "server": {"lr": 1.0},
        "evaluation": {"every": 25, "samples": 1000, "split": "validation", "attack": PGD},
        "execution": {"threads": 2},
    } | changes


def make_run(
    path: Path,
    *,
    seed: int = 0,
    top: float = 0.72,
    kept_share: float | None = 0.3,
    per_round: int | None = None,
    users: int = 0,
    per_client: dict[str, dict[str, float]] | None = None,
    finished: bool = True,
    pictures: tuple[int, int] | None = (1, 28),
    dropped: dict[int, list[int]] | None = None,
    idle: dict[int, str] | None = None,
    notes: tuple[str, ...] = (
        "60,000 examples leave 24 over for 51 equal parts; they are unused.",
    ),
    **changes: Any,
) -> Path:
    """Write a run whose robust accuracy rises to ``top``.

    The rule keeps 27 rows a round, or half of those sent, a malicious one with probability
    ``kept_share``; None is a rule that does not select.
    """
    rng = np.random.default_rng(seed)
    content = config(**changes)
    path.mkdir(parents=True)
    with (path / "config.yaml").open("w", encoding="utf-8") as file:
        YAML().dump(content, file)
    clients, bad = content["partition"].get("clients", 51), content["malicious"]
    last = content["rounds"] if finished else int(content["rounds"] * 0.65)
    evaluations = [
        _evaluation(rng, r, r / content["rounds"], top, users)
        for r in range(content["evaluation"]["every"], last + 1, content["evaluation"]["every"])
    ]
    rounds = []
    for r in range(1, last + 1):
        present = range(clients) if per_round is None else rng.choice(clients, per_round, False)
        evil = [int(c) for c in present if c < bad]
        good = [int(c) for c in present if c >= bad]
        wanted = 27 if per_round is None else (per_round + 1) // 2
        fading = 0 if kept_share is None else kept_share * (1.6 - 1.2 * r / last)
        chosen = [c for c in evil if rng.random() < min(1, fading * (0.6 + 0.8 * c / max(bad, 1)))]
        chosen += good[: max(0, wanted - len(chosen))]
        stopped = (idle or {}).get(r)
        rounds.append(
            {
                "round": r,
                "participants": None if per_round is None else sorted(int(c) for c in present),
                "malicious": evil,
                "kept": None if kept_share is None or stopped else sorted(chosen),
                "dropped": (dropped or {}).get(r, []),
                "applied": stopped is None,
                "reason": stopped,
            }
        )
    _lines(path / "metrics.jsonl", evaluations)
    _lines(path / "rounds.jsonl", rounds)
    environment = {"fedrobust": "0.1.0", "python": "3.11.9", "torch": "2.13.0", "commit": None}
    environment |= {"platform": "Linux-6.1-x86_64", "cores": 2, "threads": 2}
    (path / "environment.json").write_text(json.dumps(environment), encoding="utf-8")
    if finished:
        best = max(evaluations, key=lambda e: e["robust_accuracy"])
        scores = {
            which: {
                "accuracy": e["accuracy"] - 0.006,
                "robust_accuracy": max(0, e["robust_accuracy"] - 0.011),
                "examples": 10000,
            }
            | ({"per_client": per_client} if per_client else {})
            for which, e in (("best", best), ("final", evaluations[-1]))
        }
        summary = {
            "rounds": last,
            "clients": clients,
            "parameters": 166406,
            "notes": list(notes),
            "best_round": best["round"],
            "seconds": 2.6 * last,
            "threat": "knows: the colluders' honest updates; does not know: benign updates, the "
            "server's rule, the number of clients",
            "test": scores,
        }
        (path / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    if pictures:
        np.savez(path / "examples.npz", **_pictures(rng, *pictures))
    return path


def _evaluation(
    rng: np.random.Generator, r: int, progress: float, top: float, users: int
) -> dict[str, Any]:
    rise = 1 - np.exp(-4 * progress)
    late = 0.15 * max(0, progress - 0.88)
    robust = float(np.clip(top * rise**2 - late + rng.normal(0, 0.012), 0, 1))
    accuracy = float(np.clip(0.96 - 0.75 * np.exp(-9 * progress) + rng.normal(0, 0.004), 0, 1))
    found = {"round": r, "accuracy": accuracy, "robust_accuracy": robust, "loss": 1 - robust}
    found |= {"examples": 1000, "split": "validation", "seconds": 2.6 * r}
    found |= {"kept": None, "malicious_kept": None}
    if users:
        count = rng.integers(8, 60, users)
        skill = rng.normal(0, 0.4, users)
        clean = np.clip(accuracy - 0.1 + 0.15 * skill + rng.normal(0, 0.04, users), 0, 1)
        firm = np.clip(robust - 0.1 + 0.28 * skill + rng.normal(0, 0.07, users), 0, 1)
        name = [f"f{i:04d}" for i in range(users)]
        found["per_user"] = {
            "accuracy": dict(zip(name, np.round(clean * count) / count, strict=True)),
            "robust_accuracy": dict(zip(name, np.round(firm * count) / count, strict=True)),
            "examples": dict(zip(name, count.tolist(), strict=True)),
        }
    return found


def _pictures(rng: np.random.Generator, channels: int, side: int) -> dict[str, np.ndarray]:
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    clean = np.empty((8, channels, side, side), np.float32)
    for i in range(8):
        angle = np.pi * i / 8
        stroke = np.abs(x * np.sin(angle) + y * np.cos(angle)) < 0.16
        clean[i] = (stroke & (x**2 + y**2 < 0.6)) * rng.uniform(0.7, 1, (channels, 1, 1))
    noise = 0.3 * np.sign(rng.normal(size=clean.shape))
    labels = np.arange(8)
    fooled = np.where(np.arange(8) % 3 == 1, (labels + 3) % 8, labels)
    return {
        "clean": clean,
        "adversarial": np.clip(clean + noise, 0, 1).astype(np.float32),
        "labels": labels,
        "clean_answers": labels.copy(),
        "adversarial_answers": fooled,
    }


def _lines(path: Path, entries: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries), encoding="utf-8")
