"""Play one cell of a sweep in this process. Every launcher calls this one function."""

import os
import traceback

from fedrobust.config import beside
from fedrobust.config.component import from_config
from fedrobust.errors import RecordError, ResourceError, UserError, WriteError
from fedrobust.experiment import Experiment
from fedrobust.files import let_go
from fedrobust.progress import Progress
from fedrobust.runs.launchers.launcher import Job
from fedrobust.runs.launchers.report import Reporter


def play_cell(job: Job) -> str | None:
    """Play a cell to its end, from its last checkpoint if it was begun.

    Returns: why it failed, a ``UserError``'s message or a traceback; None where it did not.
    """
    os.environ.update(job.environment)
    if job.folder.is_dir():  # paths in a config are relative to it
        os.chdir(job.folder)
    beside.look_in(job.places)
    beside.restore(job.before)
    report = Reporter(job.report, job.config["rounds"])
    failure: str | None = None
    try:
        _play(job, report)
    except UserError as error:
        failure = str(error)
    except Exception:
        failure = traceback.format_exc()
    report.end(failure)
    return failure


def _play(job: Job, report: Reporter) -> None:
    if job.lives is not None and report.report.deaths >= job.lives:
        raise ResourceError(
            f"its process was lost {job.lives} times in a row without a further round: it crashes, "
            "or its machine has too little memory; play it alone with fedrobust run to see why"
        )
    if job.patience and job.path.is_dir() and not let_go(job.path, job.patience):
        raise RecordError(f"another process is running in {job.path}: wait for it")
    import torch

    from fedrobust.runs.doubts import UNATTACKED
    from fedrobust.runs.prepare import Prepared
    from fedrobust.runs.run import play

    def started(ready: Prepared, done: int) -> None:
        report.moved(done)
        for doubt in ready.doubts:
            if doubt != UNATTACKED:  # in a sweep, it is what the attacked cells are compared with
                report.note(f"warning: {doubt}")

    torch.set_num_threads(job.threads)
    progress = Progress(
        started=started,
        played=lambda log: report.moved(log.round),
        repaired=report.note,
        unkept=lambda text: report.note(f"warning: {text}"),
    )
    ended = play(
        from_config(Experiment, job.config),
        job.path,
        resume=job.path.exists(),
        other_processor=job.other_processor,
        progress=progress,
    )
    if ended.unkept is not None:
        raise WriteError(ended.unkept)
