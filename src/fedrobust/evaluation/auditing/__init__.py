"""Audit whether robustness is real: attacks that gradient masking does not fool, and a verdict."""

from fedrobust.evaluation.auditing.auditor import audit
from fedrobust.evaluation.auditing.battery import Budget
from fedrobust.evaluation.auditing.indicators import Indicator, Verdict
from fedrobust.evaluation.auditing.loss_surface import Surface
from fedrobust.evaluation.auditing.result import Audit
from fedrobust.evaluation.auditing.runner import Taken
from fedrobust.evaluation.intervals import Share

__all__ = ["Audit", "Budget", "Indicator", "Share", "Surface", "Taken", "Verdict", "audit"]
