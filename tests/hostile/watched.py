"""Works in a stranger's folder with every command, and ends at the first thing that must not be.

``watched.py FOLDER OUT``: prints one JSON object of what each command said. Python calls a hook for
each import, file and process. It may end the program, with a line that begins with ``CAUGHT``.
"""

import json
import os
import sys

FOLDER, OUT = sys.argv[1:3]
ALLOWED = [OUT, os.environ["TMPDIR"], os.path.join(FOLDER, "ALL"), os.path.join(FOLDER, "RUN")]
ALLOWED += [os.path.join(FOLDER, "SWEEP"), "/dev/null", "/dev/shm", "/proc/self"]
CACHES = ("__pycache__", *map(os.path.expanduser, ("~/.cache/matplotlib", "~/.config/matplotlib")))
PROGRAMS = ("git", "uname", "fc-list", "lscpu")
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
STARTS = ("os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.startfile", "pty.spawn")
CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.symlink", "os.link", "os.truncate")
REBUILT = ("torch", "numpy", "collections", "_codecs", "numba", "llvmlite", "copyreg", "builtins")
if __name__ == "__mp_main__":  # the process of a sweep's cell, which is sent what to play
    REBUILT += ("multiprocessing", "fedrobust", "pathlib")


def inside(path: str) -> bool:
    return os.path.realpath(path).startswith(FOLDER + os.sep)


def caught(*what: object) -> None:
    os.write(1, f"CAUGHT {' '.join(map(str, what))}\n".encode())
    os._exit(3)


def writes(event: str, path: object) -> None:
    if not isinstance(path, str | bytes | os.PathLike):
        return
    place = os.path.realpath(os.fsdecode(path))
    ours = any(place == root or place.startswith(root + os.sep) for root in ALLOWED)
    if not ours and not any(cache in place for cache in CACHES):
        caught(event, place)


def within(folder: int, path: object) -> object:
    """Return the path of what lies in a folder that is open under this number; -1: none is."""
    if folder < 0 or not isinstance(path, str):
        return path
    return os.path.join(os.readlink(f"/proc/self/fd/{folder}"), path)


def hook(event: str, args: tuple) -> None:
    if event == "import":
        name, file = args[0], args[1]
        if name.partition(".")[0] == "evil" or (isinstance(file, str) and inside(file)):
            caught(event, name, file)
    elif event == "exec" and isinstance(name := getattr(args[0], "co_filename", None), str):
        if os.path.isabs(name) and inside(name):
            caught(event, name)
    elif event in STARTS:
        caught(event, *args)
    elif event == "subprocess.Popen":
        if os.path.basename(os.fsdecode(args[0] or args[1][0])) not in PROGRAMS:
            caught(event, *args[:2])
    elif event == "ctypes.dlopen" and isinstance(args[0], str) and os.sep in args[0]:
        if inside(args[0]):
            caught(event, args[0])
    elif event == "pickle.find_class":
        if args[0].partition(".")[0] not in REBUILT:
            caught(event, *args)
    elif event == "open":
        if isinstance(args[2], int) and args[2] & WRITES:
            writes(event, args[0])
    elif event in CHANGES:
        for path in args[: 2 if event in ("os.rename", "os.link", "os.symlink") else 1]:
            writes(event, within(args[1], path) if event in ("os.remove", "os.rmdir") else path)


sys.addaudithook(hook)

from typer.testing import CliRunner  # noqa: E402

from fedrobust.cli import app  # noqa: E402


def main() -> None:
    # A command of the user's own, in the stranger's folder: the config says nothing of code.
    small = ["--samples", "10", "--out"]
    commands = {
        "run": ["run", "--no-report", "plain.yaml", "--out", f"{OUT}/run"],
        "sweep": ["sweep", "plain-sweep.yaml", "--out", f"{OUT}/sweep", "--jobs", "1"],
        "resume run": ["run", "--no-report", "plain.yaml", "--out", "ALL", "--resume"],
        "resume sweep": ["sweep", "ring-sweep.yaml", "--out", "SWEEP", "--resume"],
        "audit": ["audit", "CLAIMS", *small, f"{OUT}/audit"],
        "audit own claim": ["audit", "RUN", *small, f"{OUT}/none"],
        "audit radius": ["audit", "RUN", "--eps", "0.1", *small, f"{OUT}/radius"],
        "audit own model": ["audit", "ALL", *small, f"{OUT}/none"],
        "audit other data": ["audit", "ALL", "--data", "digits", *small, f"{OUT}/none"],
        "audit shallow trust": ["audit", "CLAIMS", "--trust", *small, f"{OUT}/trusted"],
        "report": ["report", "ALL", "--out", f"{OUT}/page"],
        "report sweep": ["report", "SWEEP", "--out", f"{OUT}/sweep-page"],
        "escape": ["sweep", "escaped.yaml"],
    }
    said = {}
    for name, words in commands.items():
        found = CliRunner().invoke(app, words)
        said[name] = [found.exit_code, " ".join(found.output.split()), repr(found.exception)]
    print(json.dumps(said))


if __name__ == "__main__":
    main()
