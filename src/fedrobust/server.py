"""The server's side of a round. It trusts nobody: what arrives is checked before it is used."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fedrobust.aggregators import Aggregator, Context
from fedrobust.aggregators.rule import NoAnswerError, apply, check, lowered
from fedrobust.component import Count, Positive, component
from fedrobust.projection import AnyProjection, Everywhere
from fedrobust.typing import Updates, Vector

NOT_FINITE = "the aggregated step is not finite"


@dataclass(frozen=True)
class Outcome:
    """What the server makes of a round's rows.

    ``vector`` [d] is the aggregated update, or None where the round applies no step, for which
    ``reason`` says why. ``kept`` are the rows that the rule selected, where it selects, and
    ``dropped`` those refused before it saw them, both as rows of the round's matrix.
    ``projected`` says that the step left Θ and was cut back, so that it was not the vector's.
    """

    vector: Vector | None
    memory: object
    kept: Tensor | None = None
    dropped: tuple[int, ...] = ()
    reason: str | None = None
    projected: bool = False


@component
class Server:
    """The server's step: θ ← Π_Θ(θ + lr · (aggregated update)), Θ from ``projection``.

    ``root`` is how many training examples the server holds itself, drawn at random and given to no
    client. Where it holds some, it trains on them each round as a client does, and the update goes
    to a rule that trusts it, such as FLTrust.
    """

    lr: Positive = 1.0
    projection: AnyProjection = Everywhere()
    root: Count | None = None

    def step(self, parameters: Vector, outcome: Outcome) -> tuple[Vector, Outcome]:
        """The parameters after the step; the same ones where there is none, or it overflows."""
        if outcome.vector is None:
            return parameters, outcome
        after = parameters + self.lr * outcome.vector
        if torch.isfinite(after).all():
            inside = self.projection.project(after)
            return inside, replace(outcome, projected=not torch.equal(inside, after))
        return parameters, replace(outcome, vector=None, reason=NOT_FINITE)


def place(rows: Updates, at: Sequence[int], sent: object) -> tuple[int, ...]:
    """Put the ``sent`` rows in their places, and return those refused for their shape."""
    if not isinstance(sent, Tensor) or tuple(sent.shape) != (len(at), rows.shape[1]):
        return tuple(at)
    rows[list(at)] = sent.to(rows)
    return ()


def aggregate(
    rule: Aggregator, rows: Updates, context: Context, refused: Sequence[int] = ()
) -> Outcome:
    """Aggregate the finite rows of ``rows`` [n, d] that are not ``refused``.

    k dropped rows count against the tolerance of the rule: it sees n - k rows, with f lowered by k
    but not below 0. Where its condition then fails, it has no answer, or its answer is not finite,
    there is no step.
    """
    refuse = set(refused)
    finite = torch.isfinite(torch.linalg.vector_norm(rows, torch.inf, dim=1)).tolist()
    good = [i for i, fit in enumerate(finite) if fit and i not in refuse]
    dropped = tuple(sorted(set(range(len(rows))) - set(good)))
    if dropped:
        rows = rows[good]
        if context.counts is not None:
            context = replace(context, counts=context.counts[good])
        rule = lowered(rule, len(dropped))
    try:
        check(rule, len(good))
    except ValueError as error:
        reason = f"{len(dropped)} rows were not finite or had the wrong shape; {error}"
        return Outcome(None, context.memory, dropped=dropped, reason=reason)
    try:
        result = apply(rule, rows, context)
    except NoAnswerError as error:
        return Outcome(None, context.memory, dropped=dropped, reason=str(error))
    if not torch.isfinite(result.vector).all():
        return Outcome(None, context.memory, dropped=dropped, reason=NOT_FINITE)
    kept = result.kept
    if kept is not None and dropped:
        kept = torch.tensor(good, device=kept.device)[kept]
    return Outcome(result.vector, result.memory, kept, dropped)


def rooted(rule: Aggregator) -> bool:
    """Whether ``rule``, or one within it, needs the server's own update."""
    return bool(getattr(rule, "rooted", False))
