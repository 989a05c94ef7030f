"""Playing an experiment to its end: rounds, evaluations, and the summary."""

import math
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from fedrobust.runs import measure
from fedrobust.attacks.attack import traits
from fedrobust.runs.course import Course, save_end
from fedrobust.errors import ConfigError, WriteError
from fedrobust.experiment import Experiment
from fedrobust.federation.round import FederationState, RoundLog
from fedrobust.compute.parameters import write
from fedrobust.runs.loop import Playing, Progress, opened
from fedrobust.runs.prepare import Prepared
from fedrobust.runs.records import Json
from fedrobust.schema.formats import with_format
from fedrobust.typing import Vector

_SLACK = 0.05
"""A residual is small below this share of the price's own pull, 2γ times the distance moved."""


@dataclass(frozen=True)
class Run:
    """What a run gives: the last state, every evaluation, and the model of the last round.

    ``summary`` holds the test scores of the final model and of the one that validation chose, whose
    parameters are ``best``; ``path`` is the run directory, None for a run that left none.
    ``unkept`` says what of the end could not be written there, as where the disk was full; with
    ``resume`` the run goes on from the last checkpoint that could. None where all is there.
    """

    state: FederationState
    metrics: list[Json]
    model: nn.Module
    summary: Json
    best: Vector
    path: Path | None
    unkept: str | None = None


def run(
    experiment: Experiment,
    out: Path | str | None = None,
    resume: bool = False,
    *,
    progress: Progress | None = None,
) -> Run:
    """Play ``experiment`` to its end.

    ``out`` is the run directory to write; None writes nothing. With ``resume``, a run that is
    there goes on from its last checkpoint, to bit-identical results; a finished one is read.

    Raises: ``UserError``, of the kind that says what is wrong: config, data, records, resources.
    """
    if not isinstance(experiment, Experiment):
        raise ConfigError(
            f"run takes an Experiment, not a {type(experiment).__name__}; "
            "fedrobust.load(Path(...)) reads one from a YAML file"
        )
    watch = progress or Progress()
    with opened(experiment, Path(out) if out is not None else None, resume) as playing:
        return _play(playing, watch)


def _play(playing: Playing, watch: Progress) -> Run:
    run, course, directory = playing.run, playing.course, playing.directory

    def recorded(log: RoundLog) -> bool:
        course.played(_line(log, run.federation.clients))
        last = log.round == run.experiment.rounds
        due = last or log.round % run.experiment.evaluation.every == 0
        if due:
            watch.evaluated(_evaluate(run, course, log))
        return due

    playing.rounds(watch, recorded, over=lambda: False)
    summary = directory.read_json("summary.json") if directory is not None else None
    if summary is None:
        summary = _finish(run, course)
        if directory is not None:
            _keep(playing, watch, summary)
            if playing.unkept is not None:
                summary["troubles"].append(f"the records are not whole: {playing.unkept}")
    write(run.model, course.state.parameters)
    run.model.eval()
    path = directory.path if directory is not None else None
    return Run(course.state, course.metrics, run.model, summary, course.best, path, playing.unkept)


def _keep(playing: Playing, watch: Progress, summary: Json) -> None:
    """Write the end of the run; ``playing.unkept`` says why it could not be kept, if so.

    The summary says that all is there, so it comes only after a checkpoint of the last round.
    """
    assert playing.directory is not None
    if playing.unkept is not None:
        playing.save(watch)
    if playing.unkept is None:
        try:
            save_end(playing.run, playing.directory, playing.course, summary)
        except WriteError as error:
            playing.unkept = str(error)


def _evaluate(run: Prepared, course: Course, log: RoundLog) -> Json:
    scores = measure.on_held_out(run, course.state.parameters, log.round)
    kept = log.kept
    metrics = {
        "round": log.round,
        **scores,
        "seconds": round(course.seconds, 3),
        "kept": list(kept) if kept is not None else None,
        "malicious_kept": len(set(kept) & set(log.malicious)) if kept is not None else None,
        "applied": log.outcome.vector is not None,
    }
    if not course.metrics or rank(metrics) > rank(best_of(course.metrics)):
        course.best = course.state.parameters.clone()
    course.metrics.append(metrics)
    return metrics


def rank(metrics: Json) -> tuple[float, float]:
    """The order in which validation chooses: robust accuracy, then accuracy; a tie stays."""
    return metrics["robust_accuracy"], metrics["accuracy"]


def best_of(metrics: list[Json]) -> Json:
    """The evaluation that validation chooses, the earliest of equals."""
    return max(metrics, key=rank)


def _line(log: RoundLog, clients: int) -> Json:
    """One line of ``rounds.jsonl``; ``participants`` is null where everyone took part."""
    return {
        "round": log.round,
        "participants": None if len(log.participants) == clients else list(log.participants),
        "malicious": list(log.malicious),
        "kept": list(log.kept) if log.kept is not None else None,
        "dropped": list(log.dropped),
        "applied": log.outcome.vector is not None,
        "reason": log.outcome.reason,
        "projected": log.outcome.projected,
    }


def _finish(run: Prepared, course: Course) -> Json:
    """The test split is read here, once, for two models."""
    chosen, last = best_of(course.metrics), course.metrics[-1]
    final = measure.on_test(run, course.state.parameters, last["round"])
    attack = measure.on_attack(run, course.state.attack, "report")
    best = final if chosen is last else measure.on_test(run, course.best, chosen["round"])
    content = {
        "name": run.experiment.name,
        "rounds": course.state.round,
        "clients": run.federation.clients,
        "malicious": sorted(run.federation.malicious),
        "malicious_kept": course.tally.kept_share,
        "users": run.partition.users,
        "parameters": run.layout.size,
        "seconds": round(course.seconds, 3),
        "best_round": chosen["round"],
        "validation": {"best": chosen, "final": last},
        "test": {"best": best, "final": final},
        "threat": str(run.federation.threat) if run.federation.attack is not None else None,
        "notes": list(run.notes),
        "attack": attack,
        "troubles": [
            *course.tally.troubles(_least(run)),
            *measure.odd([*course.metrics, best, final], run.experiment.evaluation.attack),
            *(f"the attack: {text}" for text in (attack or {}).get("troubles", [])),
            *doubts(final.get("wasserstein")),
        ],
    }
    return with_format("summary.json", content)


def doubts(certificate: Json | None) -> list[str]:
    """Why the last model's certificate may not be what it says."""
    if certificate is None or certificate["gamma"] is None:
        return []
    found, gamma = [], certificate["gamma"]
    curvature, residual = certificate["curvature"] or 0.0, certificate["residual"]
    if curvature > 2 * gamma:
        found.append(
            f"gamma = {gamma:.4g} is too small for a concave inner problem: the loss curves by up "
            f"to {curvature:.3g} > 2·gamma, so the points found may be local maxima"
        )
    rho = certificate["rho"]
    if residual is None or rho is None:
        found.append("the certificate is not finite: the model has blown up, or gamma is too small")
    elif residual > _SLACK * 2 * gamma * math.sqrt(rho) and residual > _SLACK * gamma:
        found.append(
            f"the ascent of the certificate left a residual of {residual:.3g}: it stopped short of "
            "the maximum; more steps, or a larger gamma"
        )
    return found


def _least(run: Prepared) -> int:
    """How many malicious clients must take part in a round for the attack to do anything."""
    attack, threat = run.federation.attack, run.federation.threat
    return 1 if attack is None or threat.benign else traits(attack).least
