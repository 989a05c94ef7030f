"""Play the cells of a sweep as SLURM jobs, submitted by submitit."""

import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fedrobust.config import beside
from fedrobust.config.text import quoted, shortened
from fedrobust.errors import ConfigError, RecordError, ResourceError, WriteError
from fedrobust.files import reason
from fedrobust.runs.grid import Cell
from fedrobust.runs.launchers import report
from fedrobust.runs.launchers.launcher import SECONDS, Job, own_variables
from fedrobust.runs.launchers.play import play_cell
from fedrobust.runs.launchers.processes import cores
from fedrobust.runs.launchers.slurm_jobs import SLURM, Queue, kept, name_of, noted

_MINUTES = 240
"""The time limit of a job, if none is given. A cell that meets it goes on in the next job."""
_TIMES = 1000
"""How often a cell may meet its time limit. Each time it goes on from its last checkpoint."""
_PATIENCE = 120.0
"""The seconds in which a shared disk gives back the locks of a machine that died."""
_LATE = 20.0
"""The seconds that a shared disk may take to show what a job has written."""
_STOPPING = 60.0
"""The most seconds to wait until cancelled jobs have ended."""
_ARRAY = 1000
"""The most jobs of one array. SLURM's own limit is 1001, where nobody changed it."""


@dataclass(frozen=True)
class Slurm:
    """Cells are SLURM jobs, and those that start together are one array.

    ``arguments`` are submitit's, checked by :func:`slurm_arguments.arguments`. With ``cluster``
    ``local`` the jobs are processes of this machine, to try it. A job that is preempted, or meets
    its time limit, is queued again and goes on from its last checkpoint.
    """

    arguments: Mapping[str, Any] = field(default_factory=dict)

    @contextmanager
    def opened(self) -> Iterator["_Jobs"]:
        """Within the context, jobs can be submitted. Raises: ``ConfigError``, ``ResourceError``."""
        if find_spec("submitit") is None:
            raise ConfigError("SLURM jobs need submitit: pip install 'fedrobust[slurm]'")
        local = self.arguments.get("cluster") == "local"
        if not local and (
            lacks := [c for c in ("sbatch", "srun", "squeue") if not shutil.which(c)]
        ):
            raise ResourceError(
                f"there is no SLURM on this machine (no command {lacks[0]}): start the sweep where "
                "jobs are submitted, use --on processes, or try it here with "
                "--slurm-arg cluster=local"
            )
        yield _Jobs({"cluster": "slurm", **self.arguments})


