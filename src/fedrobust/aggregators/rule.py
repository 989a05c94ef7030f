"""What an aggregation rule is, what it is told, what it answers, and which input it refuses."""

import math
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from fedrobust.aggregators.answers import indices, vector
from fedrobust.config.arguments import shortened, told, unfit
from fedrobust.errors import ConfigError
from fedrobust.typing import Indices, Updates, Vector

_ROWS_NAMED = 10
"""A message lists this many bad rows and counts the rest."""
_FLOATS = frozenset({torch.float16, torch.bfloat16, torch.float32, torch.float64})


class NoAnswerError(ValueError):
    """Fit rows to which a rule has no answer in this round: the server then makes no step."""


@dataclass(frozen=True, eq=False)
class Context:
    """What the server itself knows beside the updates; a rule reads what it needs.

    ``counts`` [n]: training examples of each row's client, from the server's own books, never from
    a client's message. ``memory``: what the rule returned in the round before. ``root`` [d]: an
    update that the server trained on data of its own. ``generator``: the round's draws, for a rule
    that draws; where it is None, such a rule draws the same each time.

    Raises: ``ValueError`` for a field that is no such thing.
    """

    counts: Tensor | None = None
    memory: object = None
    root: Vector | None = None
    generator: torch.Generator | None = None

    def __post_init__(self) -> None:
        for name in ("counts", "root"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, Tensor):
                raise ValueError(
                    f"Context: {name} must be a tensor or None, got {told(value)}; torch.tensor "
                    "makes one of a list or an array"
                )
            if value is not None and (why := unfit(value)):
                raise ValueError(
                    f"Context: {name} must be a dense tensor of plain numbers; this one is {why}"
                )
        if self.generator is not None and not isinstance(self.generator, torch.Generator):
            raise ValueError(
                f"Context: generator must be a torch.Generator or None, got {told(self.generator)}"
            )


@dataclass(frozen=True, eq=False)
class Aggregation:
    """A rule's answer: the vector [d], and how it came about.

    ``kept``: the rows that the rule selected, ascending, where it selects rows, else None.
    ``memory``: what the rule wants back in the next round's context.
    """

    vector: Vector
    kept: Indices | None = None
    memory: object = None


class Aggregator(Protocol):
    """A rule that turns one round's updates [n, d] into one vector [d]."""

    def __call__(self, updates: Updates, context: Context = Context()) -> Vector:
        """The aggregated vector alone."""
        ...

    def aggregate(self, updates: Updates, context: Context) -> Aggregation:
        """The vector, the rows kept and the memory. Raises: ``ValueError`` for unfit input."""
        ...

    def check(self, n: int) -> None:
        """Raises: ``ValueError`` naming n, f and the condition, where n rows are too few."""
        ...

    def tolerating(self, dropped: int) -> "Aggregator":
        """The rule for the rows that remain after ``dropped`` unusable ones were taken out.

        They count as Byzantine: n falls by ``dropped`` and f to max(0, f - dropped).
        """
        ...


def check(rule: Aggregator, n: int) -> None:
    """Refuse ``n`` rows where ``rule`` needs more. Raises: ``ValueError`` naming the condition."""
    if n == 0:
        raise ValueError("there is no row to aggregate")
    if hasattr(rule, "check"):
        rule.check(n)


def apply(rule: Aggregator, rows: Updates, context: Context) -> Aggregation:
    """The rule's full answer; a user's own rule may be a plain function of the rows.

    What a user's rule says it ``kept`` may be a mask or indices, in a tensor, an array or a list;
    it becomes ascending indices. Whole numbers in its vector are numbers.

    Raises: ``ConfigError`` where the answer is not one vector [d], or names rows there are not.
    """
    if hasattr(rule, "aggregate"):
        answer = rule.aggregate(rows, context)
        if not isinstance(answer, Aggregation):
            raise ConfigError(
                f"the aggregator {called(rule)} must return an Aggregation from aggregate, such as "
                f"Aggregation(vector); it returned {told(answer)}"
            )
    else:
        given: Any = rule(rows)
        whole = isinstance(given, Aggregation)
        answer = given if whole else Aggregation(given, memory=context.memory)
    given, kept = answer.vector, answer.kept
    if type(rule).__module__.startswith("fedrobust."):  # whose answers are of the right kind
        found = given.to(rows)
        return answer if found is given else replace(answer, vector=found)
    found = vector(called(rule), given, rows)
    if kept is not None:
        kept = indices(called(rule), kept, len(rows))
    return replace(answer, vector=found, kept=kept)


def called(component: object) -> str:
    """What to call a rule, or another component, in a message."""
    name = getattr(component, "name", None) or getattr(component, "__name__", None)
    return shortened(name) if isinstance(name, str) else type(component).__name__


