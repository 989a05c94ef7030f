"""The Wasserstein robustness that a run measures: the certificate, and the error under shift."""

import math
from dataclasses import asdict

from torch import nn

from fedrobust.config.component import component
from fedrobust.config.scalars import Count, NonNegative
from fedrobust.data import Split
from fedrobust.errors import ConfigError
from fedrobust.evaluation.certificate import Certificate, worst_shift
from fedrobust.evaluation.shift import Method, error_under_shift
from fedrobust.objectives import AnyPrice, Objective, WassersteinDRO
from fedrobust.perturb.wasserstein import THOROUGH, Ascent
from fedrobust.typing import Images, Json, Labels


@component
class Wasserstein:
    """Measure the certificate at every evaluation, and at the end the error on shifted examples.

    ``gamma`` is the objective's own unless given. ``levels`` are mean squared distances ρ. Each of
    ``methods`` moves ``samples`` test examples, drawn at random, to each level; see
    :func:`~fedrobust.evaluation.shift.error_under_shift`. At the end there is a certificate on as
    many training examples too. Without ``samples`` these are all test examples, and as many.
    """

    gamma: AnyPrice | None = None
    ascent: Ascent = THOROUGH
    levels: tuple[NonNegative, ...] = ()
    methods: tuple[Method, ...] = ("wrm", "pgd")
    samples: Count | None = None

    def price(self, objective: Objective, train: Split) -> float:
        """Return γ. Raises: ``ConfigError`` where neither this nor the objective has one."""
        if self.gamma is not None:
            given = WassersteinDRO(self.gamma).settled(train)
        elif isinstance(objective, WassersteinDRO):
            given = objective.settled(train)
        else:
            raise ConfigError(
                "evaluation.wasserstein.gamma: is required, as the objective has no gamma"
            )
        return given.price

    def certify(
        self,
        model: nn.Module,
        x: Images,
        y: Labels,
        gamma: float,
        batch: int,
        classes: bool = False,
    ) -> Json:
        """Return the certificate as JSON; with ``classes``, also the certificate of each class."""
        found = worst_shift(model, x, y, gamma=gamma, ascent=self.ascent, batch_size=batch)
        content = _json(found.certificate())
        if classes:
            content["by_class"] = {str(k): _json(part) for k, part in found.by_class().items()}
        return content

    def shift(self, model: nn.Module, x: Images, y: Labels, batch: int) -> list[Json]:
        """Return the error at each level by each method, as JSON."""
        scores = [
            score
            for method in self.methods
            for score in error_under_shift(
                model,
                x,
                y,
                levels=self.levels,
                method=method,
                ascent=self.ascent,
                batch_size=batch,
            )
        ]
        return [_finite(asdict(score)) for score in scores]


def _json(found: Certificate) -> Json:
    return _finite({**asdict(found), "answers": list(found.answers), "certified": found.certified})


def _finite(content: Json) -> Json:
    """Replace numbers that are not finite by None, since JSON has no infinity."""
    return {
        k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in content.items()
    }
