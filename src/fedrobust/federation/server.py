"""The server's part of a round. It trusts no client: everything is checked before it is used."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from fedrobust.aggregators import Aggregation, Aggregator, Context
from fedrobust.aggregators.aggregator import NoAnswerError, apply, called, check, lowered
from fedrobust.aggregators.checks import finite_rows
from fedrobust.aggregators.in_blocks import SomeRows, aggregate_in_blocks
from fedrobust.compute.storages import compacted
from fedrobust.config.arguments import told, unfit
from fedrobust.config.component import component
from fedrobust.config.scalars import Count, Positive
from fedrobust.errors import ConfigError
from fedrobust.federation.columns import RoundColumns
from fedrobust.federation.projection import PROJECTIONS, AnyProjection, NoProjection
from fedrobust.federation.server_optimizer import (
    SERVER_OPTIMIZERS,
    AnyServerOptimizer,
    Plain,
    Slots,
)
from fedrobust.typing import Updates, Vector

NOT_FINITE = "the aggregated step is not finite"


@dataclass(frozen=True)
class Outcome:
    """The server's result for the rows of one round.

    ``vector`` [d] is the aggregated update, or None where the round makes no step; then ``reason``
    says why. ``kept`` are the rows that the rule selected, if it selects rows. ``dropped`` are the
    rows that were refused before the rule saw them. Both are row indices of the round's matrix.
    ``projected`` says that the step left Θ and was projected back, so that it differs from the
    vector's step.
    """

    vector: Vector | None
    memory: object
    kept: Tensor | None = None
    dropped: tuple[int, ...] = ()
    reason: str | None = None
    projected: bool = False


@component
class Server:
    """The server's step: θ ← Π_Θ(θ + lr · step), with Θ from ``projection``.

    The step is the aggregated update itself, or what ``optimizer`` makes of it and of earlier ones.
    ``root`` is the number of training examples that the server itself holds, drawn at random and
    given to no client. If it holds some, it trains on them in each round as a client does. The
    update goes to a rule that uses it, such as FLTrust.
    """

    lr: Positive = 1.0
    optimizer: AnyServerOptimizer = Plain()
    projection: AnyProjection = NoProjection()
    root: Count | None = None

    def inside(self, point: Vector) -> Vector:
        """Return Π_Θ(point). Raises: ``ConfigError`` where a user's projection gives no vector."""
        if type(self.projection) in PROJECTIONS:
            return self.projection.project(point)
        # A user's own projection may write to its input.
        return _point(self.projection.project(point.clone()), point, self.projection)

    def step(
        self, parameters: Vector, outcome: Outcome, slots: Slots = ()
    ) -> tuple[Vector, Outcome, Slots]:
        """Return the parameters after the step, what came of it, and the optimiser's new slots.

        Parameters and slots are unchanged where there is no step, or where it overflows.
        """
        if outcome.vector is None:
            return parameters, outcome, slots
        step, after_slots = self.stepped(slots, outcome.vector)
        after = parameters + self.lr * step
        if torch.isfinite(after).all() and all(bool(s.isfinite().all()) for s in after_slots):
            inside = self.inside(after)
            outcome = replace(outcome, projected=not torch.equal(inside, after))
            return inside, outcome, after_slots
        return parameters, replace(outcome, vector=None, reason=NOT_FINITE), slots

    def stepped(self, slots: Slots, update: Vector) -> tuple[Vector, Slots]:
        """Return the optimiser's step and slots. Raises: ``ConfigError`` for others' bad ones."""
        if type(self.optimizer) in SERVER_OPTIMIZERS:
            return self.optimizer.step(slots, update)
        # A user's own optimiser may write to what it is given.
        found: Any = self.optimizer.step(tuple(s.clone() for s in slots), update.clone())
        name = called(self.optimizer)
        if not isinstance(found, tuple) or len(found) != 2 or not isinstance(found[1], tuple):
            raise ConfigError(
                f"step of the server optimiser {name} must give (step, slots), a tensor and a "
                f"tuple of tensors; it gave {told(found)}"
            )
        for vector in (found[0], *found[1]):
            if not isinstance(vector, Tensor) or unfit(vector) or vector.shape != update.shape:
                raise ConfigError(
                    f"step of the server optimiser {name} must give tensors [{len(update)}]; it "
                    f"gave {told(vector)}"
                )
        return found[0].to(update), tuple(s.to(update) for s in found[1])


def _point(point: object, like: Vector, projection: object) -> Vector:
    """Return ``point``. Raises: ``ConfigError`` where it is no finite vector [d]."""
    if isinstance(point, Tensor) and not unfit(point) and point.shape == like.shape:
        if bool(torch.isfinite(point).all()):
            return point.to(like)
        given = "one that is not finite"
    else:
        given = told(point)
    raise ConfigError(
        f"the projection {called(projection)} must give the nearest point of its set, a tensor "
        f"[{len(like)}]; it gave {given}"
    )