@dataclass(frozen=True)
class _Cell:
    """What a job runs: submitit writes it into a file, and calls it on the job's machine."""

    job: Job

    def __call__(self) -> None:
        """Play the cell. The report says how that ended."""
        play_cell(self.job)

    def checkpoint(self) -> Any:
        """Return what the next job runs after a preemption: the same, which goes on."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


class _Jobs:
    """The jobs of one sweep."""

    def __init__(self, arguments: Mapping[str, Any]) -> None:
        self._arguments = arguments
        self._cluster: str = arguments["cluster"]
        self._folder = Path()
        self._on_gpu = False
        self._parallel = _ARRAY
        self._queue: Queue
        self._running: dict[str, tuple[Job, Any]] = {}
        self._gone: dict[str, float] = {}

    def check(self, out: Path, cells: Sequence[Cell]) -> None:
        """Refuse a folder whose name submitit would change. Raises: ``ConfigError``."""
        self._folder = out.absolute() / SLURM
        if "%" in str(self._folder):
            raise ConfigError(
                f"{quoted(str(out))}: SLURM reads % in a path as a code: choose another --out"
            )
        self._on_gpu = any(cell.experiment.execution.device == "cuda" for cell in cells)

    def begin(self, out: Path, cells: Sequence[Cell], jobs: int | None) -> int:
        """All cells at a time, which SLURM lets wait; ``jobs`` is the parallelism of their array.

        Local jobs do not wait for each other, so that only as many start as can run.
        """
        try:
            self._folder.mkdir(exist_ok=True)
        except OSError as error:
            raise WriteError(f"cannot write to {self._folder}: {reason(error)}") from error
        for path in self._folder.iterdir():
            if path.is_symlink():  # SLURM would write its log through it
                raise RecordError(f"{path} is a link, and SLURM writes there: remove it")
        self._queue = Queue(self._cluster, self._folder)
        self._parallel = jobs or _ARRAY
        at_once = len(cells) if self._cluster == "slurm" else jobs or cores()
        return min(at_once, len(cells))

    def start(self, jobs: Sequence[Job]) -> None:
        """Submit the cells, apart from those whose jobs an earlier sweep submitted and left.

        Raises: ``ResourceError`` where SLURM refuses.
        """
        left = self._queue.alive(kept(self._folder))
        for job in jobs:
            if job.name in left:
                self._running[job.name] = job, self._queue.job(left[job.name])
        new = [job for job in jobs if job.name not in self._running]
        for first in range(0, len(new), _ARRAY):
            self._submit(new[first : first + _ARRAY])
        noted(self._folder, self._cluster, {n: j.job_id for n, (_, j) in self._running.items()})

    def _submit(self, jobs: Sequence[Job]) -> None:
        threads = int(self._arguments.get("cpus_per_task", 1))
        try:
            with beside.safe_path() as before:
                executor = self._executor(threads)
                cells = [
                    _Cell(
                        replace(
                            job,
                            threads=threads,
                            before=before,
                            environment=own_variables(),
                            patience=_PATIENCE,
                        )
                    )
                    for job in jobs
                ]
                with executor.batch():
                    submitted = [executor.submit(cell) for cell in cells]
            ids = [each.job_id for each in submitted]
        except Exception as error:  # whatever sbatch or submitit says
            text = " ".join(str(error).split()) or type(error).__name__
            raise ResourceError(f"SLURM took no jobs: {shortened(text, 500)}") from error
        for job, id in zip(jobs, ids, strict=True):
            self._running[job.name] = job, self._queue.job(id, submitted[ids.index(id)])

    def _executor(self, threads: int) -> Any:
        import submitit

        times = {f"{self._cluster}_max_num_timeout": _TIMES}
        executor = submitit.AutoExecutor(self._folder, cluster=self._cluster, **times)
        given = {key: value for key, value in self._arguments.items() if key != "cluster"}
        if "slurm_setup" in given:
            given["slurm_setup"] = [given["slurm_setup"]]
        executor.update_parameters(
            **{
                "name": name_of(self._folder),
                "nodes": 1,
                "tasks_per_node": 1,
                "timeout_min": _MINUTES,
                "cpus_per_task": threads,
                "slurm_array_parallelism": self._parallel,
                **({"gpus_per_node": 1} if self._on_gpu else {}),
                **given,
            }
        )
        return executor

    def ended(self) -> dict[str, str | None]:
        """Return the cells that have ended, each with its failure."""
        time.sleep(SECONDS)
        over = dict[str, str | None]()
        for name, (cell, job) in self._running.items():
            said = report.read(cell.report)
            if said is not None and said.ended and self._queue.left(job):
                over[name] = said.failure
        jobs = {name: job.job_id for name, (_, job) in self._running.items() if name not in over}
        alive, now = self._queue.alive(jobs, rarely=True), time.monotonic()
        for name in jobs:
            if name in alive:
                self._gone.pop(name, None)
            elif now - self._gone.setdefault(name, now) > self._queue.patience(_LATE):
                over[name] = self._lost(name)
        for name in over:
            self._running.pop(name)
        if over:
            noted(self._folder, self._cluster, {n: j.job_id for n, (_, j) in self._running.items()})
        return over

    def _lost(self, name: str) -> str:
        """Return the failure of a job that ended without saying how."""
        _, job = self._running[name]
        log = job.paths.stderr
        last = ""
        with suppress(OSError, UnicodeError):
            lines = log.read_text("utf-8").strip().splitlines()
            last = f", whose last line is: {shortened(lines[-1], 200)}" if lines else ""
        return (
            f"the job {job.job_id} ended in state {self._queue.state(job)} before the cell did: "
            f"see {log}{last}"
        )

    def stop(self) -> None:
        """Cancel the jobs, and wait until they have ended."""
        self._queue.cancel([job for _, job in self._running.values()])
        jobs = {name: job.job_id for name, (_, job) in self._running.items()}
        deadline = time.monotonic() + _STOPPING
        while self._queue.alive(jobs) and time.monotonic() < deadline:
            time.sleep(SECONDS)
        noted(self._folder, self._cluster, {})
