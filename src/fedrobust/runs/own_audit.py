"""The audit that a run's own record holds, beside another audit of the same model."""

import math
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedrobust.errors import RecordError, RecordWarning
from fedrobust.evaluation.auditing.battery import in_words
from fedrobust.evaluation.auditing.result import Audit
from fedrobust.evaluation.auditing.two_verdicts import Seen, disagreement
from fedrobust.records.reading import broken, json_of, mapping_of, present, shaped
from fedrobust.records.schema.audit import OwnAudit
from fedrobust.records.schema.run import Score, Summary


def own_audit(run: Path, last: bool, found: Audit) -> OwnAudit | None:
    """Return what the run at ``run`` found in its chosen or its last model, if that is comparable.

    It is, where the run made an audit of the same claim as ``found``: a verdict is one on a claim.
    A record that is broken is told in a warning: another audit does not need it.
    """
    path = run / "summary.json"
    if not os.path.isdir(run) or not present(path):
        return None
    try:
        test, config = json_of(path, Summary).test, mapping_of(run / "config.yaml")
        if test is None or not _same_claim(config, found):
            return None
        return audit_of(test.final if last else test.best, config, run / "config.yaml")
    except RecordError as error:
        warnings.warn(f"the run's own audit is left out: {error}", RecordWarning, stacklevel=2)
        return None


def audit_of(score: Score, config: Mapping[str, Any], path: Path) -> OwnAudit | None:
    """Return the audit of a score. Only the config says the budget in records of earlier versions.

    Raises: ``RecordError`` where the ``config``, which is at ``path``, does not say it.
    """
    found = score.audit
    if found is None:
        return None
    asked = _of(_of(config, "evaluation"), "audit")
    content = {key: getattr(found, key) for key in ("verdict", "robust", "examples", "attacks")}
    try:
        return shaped(OwnAudit, content | {"budget": found.budget or asked.get("budget")})
    except ValueError as error:
        raise broken(path, f"its evaluation.audit: {error}") from error


def other_verdict(found: Audit, own: OwnAudit | None) -> str:
    """Return what to make of another verdict in the run's own record; empty if it is the same."""
    if own is None:
        return ""
    return disagreement(seen("this audit", found), Seen.of("the run's own record", own))


def seen(whose: str, found: Audit) -> Seen:
    """Return what an audit has seen."""
    examples, budget = int(found.settings["examples"]), str(found.settings.get("budget", ""))
    return Seen(whose, found.verdict, found.robust, examples, budget, len(found.taken))


def _same_claim(config: Mapping[str, Any], found: Audit) -> bool:
    attack, asked = _of(_of(config, "evaluation"), "attack"), found.settings
    eps, radius = attack.get("eps"), asked.get("eps")
    if not isinstance(eps, float | int) or not isinstance(radius, float | int):
        return False
    same = attack.get("norm", "linf") == asked.get("norm")
    if not same or not math.isclose(eps, radius, rel_tol=2e-3):
        return False
    steps, size = attack.get("steps"), attack.get("step_size")
    if "claim" not in asked or not isinstance(steps, int) or not isinstance(size, float | int):
        return True  # it does not say more than the ball
    return asked["claim"] == in_words(steps, size, attack.get("restarts", 1))


def _of(content: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """Return a mapping in a config; empty where something else stands there."""
    value = content.get(key)
    return value if isinstance(value, Mapping) else {}
