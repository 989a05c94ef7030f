"""Objectives: what one client minimises, one file for each objective."""

from fedrobust.config.by_round import Phase
from fedrobust.objectives.adversarial import Adversarial
from fedrobust.objectives.erm import ERM
from fedrobust.objectives.objective import (
    OBJECTIVE,
    AnyObjective,
    LossContext,
    Objective,
    mean_cross_entropy,
    own_loss,
    settled,
)
from fedrobust.objectives.wasserstein_dro import AnyPrice, Relative, WassersteinDRO

OBJECTIVES = OBJECTIVE.of(ERM, Adversarial, WassersteinDRO)
"""All objectives. Add a new objective here."""

__all__ = [
    "ERM",
    "OBJECTIVES",
    "Adversarial",
    "AnyObjective",
    "AnyPrice",
    "LossContext",
    "Objective",
    "Phase",
    "Relative",
    "WassersteinDRO",
    "mean_cross_entropy",
    "own_loss",
    "settled",
]
