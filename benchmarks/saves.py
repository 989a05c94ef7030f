"""Time the saves of a run with many rounds: 1,000 of 3,500 clients a round, a save every 25 rounds.

    python benchmarks/saves.py

This command prints the median of the first ten saves and of the last ten. Both should be alike,
since the log of the rounds is only appended to.
"""

import random
import statistics
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import torch

from fedrobust.runs.directory import RunDirectory
from fedrobust.runs.rounds_log import RoundsLog
from fedrobust.runs.tally import Tally

EVERY, CLIENTS, PARTICIPANTS = 25, 3500, 1000


def saves(rounds: int, folder: Path) -> list[float]:
    """Return the seconds of each save in a run of so many rounds."""
    directory, log, tally = RunDirectory(folder, resume=False), RoundsLog(), Tally()
    chance, found = random.Random(0), []
    for round in range(1, rounds + 1):
        chosen = sorted(chance.sample(range(CLIENTS), PARTICIPANTS))
        line = {
            "round": round,
            "participants": chosen,
            "malicious": chosen[:100],
            "kept": chosen,
            "dropped": [],
            "applied": True,
            "reason": None,
            "projected": False,
        }
        log.add(line)
        tally.add(line)
        if round % EVERY == 0:
            began = time.perf_counter()
            log.write(folder, directory.set_aside)
            content = {
                "log": log.extent.plain(),
                "tally": asdict(tally),
                "best": torch.zeros(10**5),
            }
            directory.save_checkpoint(content)
            found.append(time.perf_counter() - began)
    return found


if __name__ == "__main__":
    for rounds in (500, 5000):
        with tempfile.TemporaryDirectory() as folder:
            times = saves(rounds, Path(folder) / "run")
            size = (Path(folder) / "run" / "rounds.jsonl").stat().st_size / 1e6
        first, last = (1e3 * statistics.median(part) for part in (times[:10], times[-10:]))
        print(f"{rounds} rounds: {first:.1f} ms, then {last:.1f} ms; a log of {size:.0f} MB")
