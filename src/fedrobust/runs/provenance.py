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
