"""Is this robustness real? A battery that gradient masking cannot fool, and a verdict."""

from fedrobust.evaluation.auditing.auditor import audit
from fedrobust.evaluation.auditing.battery import Budget, Taken
from fedrobust.evaluation.auditing.result import Audit, Share
from fedrobust.evaluation.auditing.signs import Sign, Verdict

__all__ = ["Audit", "Budget", "Share", "Sign", "Taken", "Verdict", "audit"]
