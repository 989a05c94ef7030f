"""Plays commands with a fault at each of their writes, and says what became of them.

    PYTHONPATH=tests/shared python tests/runs/kills/play.py FOLDER COMMAND=POINTS ...

POINTS is how many of the writes are tried, spread over their kinds, or all.

Each trial is a process that is forked from this one, which has imported what the command uses and
computed nothing. A killed command is gone on with; what it leaves must be what an undisturbed one
leaves, file by file. Prints JSON: how many writes each command has, how many were tried, and what
differed.
"""

import contextlib
import json
import mmap
import os
import shutil
import struct
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from commands import COMMANDS, Command
from faults import FREEING, Faults

from fedrobust.errors import UserError

BEGINS = (
    "run",
    "audit",
    ".lock",
    "config.yaml.part",
    "environment.json.part",
    ".progress.jsonl.part",
)
"""What a command must write before it begins; where it cannot, nothing is lost."""

Point = tuple[int, str, str]
"""Its number, what is done there, and to which file."""


def forked(act: Callable[[], object], said: Path) -> int:
    """How a process that does this ends: 0, 2 for a user's error, 1 for any other, -9 if killed.

    What it prints as errors is in ``said``.
    """
    sys.stdout.flush()
    if (child := os.fork()) == 0:
        os.setsid()
        os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
        warnings.simplefilter("always")
        code = 1
        try:
            act()
            code = 0
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            code = 2
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    with contextlib.suppress(ProcessLookupError):
        for _ in range(500):  # whatever it had forked dies with it, perhaps a moment later
            os.killpg(child, 0)
            time.sleep(0.01)
    return code


class Counter:
    """Counts in all processes that are forked after it was made, and keeps what it counted."""

    def __init__(self, log: Path | None = None) -> None:
        self._shared = mmap.mmap(-1, 8)
        self._log = None if log is None else os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def __call__(self, call: str, name: str) -> int:
        number = struct.unpack("q", self._shared[:8])[0] + 1
        self._shared[:8] = struct.pack("q", number)
        if self._log is not None:
            os.write(self._log, f"{number}\t{call}\t{name}\n".encode())
        return int(number)


def points(command: Command, place: Path) -> list[Point]:
    """Every write of the command, undisturbed."""
    log = place.parent / "points.txt"
    counter = Counter(log)

    def act() -> None:
        Faults(place, counter).install()
        command.play(place)
        used.write_text("\n".join(sys.modules))

    used = place.parent / "modules.txt"
    if code := forked(act, place.parent / "said.txt"):
        raise SystemExit(f"the command ends with {code}: {(place.parent / 'said.txt').read_text()}")
    for name in used.read_text().splitlines():
        with contextlib.suppress(ImportError):  # some are no files, and are made by others
            import_module(name)
    lines = [line.split("\t") for line in log.read_text().splitlines()]
    return [(int(number), call, name) for number, call, name in lines]


def chosen(found: list[Point], wanted: str) -> list[Point]:
    """All, or so many of the first ones of each kind of write."""
    if wanted == "all":
        return found
    kinds = {(call, name.rsplit("/", 1)[-1]): (n, call, name) for n, call, name in reversed(found)}
    firsts, number = sorted(kinds.values()), int(wanted)
    return sorted({firsts[(2 * i + 1) * len(firsts) // (2 * number)] for i in range(number)})


def trial(command: Command, place: Path, point: Point, full: bool, wanted: Any) -> str:
    """What is wrong after a fault at this point; empty where nothing is."""
    shutil.rmtree(place, ignore_errors=True)
    command.prepare(place)
    counter, said = Counter(), place.parent / "said.txt"

    def act() -> None:
        Faults(place, counter, point[0], full).install()
        command.play(place)

    code = forked(act, said)
    told = said.read_text()
    if full and code not in (0, 2):
        return f"on a full disk it ends with {code}: {told[-600:]}"
    if full and code == 0 and "No space left" not in told:
        return "a full disk is not told of"
    if full and code == 2 and command.goes_on and not point[2].endswith(BEGINS):
        return f"a full disk ends it: {told[-600:]}"
    if full and (left := leftovers(place)):
        return f"a full disk leaves {left}"
    if not full and code != -9:
        return f"it was to be killed, and ended with {code}: {told[-600:]}"

    if code := forked(lambda: command.play(place), said):
        return f"it cannot be gone on with, {code}: {said.read_text()[-600:]}"
    if left := leftovers(place):
        return f"{left} is left"
    return command.differing(wanted, command.content(place))


def leftovers(place: Path) -> list[str]:
    return [str(path.relative_to(place)) for path in place.rglob("*") if path.suffix == ".part"]


def outcome(name: str, folder: Path, number: str) -> dict[str, Any]:
    """How many writes the command has and were tried, and what went wrong at which."""
    folder.mkdir(parents=True)
    command = COMMANDS[name](folder / "before")
    if code := forked(command.once, folder / "said.txt"):
        raise SystemExit(f"what {name} needs ends with {code}")
    place = folder / "place"
    command.prepare(place)
    found = points(command, place)
    wanted = command.content(place)
    tried = chosen(found, number)
    wrong = {}
    for i, point in enumerate(tried):
        # A disk that is full at one write is full at the next ones too: every other one will do.
        fills = point[1] not in FREEING and (number == "all" or i % 2)
        for full in (False, True) if fills else (False,):
            if why := trial(command, place, point, full, wanted):
                wrong[f"{'full' if full else 'kill'} {point}"] = why
    return {"writes": len(found), "tried": len(tried), "wrong": wrong}


def main(folder: Path, wanted: dict[str, str]) -> None:
    torch.set_num_threads(1)
    print(json.dumps({name: outcome(name, folder / name, wanted[name]) for name in wanted}))


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), dict(word.split("=") for word in sys.argv[2:]))
