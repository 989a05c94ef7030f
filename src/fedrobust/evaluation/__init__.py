"""Measuring what a model can do, clean and under attack."""

from fedrobust.evaluation.accuracy import Scores, accuracy, robust_accuracy, score

__all__ = ["Scores", "accuracy", "robust_accuracy", "score"]