def place(rows: Updates, at: Sequence[int], sent: Tensor, *, graph: bool = False) -> str:
    """Put the ``sent`` rows in their places; return why all are refused, or an empty text.

    Rows of another shape are refused, and so are tensors that are not dense or hold no real
    numbers: the server would use only half of a complex tensor. Whole numbers and truth values are
    accepted. The autograd history of the rows is dropped, unless ``graph``.
    """
    if unfit(sent) or tuple(sent.shape) != (len(at), rows.shape[1]):
        return _misshapen(sent, len(at), rows.shape[1])
    rows[list(at)] = (sent if graph else sent.detach()).to(rows)
    return ""


def _misshapen(sent: Tensor, count: int, d: int) -> str:
    kind = f", {why}," if (why := unfit(sent)) else ""
    cure = f"; row.expand({count}, -1) repeats one row" if not why and sent.numel() == d else ""
    return f"{told(sent)}{kind} in place of rows [{count}, {d}]{cure}"


def aggregate(
    rule: Aggregator,
    rows: Updates,
    context: Context,
    refused: Sequence[int] = (),
    *,
    graph: bool = False,
) -> Outcome:
    """Aggregate the finite rows of ``rows`` [n, d] that are not ``refused``.

    k dropped rows count against the tolerance of the rule: it sees n - k rows, with f lowered by k
    but not below 0. There is no step where its condition then fails, where it has no answer, or
    where its answer is not finite. The vector and the memory have no autograd history, unless
    ``graph``.
    """
    outcome = _aggregated(
        rule,
        finite_rows(rows),
        refused,
        context,
        lambda rule, good, context: apply(
            rule, rows if len(good) == len(rows) else rows[good], context
        ),
    )
    if graph or outcome.vector is None:
        return outcome
    return replace(outcome, vector=outcome.vector.detach(), memory=detached(outcome.memory))


def aggregate_columns(
    rule: Aggregator, columns: RoundColumns, context: Context, refused: Sequence[int] = ()
) -> Outcome:
    """Aggregate, in blocks of coordinates, the finite rows that are not ``refused``.

    The outcome is that of :func:`aggregate`. Raises: ``ConfigError`` for a rule that cannot.
    """
    return _aggregated(
        rule,
        columns.finite,
        refused,
        context,
        lambda rule, good, context: aggregate_in_blocks(rule, SomeRows(columns, good), context),
    )


def _aggregated(
    rule: Aggregator,
    finite: Sequence[bool],
    refused: Sequence[int],
    context: Context,
    answer: Callable[[Aggregator, list[int], Context], Aggregation],
) -> Outcome:
    """Return what ``answer`` makes of the good rows: it is given the rule that they are left to."""
    refuse = set(refused)
    good = [i for i, fit in enumerate(finite) if fit and i not in refuse]
    dropped = tuple(sorted(set(range(len(finite))) - set(good)))
    if dropped:
        if context.counts is not None:
            context = replace(context, counts=context.counts[good])
        rule = lowered(rule, len(dropped))
    try:
        check(rule, len(good))
    except ValueError as error:
        reason = _too_few(len(good), len(dropped), str(error))
        return Outcome(None, context.memory, dropped=dropped, reason=reason)
    try:
        result = answer(rule, good, context)
    except NoAnswerError as error:
        return Outcome(None, context.memory, dropped=dropped, reason=str(error))
    if not torch.isfinite(result.vector).all():
        return Outcome(None, context.memory, dropped=dropped, reason=NOT_FINITE)
    kept = result.kept
    if kept is not None and dropped:
        kept = torch.tensor(good, device=kept.device)[kept]
    return Outcome(result.vector, result.memory, kept, dropped)


def _too_few(left: int, dropped: int, error: str) -> str:
    """Return why a rule has too few rows: its own condition, and how many rows were dropped."""
    if not dropped:
        return f"{_counted(left, 'client')} took part: {error}"
    were = "was" if dropped == 1 else "were"
    return (
        f"{_counted(dropped, 'row')} {were} missing, not finite or of the wrong shape, which "
        f"leaves {left}: {error}"
    )


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def detached(value: Any) -> Any:
    """Return ``value``, a rule's memory or an attack's state, without autograd history.

    Of a storage, such as a round's rows, no more is kept than what the value reaches.
    """
    return compacted(_detached(value) if _has_history(value) else value)


def _detached(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach()
    if type(value) is dict:
        return {key: _detached(item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(map(_detached, value))
    return value


def _has_history(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.requires_grad
    if type(value) is dict:
        return any(map(_has_history, value.values()))
    return type(value) in (list, tuple) and any(map(_has_history, value))


def rooted(rule: Aggregator) -> bool:
    """Whether ``rule``, or a rule inside it, needs the server's own update."""
    return bool(getattr(rule, "rooted", False))
