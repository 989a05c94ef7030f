"""What an audit says: shares with intervals, what each attack took, the signs, the verdict."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from scipy.stats import binomtest

if TYPE_CHECKING:
    from fedrobust.evaluation.auditing.battery import Taken
    from fedrobust.evaluation.auditing.signs import Sign, Verdict


@dataclass(frozen=True)
class Share:
    """``count`` of ``total`` examples, with Wilson's 95 % interval."""

    count: int
    total: int

    @property
    def value(self) -> float:
        """The share itself."""
        return self.count / self.total

    @property
    def low(self) -> float:
        """The lower end of the interval."""
        return float(self._interval.low)

    @property
    def high(self) -> float:
        """The upper end of the interval."""
        return float(self._interval.high)

    @property
    def _interval(self) -> Any:
        return binomtest(self.count, self.total).proportion_ci(0.95, method="wilson")

    def __str__(self) -> str:
        return f"{100 * self.value:.1f} % ({100 * self.low:.1f} to {100 * self.high:.1f})"


@dataclass(frozen=True)
class Audit:
    """What a model claims, what survives, and whether the claim is real.

    ``clean`` is its accuracy, ``claimed`` that under plain PGD, ``robust`` that under the whole
    battery, example by example the worst. ``shares`` are the same with intervals. ``taken`` says
    what each attack did, ``signs`` what each test of the verdict found, ``settings`` what was
    asked.
    """

    verdict: "Verdict"
    clean: float
    claimed: float
    robust: float
    shares: dict[str, Share]
    taken: tuple["Taken", ...]
    signs: tuple["Sign", ...]
    notes: tuple[str, ...]
    settings: dict[str, str | float | int]

    def __str__(self) -> str:
        asked = ", ".join(f"{name} {value}" for name, value in self.settings.items())
        lines = [f"{self.verdict}: {self.reason}", f"  {asked}"]
        lines += [f"  {name} {share}" for name, share in self.shares.items()]
        lines += [f"  {sign}" for sign in self.signs]
        return "\n".join(lines + [f"  note: {note}" for note in self.notes])

    @property
    def reason(self) -> str:
        """One sentence on why."""
        bad = [sign.name for sign in self.signs if sign.masked]
        open_ = [sign.name for sign in self.signs if sign.masked is None]
        if self.verdict == "masked":
            return (
                f"plain PGD is fooled ({', '.join(bad)}); robust is an upper bound that better "
                "attacks on such a model would lower"
            )
        if self.verdict == "inconclusive":
            if not open_:
                return "no sign of masking, but the model cannot be judged (see the notes)"
            return f"too few examples, or too unsteady a model, to tell ({', '.join(open_)})"
        lost = 100 * (self.claimed - self.robust)
        return f"no sign of masking; the battery takes {lost:.1f} points off the claim"
