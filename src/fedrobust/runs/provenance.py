"""Record where a run was computed."""

import os
import platform
import shutil
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from fedrobust.compute.execution import Execution
from fedrobust.config.component import to_config
from fedrobust.records.own_code import own_code
from fedrobust.records.reading import broken
from fedrobust.records.schema.formats import with_format
from fedrobust.runs.directory import RunDirectory
from fedrobust.runs.prepare import Prepared
from fedrobust.typing import Json

LIBRARIES = ("torch", "numpy", "scikit-learn", "pydantic", "safetensors")


def environment(plan: Execution) -> dict[str, Any]:
    """Return versions, machine, cores, plan and commit, as plain data."""
    return {
        "fedrobust": version("fedrobust"),
        "commit": commit(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        **{name: version(name) for name in LIBRARIES},
        "platform": platform.platform(),
        "machine": platform.machine(),
        "processor": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "device": torch.cuda.get_device_name() if plan.device == "cuda" else "cpu",
        "threads": plan.workers,
        "batch": plan.batch,
    }


def note_environment(
    run: Prepared, directory: RunDirectory, stored: Json | None, *, begins: bool, plays: bool
) -> None:
    """Record where the run began, and what differed where it was resumed.

    The version of a user's own code is noted where the run still ``plays`` rounds with it.

    Raises: ``RecordError`` for a broken record of where it began.
    """
    now = environment(run.plan)
    if plays:
        now |= own_code(to_config(run.experiment))
    if stored is None:
        lost = {} if begins else {"lost": "where the run began, as this file was missing later"}
        directory.write_json("environment.json", with_format("environment.json", now | lost))
        return
    resumed = stored.get("resumed", [])
    if not isinstance(resumed, list) or not all(isinstance(part, dict) for part in resumed):
        raise broken(directory.path / "environment.json", "its resumed is no list of mappings")
    last = stored | {k: v for part in resumed for k, v in part.items()}
    changed = {k: v for k, v in now.items() if k != "started" and last.get(k) != v}
    if changed:
        later = {"started": now["started"], **changed}
        stored["resumed"] = [*resumed, later]
        directory.write_json("environment.json", with_format("environment.json", stored))


def commit() -> str | None:
    """Return the commit of this code's checkout, with "+changes" if edited; None without one."""
    git, here = shutil.which("git"), Path(__file__).parent

    def ask(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(git), "-C", str(here), *arguments], capture_output=True, text=True, check=False
        )

    if git is None or ask("ls-files", "--error-unmatch", Path(__file__).name).returncode != 0:
        return None
    head = ask("rev-parse", "HEAD")
    if head.returncode != 0:
        return None
    changes = ask("status", "--porcelain", "--untracked-files=no", str(here)).stdout.strip()
    return head.stdout.strip() + ("+changes" if changes else "")
