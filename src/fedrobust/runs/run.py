"""Play an experiment to its end: rounds, evaluations, and the summary."""

from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from fedrobust.data.sources import cache
from fedrobust.errors import ConfigError, WriteError
from fedrobust.experiment import Experiment
from fedrobust.federation.attack import requirements
from fedrobust.federation.backends import Backend
from fedrobust.federation.round_log import RoundLog
from fedrobust.federation.state import Federation, FederationState
from fedrobust.perturb import Pgd
from fedrobust.progress import UNWATCHED, Progress
from fedrobust.records.schema.formats import declared
from fedrobust.records.schema.run import Evaluation
from fedrobust.runs import measure
from fedrobust.runs.loop import Playing, opened
from fedrobust.runs.prepare import Prepared
from fedrobust.runs.state import RunState, save_end
from fedrobust.runs.summary import _finish, _line, best_of, rank
from fedrobust.runs.surrogates import surrogates
from fedrobust.runs.tally import Tally
from fedrobust.runs.weights import Weights
from fedrobust.typing import Json


@dataclass(frozen=True)
class Played:
    """A run that was played: the last state, every evaluation, and the model of the last round.

    ``experiment`` has its execution plan filled in.
    ``summary`` is the content of summary.json. The model that validation chose has the weights
    ``best``. ``path`` is the run directory, None for a run without one. If the last records could
    not be written, for example on a full disk, ``unkept`` says why; with ``resume`` the run then
    goes on from its last checkpoint. Otherwise it is None.
    """

    state: FederationState
    metrics: list[Json]
    model: nn.Module
    summary: Json
    best: Weights
    path: Path | None
    experiment: Experiment
    unkept: str | None = None


def play(
    experiment: Experiment,
    out: Path | str | None = None,
    resume: bool = False,
    *,
    other_processor: bool = False,
    progress: Progress | None = None,
    elsewhere: Backend | None = None,
) -> Played:
    """Play ``experiment`` to its end. The arguments are those of :func:`fedrobust.run`.

    Clients train ``elsewhere``, where that is given: a real federation is its own backend.

    Raises: the ``UserError`` whose type fits the fault: config, data, records or resources.
    """
    if not isinstance(experiment, Experiment):
        raise ConfigError(
            f"run takes an Experiment, not a {type(experiment).__name__}; "
            "fedrobust.load(Path(...)) reads one from a YAML file"
        )
    watch = progress or UNWATCHED
    with opened(
        experiment,
        Path(out) if out is not None else None,
        resume,
        other_processor=other_processor,
        elsewhere=elsewhere,
    ) as playing:
        return _play(playing, watch)


def trained(experiment: Experiment, out: Path, progress: Progress) -> nn.Module:
    """Play an experiment in ``out``, from its last checkpoint if there is one; return its model."""
    return play(experiment, out, resume=True, progress=progress).model


def _surrogates(run: Prepared, progress: Progress) -> tuple[nn.Module, ...]:
    """Return the networks whose adversarial examples the audits of the run try, if any."""
    experiment, claim = run.experiment, run.experiment.evaluation.attack
    asked = experiment.evaluation.audit
    if asked is None or not asked.surrogates:
        return ()
    assert isinstance(claim, Pgd)
    others = surrogates(
        experiment.data,
        experiment.model,
        eps=claim.eps,
        norm=claim.norm,
        cache=cache() / "surrogates",
        train=trained,
        progress=progress,
        batch_norm=experiment.batch_norm,
    )
    return tuple(other.to(run.start.device) for other in others)


def _play(playing: Playing, watch: Progress) -> Played:
    run_state, directory = playing.run_state, playing.directory
    if not _measured(playing):
        with run_state.times.spent_on("audits"):
            playing.run = replace(playing.run, surrogates=_surrogates(playing.run, watch))
    run = playing.run

    def recorded(log: RoundLog) -> bool:
        run_state.played(_line(log, run.federation.clients))
        last = log.round == run.experiment.rounds
        due = last or run.experiment.evaluation.due(log.round)
        if due:
            watch.evaluated(_evaluate(run, run_state, log))
        return due

    playing.rounds(watch, recorded, over=lambda: False)
    summary = directory.read_json("summary.json") if directory is not None else None
    if summary is None:
        summary = _finish(run, run_state)
        if directory is not None:
            _keep(playing, watch, summary)
            if playing.unkept is not None:
                summary["troubles"].append(f"the records are not whole: {playing.unkept}")
    Weights.of(run_state.state).into(run.model, run.federation.local.own)
    run.model.eval()
    path = directory.path if directory is not None else None
    return Played(
        run_state.state,
        run_state.metrics,
        run.model,
        summary,
        run_state.best,
        path,
        run.experiment,
        playing.unkept,
    )


def _measured(playing: Playing) -> bool:
    """Whether everything is played and measured already."""
    over = playing.run_state.state.round == playing.run.experiment.rounds
    directory = playing.directory
    return over and directory is not None and directory.read_json("summary.json") is not None


def _keep(playing: Playing, watch: Progress, summary: Json) -> None:
    """Write the last records of the run. If that fails, ``playing.unkept`` says why.

    A summary shows that all records are there, so it is written only after a checkpoint of the last
    round.
    """
    assert playing.directory is not None
    if playing.unkept is not None:
        playing.save(watch)
    if playing.unkept is None:
        try:
            save_end(playing.run, playing.directory, playing.run_state, summary)
        except WriteError as error:
            playing.unkept = str(error)


def _before_attack(federation: Federation, tally: Tally, number: int) -> bool:
    """Whether a model of round ``number`` is one of before the attack.

    The attack cannot act yet, no malicious client took part yet, or each of them has sent its
    honest update so far, as far as that is known.
    """
    if federation.attack is None or not federation.malicious:
        return False
    first = requirements(federation.attack).first_round
    return number < first or not tally.present or tally.acted_share == 0


def _evaluate(run: Prepared, run_state: RunState, log: RoundLog) -> Json:
    weights = Weights.of(run_state.state)
    with run_state.times.spent_on("evaluations"):
        scores = measure.on_held_out(run, weights, log.round)
    with run_state.times.spent_on("audits"):
        scores |= measure.audit_held_out(run, log.round)
    kept = log.kept
    metrics = {
        "round": log.round,
        **scores,
        "seconds": round(run_state.seconds, 3),
        "kept": list(kept) if kept is not None else None,
        "malicious_kept": len(set(kept) & set(log.malicious)) if kept is not None else None,
        "applied": log.outcome.vector is not None,
    }
    if _before_attack(run.federation, run_state.tally, log.round):
        metrics["before_attack"] = True
    if not run_state.metrics or rank(metrics) > rank(best_of(run_state.metrics)):
        run_state.choose(longer_lacks_it=not run.experiment.evaluation.due(log.round))
    run_state.metrics.append(declared(Evaluation, metrics))
    return metrics
