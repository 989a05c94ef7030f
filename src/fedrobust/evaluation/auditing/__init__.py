"""Is this robustness real? A battery that gradient masking cannot fool, and a verdict."""

from fedrobust.evaluation.auditing.attacks import Budget
from fedrobust.evaluation.auditing.auditor import audit
from fedrobust.evaluation.auditing.battle import Taken, Watch
from fedrobust.evaluation.auditing.result import Audit, Share
from fedrobust.evaluation.auditing.signs import Sign, Verdict
from fedrobust.evaluation.auditing.surface import Surface

__all__ = ["Audit", "Budget", "Share", "Sign", "Surface", "Taken", "Verdict", "Watch", "audit"]
