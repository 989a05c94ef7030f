"""Two audits of one model that disagree: what each has seen, and which of them to believe."""

from dataclasses import dataclass
from typing import get_args

from fedrobust.evaluation.auditing.battery import Budget
from fedrobust.records.schema.audit import OwnAudit

_BUDGETS: tuple[str, ...] = get_args(Budget)


@dataclass(frozen=True)
class Seen:
    """What one audit has seen of a model, and its verdict. ``whose`` names it in a sentence."""

    whose: str
    verdict: str
    robust: float
    examples: int
    budget: str
    attacks: int | None = None

    @classmethod
    def of(cls, whose: str, own: OwnAudit) -> "Seen":
        """Return what the audit in a run's own record has seen."""
        return cls(whose, own.verdict, own.robust, own.examples, own.budget, own.attacks)

    def __str__(self) -> str:
        attacks = "" if self.attacks is None else f", {self.attacks} attacks"
        return (
            f"{self.verdict}, {100 * self.robust:.1f} % robust ({self.examples:,} test examples, "
            f"budget {self.budget}{attacks})"
        )

    def more(self, other: "Seen") -> list[str]:
        """Return in what this audit has seen more than the other one."""
        found = ["more examples"] if self.examples > other.examples else []
        if self._rank > other._rank:
            found.append("a larger budget")
        elif self._rank == other._rank and (self.attacks or 0) > (
            other.attacks or self.attacks or 0
        ):
            found.append("more attacks")
        return found

    @property
    def _rank(self) -> int:
        return _BUDGETS.index(self.budget) if self.budget in _BUDGETS else -1


def disagreement(here: Seen, there: Seen) -> str:
    """Return what to make of two audits of one model; empty where their verdicts are the same.

    The audit that has seen more is to be believed. Where each has seen more in another way, or both
    have seen as much, a third one must decide.
    """
    if here.verdict == there.verdict:
        return ""
    both = f"{here.whose} and {there.whose} disagree: {here}; {there}."
    both = f"{both[:1].upper()}{both[1:]}"
    mine, theirs = here.more(there), there.more(here)
    if mine and theirs:
        samples = max(here.examples, there.examples)
        budget = max((here, there), key=lambda seen: seen._rank).budget
        return (
            f"{both} Believe neither yet: the first has {' and '.join(mine)}, the second has "
            f"{' and '.join(theirs)}. Audit with --budget {budget} --samples {samples}."
        )
    if not mine and not theirs:
        return f"{both} Believe neither yet: they have seen as much. Audit with more --samples."
    better, why = (here, mine) if mine else (there, theirs)
    return f"{both} Believe {better.whose}: it has {' and '.join(why)}."
