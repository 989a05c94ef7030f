"""Play rounds, and keep checkpoints so that a run can go on after a kill."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from fedrobust.config.fingerprint import stateful
from fedrobust.errors import ConfigError, WriteError
from fedrobust.experiment import Experiment
from fedrobust.federation.backends import Backend, Settles
from fedrobust.federation.round import run_round
from fedrobust.federation.round_log import RoundLog
from fedrobust.progress import Host, Progress
from fedrobust.records.own_code import changed_code
from fedrobust.records.reading import json_of
from fedrobust.records.schema.run import Computed
from fedrobust.runs.directory import RunDirectory, require_storable
from fedrobust.runs.extend import extended
from fedrobust.runs.placing import placing
from fedrobust.runs.prepare import Prepared, prepare
from fedrobust.runs.repair import repaired
from fedrobust.runs.resume import open_course, require_processor, stored_plan
from fedrobust.runs.state import RunState, save

SAVE_EVERY = 60.0
"""The most seconds between checkpoints, if the caller does not ask for more frequent ones."""
_ACTING = ("objective", "client", "participation", "attack", "aggregator", "server")
"""The parts of an experiment that are asked in every round, and must keep no state themselves."""


@dataclass
class Playing:
    """A running experiment: the prepared run, its state, and its run directory, if it has one."""

    run: Prepared
    run_state: RunState
    directory: RunDirectory | None
    repairs: tuple[str, ...] = ()
    extension: str = ""
    """A text that says how a run of fewer rounds was extended; empty where it was not."""
    unkept: str | None = None
    """Why the directory does not hold the latest state; None where it does."""

    def rounds(
        self, progress: Progress, after: Callable[[RoundLog], bool], over: Callable[[], bool]
    ) -> None:
        """Play the remaining rounds, until ``over()`` is true.

        ``after`` is called with each round, and returns whether a checkpoint must be written now. A
        checkpoint is also written after the first round and every ``SAVE_EVERY`` seconds.

        If a checkpoint cannot be written, for example because the disk is full, the run tries again
        when the next one is due. The results in memory are not lost.

        Raises: ``ConfigError`` where a user's object keeps state that no checkpoint holds.
        """
        run, run_state = self.run, self.run_state
        for text in self.repairs:
            progress.repaired(text)
        if self.extension:
            progress.extended(self.extension)
        progress.started(run, run_state.state.round)
        changed = stateful({part: getattr(run.experiment, part) for part in _ACTING})
        host = Host(progress, None if self.directory is None else self.directory.path)
        clock, saved = time.monotonic() - run_state.seconds, run_state.seconds
        while run_state.state.round < run.experiment.rounds and not over():
            with run_state.times.spent_on("rounds"):
                run_state.state, log = run_round(
                    run_state.state, run.federation, run.streams, backend=run.backend, host=host
                )
            progress.played(log)
            run_state.seconds = time.monotonic() - clock
            due = after(log) or log.round == 1 or run_state.seconds - saved > SAVE_EVERY
            if self.directory is not None and due:
                _require_stateless(changed(), log.round)
                self.save(progress)
                saved = run_state.seconds
        self._settle()

    def _settle(self) -> None:
        """Bring here what the backend has left elsewhere."""
        if isinstance(self.run.backend, Settles):
            self.run.backend.settle(self.run_state.state)

    def save(self, progress: Progress) -> None:
        """Write a checkpoint. If that fails, ``unkept`` says why."""
        assert self.directory is not None
        self._settle()
        try:
            for text in save(self.run, self.directory, self.run_state):
                progress.repaired(text)
            self.unkept = None
        except WriteError as error:
            if self.unkept is None:
                progress.unkept(f"{error}; the run goes on, and tries again later")
            self.unkept = str(error)


@contextmanager
def opened(
    experiment: Experiment,
    path: Path | None,
    resume: bool,
    *,
    other_processor: bool = False,
    elsewhere: Backend | None = None,
) -> Iterator[Playing]:
    """Yield ``experiment`` ready to play, under its execution plan, from its last checkpoint.

    ``path`` is its run directory; None keeps nothing. With ``resume``, a run that is there goes on,
    with ``other_processor`` also where it began on another kind of processor. A run of fewer rounds
    is extended. Clients train ``elsewhere``, where that is given.

    Raises: the ``UserError`` whose type fits the fault: config, data, records or resources.
    """
    with placing(experiment.execution, other_processor) as given:
        if path is None:
            prepared = prepare(experiment, elsewhere=elsewhere)
            prepared = replace(prepared, backend=given(prepared.plan) or prepared.backend)
            with prepared.plan.active():
                yield Playing(prepared, RunState.start(prepared), None)
            return
        with RunDirectory(path, resume=resume) as directory:
            plan = stored_plan(experiment, directory) if directory.has_config else None
            prepared = prepare(experiment, plan, elsewhere=elsewhere)
            prepared = replace(prepared, backend=given(prepared.plan) or prepared.backend)
            require_storable(prepared.model)
            run_state = open_course(prepared, directory)
            if 0 < run_state.state.round < experiment.rounds and not other_processor:
                require_processor(directory.path, plan, prepared.plan)
            with prepared.plan.active():
                repairs = repaired(prepared, run_state, directory) if run_state.state.round else []
                repairs += [
                    f"{module} is no longer what the run began with: its rounds are played by both"
                    for module in changed_code(json_of(path / "environment.json", Computed))
                ]
                said = extended(prepared, run_state, directory)
                yield Playing(prepared, run_state, directory, tuple(repairs), said)


def _require_stateless(changed: list[str], round: int) -> None:
    if changed:
        raise ConfigError(
            f"the {' and the '.join(changed)} changed in the rounds up to {round}: no checkpoint "
            "holds state that such an object keeps in itself. A rule must return its memory in "
            "Aggregation.memory, an attack must return its state from craft, and all else must "
            "depend on its arguments alone. Fill a cache in __init__, or leave it out of "
            "__getstate__"
        )
