"""Which of a sweep's SLURM jobs are queued or running, also those of an earlier process."""

import getpass
import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil

from fedrobust.config.text import shortened
from fedrobust.errors import RecordError
from fedrobust.files import written
from fedrobust.records.reading import json_of, present
from fedrobust.records.schema.sweep import SlurmJobs

SLURM = "slurm"
"""The subfolder of a sweep with the jobs that submitit writes, their logs, and jobs.json."""
_FILE = "jobs.json"
_RARELY = 10.0
"""The seconds between two questions to SLURM."""
_AT_ONCE = 500
"""The most jobs in one command."""
_ANSWER = 60.0
"""The most seconds that SLURM may take to answer."""


def name_of(folder: Path) -> str:
    """Return the name of the jobs of the sweep in ``folder``; no other sweep's have it."""
    return f"fedrobust-{hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:12]}"


def kept(folder: Path) -> dict[str, str]:
    """Return the cells whose jobs an earlier process has submitted and not seen end, by name."""
    path = folder / _FILE
    with suppress(RecordError):  # then it is replaced; a cell that runs holds its directory
        if present(path):
            return json_of(path, SlurmJobs).jobs
    return {}


def noted(folder: Path, cluster: str, jobs: Mapping[str, str]) -> None:
    """Keep which jobs were submitted, or that there are none. Raises: ``WriteError``."""
    path = folder / _FILE
    if jobs:
        written(path, json.dumps(asdict(SlurmJobs(cluster, dict(jobs))), indent=1) + "\n")
    else:
        with suppress(OSError):  # its jobs have ended, which the next sweep sees
            path.unlink(missing_ok=True)


class Queue:
    """SLURM's queue, or for local jobs the processes of this machine."""

    def __init__(self, cluster: str, folder: Path) -> None:
        self._local, self._folder = cluster == "local", folder
        self._asked, self._seen = float("-inf"), set[str]()

    def job(self, id: str, submitted: Any = None) -> Any:
        """Return submitit's object for a job. A local one that was just submitted has a process."""
        import submitit

        if self._local:
            return submitted or submitit.LocalJob(self._folder, id)
        return submitted or submitit.SlurmJob(self._folder, id)

    def left(self, job: Any) -> bool:
        """Whether a job that has said its last word may be left alone. A local one ends first."""
        return not self._local or job.done()

    def patience(self, seconds: float) -> float:
        """Return how long a job that is not in the queue may take to show what it has written."""
        return min(seconds, 1.0) if self._local else seconds

    def alive(self, jobs: Mapping[str, str], *, rarely: bool = False) -> dict[str, str]:
        """Return those of ``jobs`` that are queued or running and are this sweep's.

        ``rarely`` does not ask SLURM each time. While SLURM does not answer, all are.
        """
        if not jobs:
            return {}
        if self._local:
            return {name: id for name, id in jobs.items() if self._runs(id)}
        if not rarely or time.monotonic() - self._asked > _RARELY:
            found = self._queued()
            self._asked = time.monotonic()
            self._seen = set(jobs.values()) if found is None else found
        return {name: id for name, id in jobs.items() if id in self._seen}

    def cancel(self, jobs: Sequence[Any]) -> None:
        """Cancel jobs. Their processes are killed: they would go on for half a minute."""
        if self._local:
            for job in jobs:
                job.cancel(check=False)
            return
        ids = [job.job_id for job in jobs]
        for first in range(0, len(ids), _AT_ONCE):
            some = ids[first : first + _AT_ONCE]
            _ask(["scancel", *some])
            _ask(["scancel", "--signal=KILL", *some], quiet=True)  # some have ended by now

    def _queued(self) -> set[str] | None:
        """Return the identifiers of this sweep's jobs in the queue; None without an answer."""
        command = ["squeue", "--noheader", "--array", f"--user={getpass.getuser()}"]
        command += [f"--name={name_of(self._folder)}", "--format=%i"]
        told = _ask(command)
        return None if told is None else set(told.split())

    def _runs(self, id: str) -> bool:
        """Whether a local job runs, and not another process that got its number."""
        try:
            process = psutil.Process(int(id))
            command = process.cmdline()
            ended = process.status() == psutil.STATUS_ZOMBIE
        except (psutil.Error, ValueError):
            return False
        return not ended and str(self._folder) in command and "submitit.local._local" in command

    def state(self, job: Any) -> str:
        """Return the state in which a job ended, in capitals; UNKNOWN where nothing tells it."""
        if self._local:
            return str(job.state).upper()
        command = ["squeue", "--noheader", "--states=all", f"--jobs={job.job_id}", "--format=%T"]
        if told := (_ask(command, quiet=True) or "").split():
            return told[0]
        # SLURM forgets a job after some minutes; sacct is not there on every cluster.
        return str(job.get_info(mode="force").get("State") or "UNKNOWN")


def _ask(command: Sequence[str], *, quiet: bool = False) -> str | None:
    """Return what a command of SLURM prints; None, and a warning if not quiet, where it fails."""
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=_ANSWER, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        why = " ".join((getattr(error, "stderr", None) or str(error)).split())
        if not quiet:
            print(f"warning: {command[0]} fails: {shortened(why, 300)}", file=sys.stderr)
        return None
    return told.stdout
