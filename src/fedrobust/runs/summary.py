"""The summary of a finished run."""

import math

from fedrobust.federation.attack import requirements
from fedrobust.federation.round_log import RoundLog
from fedrobust.records.schema.formats import declared, with_format
from fedrobust.records.schema.run import Round, Score, Summary
from fedrobust.runs import measure
from fedrobust.runs.prepare import Prepared
from fedrobust.runs.state import RunState
from fedrobust.runs.weights import Weights
from fedrobust.typing import Json

_SLACK = 0.05
"""A residual is small below this share of the cost's gradient, 2γ times the distance moved."""


def rank(metrics: Json) -> tuple[bool, float, float]:
    """Return the key by which validation chooses: robust accuracy, then accuracy.

    A model of before the attack says nothing of it. One is chosen only where there is no other.
    """
    attacked = not metrics.get("before_attack", False)
    return attacked, metrics["robust_accuracy"], metrics["accuracy"]


def best_of(metrics: list[Json]) -> Json:
    """Return the evaluation that validation chooses; of equal ones, the earliest."""
    return max(metrics, key=rank)


def _line(log: RoundLog, clients: int) -> Json:
    """Return one line of ``rounds.jsonl``. ``participants`` is null where everyone took part."""
    line: Json = {
        "round": log.round,
        "participants": None if len(log.participants) == clients else list(log.participants),
        "malicious": list(log.malicious),
        "kept": list(log.kept) if log.kept is not None else None,
        "dropped": list(log.dropped),
        "applied": log.outcome.vector is not None,
        "reason": log.outcome.reason,
        "projected": log.outcome.projected,
    }
    if log.acted is not None:
        line["acted"] = log.acted
    if log.refused:
        line["refused"] = {str(client): why for client, why in sorted(log.refused.items())}
    return declared(Round, line)


def _finish(run: Prepared, run_state: RunState) -> Json:
    """Return the summary. The test split is read only here, once, for two models."""
    chosen, last = best_of(run_state.metrics), run_state.metrics[-1]
    final = _tested(run, run_state, Weights.of(run_state.state), last["round"])
    attack = measure.on_attack(run, run_state.state.attack, "report")
    best = final if chosen is last else _tested(run, run_state, run_state.best, chosen["round"])
    for score in (best, final):
        declared(Score, score)
    content = {
        "name": run.experiment.name,
        "rounds": run_state.state.round,
        "clients": run.federation.clients,
        "malicious": sorted(run.federation.malicious),
        "malicious_kept": run_state.tally.kept_share,
        "attack_acted": run_state.tally.acted_share,
        "users": run.partition.users,
        "parameters": run.layout.size,
        "seconds": round(run_state.seconds, 3),
        "best_round": chosen["round"],
        "validation": {"best": chosen, "final": last},
        "test": {"best": best, "final": final},
        "threat": str(run.federation.threat) if run.federation.attack is not None else None,
        "notes": [*run.notes, *run.doubts],
        "attack": attack,
        "troubles": [
            *run_state.tally.troubles(_least(run)),
            *measure.odd([*run_state.metrics, best, final], run.experiment.evaluation.attack),
            *(f"the attack: {text}" for text in (attack or {}).get("troubles", [])),
            *certificate_warnings(final.get("wasserstein")),
            *_strangers(run, run_state),
        ],
    }
    if run_state.times_whole:
        content["times"] = run_state.times.record()
    return declared(Summary, with_format("summary.json", content))


def _tested(run: Prepared, run_state: RunState, weights: Weights, round: int) -> Json:
    """Return the scores and the audit of a model on the test split."""
    with run_state.times.spent_on("evaluations"):
        scores = measure.on_test(run, weights, round)
    with run_state.times.spent_on("audits"):
        return scores | measure.audit_test(run)


def _strangers(run: Prepared, run_state: RunState) -> list[str]:
    """Tell of clients that were evaluated with the initial BatchNorm, as they never took part."""
    if run.test_by is None:
        return []
    clients = set(run.test_by.tolist())
    count = len(clients - Weights.of(run_state.state).store.keys())
    told = f"{count} of {len(clients)} clients that were tested have never trained, so that their "
    return [f"{told}BatchNorm is the initial one"] if count else []


def certificate_warnings(certificate: Json | None) -> list[str]:
    """Return warnings that the last model's certificate may be wrong."""
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
    """Return how many malicious clients a round needs for the attack to do anything."""
    attack, threat = run.federation.attack, run.federation.threat
    return 1 if attack is None or threat.benign else requirements(attack).min_colluders
