"""What an aggregation rule is, what it is told, what it answers, and which input it refuses."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Any, Protocol, TypeAlias

import torch
from torch import Tensor

from fedrobust.aggregators.answers import indices, vector
from fedrobust.config.arguments import shortened, told, unfit
from fedrobust.config.kind import Kind
from fedrobust.errors import ConfigError
from fedrobust.typing import Indices, Updates, Vector


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


AGGREGATOR = Kind(
    "aggregator",
    has=("aggregate",),
    may_hold={"check": Callable, "tolerating": Callable, "rooted": bool},
    or_is=(Callable, "a function of the updates"),
)
AnyAggregator: TypeAlias = Annotated[Aggregator, AGGREGATOR]


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
