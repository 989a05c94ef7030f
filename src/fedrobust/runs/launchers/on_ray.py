"""Play the cells of a sweep on a Ray cluster, each as a task."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fedrobust.cluster.connect import connected
from fedrobust.cluster.probe import Node, alike, nodes, require_shared
from fedrobust.compute.execution import Execution
from fedrobust.config.text import shortened
from fedrobust.errors import ResourceError
from fedrobust.runs.grid import Cell
from fedrobust.runs.launchers.launcher import LOST, SECONDS, Job, own_variables
from fedrobust.runs.launchers.play import play_cell

_PATIENCE = 120.0
"""The seconds in which a shared disk gives back the locks of a machine that died."""
_STOPPING = 30.0
"""The most seconds to wait until cancelled tasks have ended."""


@dataclass(frozen=True)
class Ray:
    """Cells are tasks of the Ray cluster at ``address``; see :func:`fedrobust.cluster.connected`.

    A cell whose process or node is lost is played again elsewhere, and goes on from its last
    checkpoint. All nodes share the sweep's folder.
    """

    address: str | None = None

    @contextmanager
    def opened(self) -> Iterator["_Tasks"]:
        """Within the context, cells can be started. Raises: ``ConfigError``, ``ResourceError``."""
        with connected(self.address):
            alike()
            yield _Tasks()


class _Tasks:
    """The running cells, each with the reference to its task."""

    def __init__(self) -> None:
        self._running: dict[Any, str] = {}
        self._cores = 1
        self._plans: dict[str, Execution] = {}

    def check(self, out: Path, cells: Sequence[Cell]) -> None:
        """Check that all nodes share the folder, and that some have what the cells need.

        Raises: ``ResourceError``.
        """
        require_shared(out)
        there = nodes()
        if not any(node.cpus for node in there):
            raise ResourceError("no node of the Ray cluster offers a CPU: start one with CPUs")
        self._plans = {cell.name: cell.experiment.execution for cell in cells}
        on_gpu = sum(plan.device == "cuda" for plan in self._plans.values())
        if on_gpu and not any(node.gpus for node in there):
            raise ResourceError(
                f"{on_gpu} cells have execution.device: cuda, and no node of the Ray "
                "cluster offers a GPU: add one, or use -s execution.device=cpu"
            )

    def begin(self, out: Path, cells: Sequence[Cell], jobs: int | None) -> int:
        """All cells at a time, if no number is given: Ray lets them wait for free cores.

        Where there are more cores than cells at a time, a cell gets as many as all can have.
        """
        at_once = min(jobs or len(cells), len(cells))
        self._cores = _cores_each(nodes(), at_once)
        return at_once

    def start(self, jobs: Sequence[Job]) -> None:
        """Submit a task for each cell."""
        import ray

        for job in jobs:
            plan = self._plans[job.name]
            threads = min(self._cores, plan.threads or self._cores)
            task = ray.remote(
                num_cpus=threads,
                num_gpus=int(plan.device == "cuda"),
                max_retries=-1,  # a lost process or node; play_cell itself gives up after LOST
                retry_exceptions=False,
                max_calls=1,  # a cell must not see what another left in its process
            )(play_cell)
            whole = replace(
                job,
                threads=threads,
                environment=own_variables(),
                patience=_PATIENCE,
                lives=LOST,
            )
            self._running[task.options(name=job.name).remote(whole)] = job.name

    def ended(self) -> dict[str, str | None]:
        """Return the cells that have ended, each with its failure."""
        import ray

        waiting = list(self._running)
        if not waiting:
            return {}
        over, _ = ray.wait(waiting, num_returns=1, timeout=SECONDS)
        if over:  # others may have ended too
            over, _ = ray.wait(waiting, num_returns=len(waiting), timeout=0)
        return {self._running.pop(each): _outcome(each) for each in over}

    def stop(self) -> None:
        """Cancel the tasks; their processes end at once."""
        import ray

        for each in self._running:
            ray.cancel(each, force=True)
        if self._running:
            ray.wait(list(self._running), num_returns=len(self._running), timeout=_STOPPING)


def _outcome(task: Any) -> str | None:
    import ray

    try:
        failure: str | None = ray.get(task)
    except Exception as error:  # Ray's own, or of a node where fedrobust cannot be imported
        return f"Ray ended the cell: {type(error).__name__}: {shortened(str(error), 4000)}"
    return failure


def _cores_each(there: Sequence[Node], at_once: int) -> int:
    """Return the most cores that each of ``at_once`` cells can have; at least 1."""
    most = max(node.cpus for node in there)
    fitting = (n for n in range(most, 1, -1) if sum(node.cpus // n for node in there) >= at_once)
    return next(fitting, 1)
