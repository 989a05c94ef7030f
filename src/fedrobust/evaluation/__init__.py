"""Measure the accuracy and the robustness of a model, clean and under attack."""

from fedrobust.evaluation.accuracy import Scores, accuracy, robust_accuracy, score
from fedrobust.evaluation.auditing import Audit, audit
from fedrobust.evaluation.certificate import Certificate, WorstShift, certificate, worst_shift
from fedrobust.evaluation.smoothness import smoothness_bound

__all__ = [
    "Audit",
    "Certificate",
    "Scores",
    "WorstShift",
    "accuracy",
    "audit",
    "certificate",
    "robust_accuracy",
    "score",
    "smoothness_bound",
    "worst_shift",
]
