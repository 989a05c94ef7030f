"""Whether the records of one run agree with each other, and the figures of one record."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedrobust.records.reading import evaluations_of, present, rounds_of
from fedrobust.records.schema.run import Audited, Round, Score, Summary

_PLAIN = "plain PGD"
_EXACT = 1e-6


def disagreement(path: Path, config: Mapping[str, Any], summary: Summary) -> str:
    """Return where the summary of the run at ``path`` disagrees; empty where it does nowhere.

    Raises: ``RecordError`` for records that are broken.
    """
    test, rounds = summary.test, config["rounds"]
    if test is None or test.final.audit is None:
        return "it has no audit of the last model on the test split"
    if summary.rounds != rounds or test.final.round != rounds:
        return f"it is not of the {rounds} rounds of config.yaml"
    if summary.name != config.get("name"):
        return f"it is of the run {summary.name}, and config.yaml of {config.get('name')}"
    attacked = len(summary.malicious or ())
    if attacked != config.get("malicious"):
        return f"it has {attacked} malicious clients, and config.yaml {config.get('malicious')}"
    if (summary.threat is None) != (config.get("attack") is None):
        return "it is of a run with an attack, or config.yaml is, but not both"
    metrics = evaluations_of(path / "metrics.jsonl", config)
    last = summary.validation.final if summary.validation else {}
    if not metrics or any(last.get(k) != getattr(metrics[-1], k) for k in ("round", "accuracy")):
        return "its last evaluation is not that of metrics.jsonl"
    if present(path / "rounds.jsonl"):
        sent = {c for r in rounds_of(path / "rounds.jsonl", Round) for c in r.malicious}
        if not sent <= set(summary.malicious or ()):
            return "its malicious clients are not those of rounds.jsonl"
    if summary.best_round == rounds and test.best != test.final:
        return "its chosen and its last model are one, with two scores"
    return _of_audit(test.final, test.final.audit)


def _of_audit(final: Score, audit: Audited) -> str:
    """Return where the scores of one model disagree with its audit."""
    if audit.under.get(_PLAIN, audit.claimed) != audit.claimed:
        return "what its audit says is claimed is not what plain PGD leaves"
    if audit.under and audit.robust > min(audit.under.values()):
        return "its audit leaves more standing than one of its attacks alone"
    return figures(final.accuracy, final.examples, audit.claimed, audit.robust, audit.examples)


def figures(clean: float, examples: int, claimed: float, robust: float, audited: int) -> str:
    """Return why these shares cannot be those of one model; empty where they can.

    ``clean`` is the share of ``examples`` that the model answers rightly. Plain PGD leaves
    ``claimed`` of ``audited`` examples, and the whole audit ``robust``. An equal number of examples
    means the same ones.
    """
    if robust > claimed:
        return "its audit leaves more standing than plain PGD alone"
    if audited > examples:
        return f"{audited} examples were audited, and {examples} tested"
    if audited == examples and claimed > clean:
        return "plain PGD leaves more than is right without an attack, of the same examples"
    for name, share, number in (
        ("clean", clean, examples),
        ("claimed", claimed, audited),
        ("robust", robust, audited),
    ):
        if abs(share * number - round(share * number)) > _EXACT * number:
            return f"{name} is {share}, which is no whole number of {number} examples"
    return ""
