"""Audits during training, which compare claimed and true robust accuracy over the rounds."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from fedrobust.config.component import component
from fedrobust.config.scalars import Count, Flag
from fedrobust.evaluation.auditing.auditor import audit
from fedrobust.evaluation.auditing.battery import WIDEST, Budget
from fedrobust.perturb import Pgd
from fedrobust.typing import Images, Labels


@component
class Auditing:
    """An audit at every ``every``-th evaluation, on ``samples`` of its examples.

    They are drawn at random, once. The last evaluation and the test split are always audited.
    The claim is the evaluation's own attack, which must be PGD on pixels. The audit reveals a model
    that has come to mask its gradients: the claimed accuracy stays high while the true one falls.
    The audit of the test split takes ``test_samples``, as many as ``samples`` if left out.
    ``surrogates`` adds black-box transfer: two networks of the same kind are trained without the
    federation, one plainly and one adversarially, and their adversarial examples are tried.
    """

    budget: Budget = "quick"
    samples: Count = 200
    test_samples: Count | None = None
    every: Count = 1
    surrogates: Flag = False

    @classmethod
    def named(cls, value: Any) -> Any:
        """Read ``quick`` as {budget: quick}."""
        return {"budget": value} if isinstance(value, str) else value

    def look(
        self,
        model: nn.Module,
        x: Images,
        y: Labels,
        claim: Pgd,
        batch: int,
        seed: int,
        surrogates: Sequence[nn.Module] = (),
    ) -> dict[str, Any]:
        """Return the verdict, the claimed and the true robust accuracy, and the signs.

        ``under`` is the accuracy under each attack that ran on every example, alone.
        """
        found = audit(
            model,
            x,
            y,
            eps=claim.eps,
            norm=claim.norm,
            budget=self.budget,
            claim=claim,
            batch_size=batch,
            seed=seed,
            surrogates=surrogates,
        )
        right = found.shares["clean"].count
        return {
            "verdict": found.verdict,
            "claimed": found.claimed,
            "robust": found.robust,
            "examples": len(x),
            "budget": self.budget,
            "attacks": len(found.taken),
            "masked": [sign.name for sign in found.signs if sign.word == "masked"],
            "signs": {sign.name: sign.value for sign in found.signs},
            "under": {
                taken.name: (right - taken.fell) / len(x)
                for taken in found.taken
                if taken.tried == right and taken.name != WIDEST
            },
        }
