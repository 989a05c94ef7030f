"""The result of an audit: shares with intervals, each attack's result, the signs, the verdict."""

import math
from dataclasses import asdict, dataclass
from typing import Any

from fedrobust.config.text import shortened
from fedrobust.evaluation.auditing import wording
from fedrobust.evaluation.auditing.indicators import BATTERY, LIMITS, Indicator, Verdict
from fedrobust.evaluation.auditing.loss_surface import Surface
from fedrobust.evaluation.auditing.runner import Taken
from fedrobust.evaluation.intervals import Share
from fedrobust.records.reading import shaped
from fedrobust.records.schema.audit import AuditRecord


@dataclass(frozen=True)
class Audit:
    """The accuracy that a model claims under attack, the accuracy that remains, and a verdict.

    ``clean`` is its accuracy, ``claimed`` its accuracy under plain PGD, and ``robust`` its accuracy
    under the whole battery: an example counts if no attack takes it. ``shares`` are these three
    with intervals. ``taken`` has the result of each attack, ``signs`` the result of each test of
    the verdict, ``settings`` the arguments of the audit, and ``surface`` the loss around some
    examples.
    """

    verdict: Verdict
    clean: float
    claimed: float
    robust: float
    shares: dict[str, Share]
    taken: tuple[Taken, ...]
    signs: tuple[Indicator, ...]
    notes: tuple[str, ...]
    settings: dict[str, str | float | int]
    surface: Surface

    def to_json(self) -> dict[str, Any]:
        """Return everything in this result as JSON, with the intervals."""
        content = asdict(self)
        content["shares"] = {
            name: asdict(share) | {"value": share.value, "low": share.low, "high": share.high}
            for name, share in self.shares.items()
        }
        content["signs"] = [asdict(s) | {"limit": s.limit, "word": s.word} for s in self.signs]
        return content

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "Audit":
        """Read what :meth:`to_json` wrote. Raises: ``ValueError`` that says what is wrong."""
        found = shaped(AuditRecord, content)
        if strange := [sign.name for sign in found.signs if sign.name not in LIMITS]:
            raise ValueError(f"signs: there is no sign {shortened(strange[0])}")
        signs = tuple(Indicator(**asdict(sign)) for sign in found.signs)
        # An older record may count the battery's lead as masking, too.
        masked = any(s.word == "masked" or (s.name == BATTERY and s.beyond) for s in signs)
        fine = all(sign.beyond is False for sign in signs)
        if (found.verdict == "masked" and not masked) or (found.verdict == "genuine" and not fine):
            raise ValueError(f"verdict: {found.verdict} does not follow from the signs")
        return cls(
            verdict=found.verdict,
            clean=found.clean,
            claimed=found.claimed,
            robust=found.robust,
            shares={name: Share(**asdict(share)) for name, share in found.shares.items()},
            taken=tuple(Taken(**asdict(taken)) for taken in found.taken),
            signs=signs,
            notes=found.notes,
            settings=found.settings,
            surface=Surface(**asdict(found.surface)),
        )

    def __str__(self) -> str:
        lines = [f"{self.verdict}: {self.reason}", ""]
        lines += [f"  {wording.SHARES[name]:37} {share}" for name, share in self.shares.items()]
        lines += ["", f"  {wording.settings(self.settings)}", "", "  What was tried and found:"]
        lines += [line for sign in self.signs for line in wording.lines(sign, self.claimed)]
        return "\n".join(lines + [f"  note: {note}" for note in self.notes])

    @property
    def reason(self) -> str:
        """One sentence that gives the reason for the verdict."""
        titles = {sign.name: wording.CHECKS[sign.name].title for sign in self.signs}
        bad = [titles[sign.name] for sign in self.signs if sign.word == "masked"]
        open_ = [titles[sign.name] for sign in self.signs if sign.word == "unsure"]
        lost = 100 * (self.claimed - self.robust)
        if self.verdict == "masked":
            return (
                f"plain PGD does not show what this model withstands: {len(bad)} of "
                f"{sum(sign.of_masking for sign in self.signs)} checks find masking "
                f"({', '.join(bad)}). Even the robust figure is an upper bound, which an attack "
                "made for this model would lower"
            )
        if self.verdict == "inconclusive":
            told = [f"too few examples to tell ({', '.join(open_)})"] if open_ else []
            if any(sign.word == "at chance" for sign in self.signs):
                told.insert(0, self._at_chance())
            if any(sign.word == "too high" for sign in self.signs):
                why = "" if told or self.notes else "; no sign of masking: its attack is too weak"
                high = f"the claim does not hold: the battery takes {lost:.1f} points off it{why}"
                told.insert(0, high)
            return "; ".join([*self.notes, *told]) or "the model cannot be judged"
        if not self.claimed:
            return (
                "the model claims no robustness, so there was nothing to refute: plain PGD breaks "
                "every example that it is right on"
            )
        fine = f"no sign of masking; the battery takes {lost:.1f} points off the claim"
        chance = self.settings.get("one answer")
        if not isinstance(chance, float):
            return fine
        robust, one = self.shares.get("robust"), "one answer to everything"
        if self.robust <= chance:
            fine += (
                f": the claim is honest, and there is no robustness, since {one} is right on "
                f"{100 * chance:.1f} %"
            )
        elif robust is not None and robust.low <= chance:
            fine += (
                f": the claim is honest; more examples must tell whether the model withstands "
                f"more than {one}, which is right on {100 * chance:.1f} %"
            )
        return fine

    def _at_chance(self) -> str:
        chance = self.settings.get("one answer", math.nan)
        return (
            f"the model is right on {100 * self.clean:.1f} % of the examples, and one answer to "
            f"everything on {100 * float(chance):.1f} %: check that labels and pixels are those it "
            "was trained on"
        )