def lowered(rule: Aggregator, dropped: int) -> Aggregator:
    """``rule`` with ``dropped`` fewer Byzantine rows to tolerate, where it tolerates a number."""
    if not hasattr(rule, "tolerating"):
        return rule
    found = rule.tolerating(dropped)
    if not callable(found) and not hasattr(found, "aggregate"):
        raise ConfigError(
            f"tolerating of the aggregator {called(rule)} must give a rule; it gave {told(found)}"
        )
    return found


def check_within(wrapper: Aggregator, rule: Aggregator, n: int) -> None:
    """Check ``rule``, which a ``wrapper`` hands n rows. Raises: ``ValueError`` naming both."""
    name = type(wrapper).__name__
    if n == 0:
        raise ValueError(f"{name} needs n >= 1: n = 0 needs 1")
    try:
        check(rule, n)
    except ValueError as error:
        raise ValueError(f"{name} hands its rule n = {n} rows: {error}") from error


def require(rule: Aggregator, n: int, least: int, condition: str, f: int | None = None) -> None:
    """Raises: ``ValueError`` where n is below ``least``, the number that ``condition`` means."""
    if n < least:
        given = f"n = {n}" if f is None else f"n = {n}, f = {f}"
        raise ValueError(f"{type(rule).__name__} needs {condition}: {given} needs {least}")


def validated(rule: Aggregator, updates: Updates, context: Context) -> Updates:
    """``updates`` without their autograd history, once they and ``context.counts`` are fit to use.

    Raises: ``ValueError`` that says what is wrong and which rows are.
    """
    name = type(rule).__name__
    if not isinstance(updates, Tensor):
        cure = "torch.stack makes one of a list of rows"
        if hasattr(updates, "__array__"):
            cure = "torch.from_numpy makes one of an array"
        raise ValueError(
            f"{name}: updates must be one tensor [n, d], got {type(updates).__name__}; {cure}"
        )
    if why := unfit(updates):
        raise ValueError(
            f"{name}: updates must be a dense tensor of plain numbers; this one is {why}"
        )
    if updates.ndim != 2:
        raise ValueError(f"{name}: updates must be [n, d], got shape {list(updates.shape)}")
    if not isinstance(context, Context):
        raise ValueError(f"{name}: context must be a Context, got {told(context)}")
    n, d = updates.shape
    rule.check(n)
    if d == 0:
        raise ValueError(f"{name}: updates of shape {[n, d]} have no coordinates (d = 0)")
    if updates.dtype not in _FLOATS:
        raise ValueError(
            f"{name}: updates must be floating point, got {updates.dtype}; "
            "convert them with .float() if that is what they mean"
        )
    updates = updates.detach()
    _refuse_non_finite(name, updates)
    if context.counts is not None:
        _check_counts(name, context.counts, n)
    return updates


def finite_rows(rows: Updates) -> list[bool]:
    """Whether each row is finite."""
    # No sum is finite where an entry is not, and one sum is the cheapest look at all of them.
    if math.isfinite(float(rows.detach().sum())):
        return [True] * len(rows)
    finite: list[bool] = torch.isfinite(torch.linalg.vector_norm(rows, torch.inf, dim=1)).tolist()
    return finite


def _refuse_non_finite(name: str, updates: Updates) -> None:
    # The extremes are non-finite exactly where some entry is, and finding them allocates nothing.
    if torch.stack(torch.aminmax(updates)).isfinite().all():
        return
    low, high = torch.aminmax(updates, dim=1)
    bad = (~(low.isfinite() & high.isfinite())).nonzero()[:, 0].tolist()
    listed = ", ".join(map(str, bad[:_ROWS_NAMED]))
    more = f" and {len(bad) - _ROWS_NAMED} more" if len(bad) > _ROWS_NAMED else ""
    raise ValueError(
        f"{name}: NaN or infinity in row{'s' if len(bad) > 1 else ''} {listed}{more}; drop what is "
        f"not finite and aggregate the others with rule.tolerating({len(bad)})"
    )


def _check_counts(name: str, counts: Tensor, n: int) -> None:
    if counts.shape != (n,):
        raise ValueError(
            f"{name}: counts must be one number for each of the {n} rows, "
            f"got shape {list(counts.shape)}"
        )
    low, high = torch.aminmax(counts.double())
    if low >= 0 and 0 < high < torch.inf:  # neither of which is so where some count is NaN
        return
    bad = (~counts.isfinite() | (counts < 0)).nonzero()[:, 0].tolist()
    if bad:
        raise ValueError(
            f"{name}: counts must be finite and not negative, "
            f"got {counts[bad[0]].item()} for row {bad[0]}"
        )
    raise ValueError(f"{name}: counts are all zero, so no row has any weight")
