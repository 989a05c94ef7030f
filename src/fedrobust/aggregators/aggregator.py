"""The interface of an aggregation rule: its input, its context and its answer."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Any, Protocol, TypeAlias

import torch
from torch import Tensor

from fedrobust.aggregators.answers import indices, vector
from fedrobust.config.arguments import told, unfit
from fedrobust.config.kind import Kind
from fedrobust.config.text import shortened
from fedrobust.errors import ConfigError
from fedrobust.typing import Indices, Updates, Vector


class NoAnswerError(ValueError):
    """A rule has no answer for valid rows in this round; the server then makes no step."""


@dataclass(frozen=True, eq=False)
class Context:
    """What the server knows besides the updates; a rule reads what it needs.

    ``counts`` [n]: the number of training examples of each row's client. It comes from the server's
    own records, never from a client's message. ``memory``: what the rule returned as memory in the
    round before. ``root`` [d]: an update that the server trained on its own data. ``generator``:
    the random generator of the round, for a rule that draws. Where it is None, such a rule draws
    the same each time.

    Raises: ``ValueError`` for a field of the wrong kind.
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
                    f"Context: {name} must be a tensor or None, got {told(value)}; use "
                    "torch.tensor to convert a list or an array"
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
    """A rule's answer: the vector [d], the rows kept and the memory.

    ``kept``: the indices of the rows that the rule selected, ascending; None for a rule that does
    not select rows. ``memory``: what the rule wants to find in the next round's context.
    """

    vector: Vector
    kept: Indices | None = None
    memory: object = None


class Aggregator(Protocol):
    """A rule that turns one round's updates [n, d] into one vector [d]."""

    def __call__(self, updates: Updates, context: Context = Context()) -> Vector:
        """Return the aggregated vector alone."""
        ...

    def aggregate(self, updates: Updates, context: Context) -> Aggregation:
        """Return vector, rows kept and memory. Raises: ``ValueError`` for invalid input."""
        ...

    def check(self, n: int) -> None:
        """Refuse too few rows. Raises: ``ValueError`` that states n, f and the condition."""
        ...

    def tolerating(self, dropped: int) -> "Aggregator":
        """Return the rule for the rows that remain after ``dropped`` unusable rows were removed.

        The dropped rows count as Byzantine: n falls by ``dropped`` and f falls to max(0,
        f - dropped).
        """
        ...


AGGREGATOR = Kind(
    "aggregator",
    has=("aggregate",),
    may_hold={
        "check": Callable,
        "tolerating": Callable,
        "rooted": bool,
        "by_coordinate": bool,
    },
    or_is=(Callable, "a function of the updates"),
    calls={
        "aggregate": "updates, context",
        "check": "n",
        "tolerating": "dropped",
        "__call__": "updates",
    },
)
AnyAggregator: TypeAlias = Annotated[Aggregator, AGGREGATOR]


def check(rule: Aggregator, n: int) -> None:
    """Refuse ``n`` rows where ``rule`` needs more. Raises: ``ValueError`` with the condition."""
    if n == 0:
        raise ValueError("there are no rows to aggregate")
    if hasattr(rule, "check"):
        rule.check(n)


def apply(rule: Aggregator, rows: Updates, context: Context) -> Aggregation:
    """Return the rule's full answer; a user's own rule may be a plain function of the rows.

    A user's rule may give ``kept`` as a mask or as indices, in a tensor, an array or a list; it is
    converted to ascending indices. A vector of whole numbers is accepted.

    Raises: ``ConfigError`` where the answer is not one vector [d], or names rows that do not exist.
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
    if type(rule).__module__.startswith("fedrobust."):  # answers of fedrobust's rules need no check
        found = given.to(rows)
        return answer if found is given else replace(answer, vector=found)
    found = vector(called(rule), given, rows)
    if kept is not None:
        kept = indices(called(rule), kept, len(rows))
    return replace(answer, vector=found, kept=kept)


def selected(rule: Aggregator, updates: Updates, context: Context = Context()) -> Indices:
    """Return the rows of ``updates`` [n, d] that a selecting rule takes, as ascending indices.

    Rules that select have it as their method: ``rule.select(updates)``.

    Raises: ``ValueError`` for updates that the rule refuses, or around a rule that selects none.

    >>> from fedrobust.aggregators import MultiKrum
    >>> rows = torch.tensor([[9.0], [1.0], [1.1], [0.9], [1.2]])
    >>> MultiKrum(f=1).select(rows)
    tensor([1, 2])
    """
    kept = apply(rule, updates, context).kept
    if kept is None:
        raise ValueError(f"{called(rule)} goes around a rule that does not select rows")
    return kept


def called(component: object) -> str:
    """Return the name of a rule, or of another component, for a message."""
    name = getattr(component, "name", None) or getattr(component, "__name__", None)
    return shortened(name) if isinstance(name, str) else type(component).__name__


def lowered(rule: Aggregator, dropped: int) -> Aggregator:
    """Return ``rule`` with f lowered by ``dropped``, where it has an f."""
    if not hasattr(rule, "tolerating"):
        return rule
    found = rule.tolerating(dropped)
    if not callable(found) and not hasattr(found, "aggregate"):
        raise ConfigError(
            f"tolerating of the aggregator {called(rule)} must give a rule; it gave {told(found)}"
        )
    return found
