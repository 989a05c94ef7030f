"""FLTrust: each row is trusted as far as it agrees with the server's own update."""

from typing import ClassVar, Literal

import torch
from torch import Tensor

from fedrobust.aggregators.aggregator import Aggregation, Context, NoAnswerError
from fedrobust.aggregators.checks import require, validated
from fedrobust.aggregators.kernels.products import combination, cosines, norms
from fedrobust.config.component import component
from fedrobust.typing import Updates, Vector

_ROUNDING = 1e-12
"""A smaller cosine may be 0 but for rounding: a row with this cosine must not get all the trust."""


@component
class FLTrust:
    """The rows, scaled to the norm of the server's own update g₀ and weighted by agreement with g₀.

    Σ TSᵢ (‖g₀‖ / ‖xᵢ‖) xᵢ / Σ TSᵢ with the trust TSᵢ = max(0, cos(xᵢ, g₀)); n >= 1 rows, and any
    number of them may be Byzantine. A zero row has no trust. Where no row has trust, or g₀ = 0, the
    answer is 0. A cosine below 10⁻¹² counts as 0. g₀ is the context's ``root``. In a run,
    the server trains on ``server.root`` clean examples for it: ``server: {root: 100}``.

    Raises: ``ValueError`` for invalid updates, or without a finite root update [d].

    Reference: Cao, Fang, Liu, Gong, FLTrust: Byzantine-robust Federated Learning via Trust
    Bootstrapping, NDSS 2021.

    Cost: O(n·d), and the server's own training.

    Example: ``{name: fl-trust}``
    """

    rooted: ClassVar[bool] = True
    name: Literal["fl-trust"] = "fl-trust"

    def __call__(self, updates: Updates, context: Context = Context()) -> Vector:
        """Return the mean [d] of ``updates`` [n, d], weighted by trust."""
        return self.aggregate(updates, context).vector

    def aggregate(self, updates: Updates, context: Context) -> Aggregation:
        """Return the vector alone: the rule selects no rows and has no memory."""
        updates = validated(self, updates, context)
        root = trusted(context.root, updates)
        length = norms(root[None])[0]
        if length == 0:
            return Aggregation(torch.zeros_like(updates[0]))
        lengths = norms(updates)
        agreement = cosines(updates, lengths, root / length)
        trust = torch.where(agreement > _ROUNDING, agreement, 0)
        if not trust.any():
            return Aggregation(torch.zeros_like(updates[0]))
        # Where the length is 0 the trust is 0, and the share must be 0, not 0 / 0.
        shares = torch.where(trust > 0, trust / trust.sum() * (length / lengths), 0)
        return Aggregation(combination(shares, updates).to(updates.dtype))

    def check(self, n: int) -> None:
        """Require n >= 1. Raises: ``ValueError`` otherwise."""
        require(self, n, 1, "n >= 1")

    def tolerating(self, dropped: int) -> "FLTrust":
        """Return the rule itself: it has no number of tolerated rows to lower."""
        return self


def trusted(root: Tensor | None, updates: Updates) -> Vector:
    """Return ``root`` in float64. Raises: ``ValueError`` where it is not a finite vector [d]."""
    d = updates.shape[1]
    if root is None:
        raise ValueError(
            "FLTrust needs the server's own update: set server.root in a config to the "
            "number of examples that the server holds, or give Context(root=...) in Python"
        )
    if root.shape != (d,):
        raise ValueError(f"FLTrust: the root update must be [{d}], got shape {list(root.shape)}")
    if not root.isfinite().all():
        raise NoAnswerError("FLTrust: the root update has NaN or infinity")
    return root.detach().to(updates.device, torch.float64)
