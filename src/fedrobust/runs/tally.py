"""Count facts about all rounds for the summary while they are played, without keeping rounds."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

_CLIENTS_NAMED = 10
"""The number of clients that a trouble names; the rest are counted."""


@dataclass
class Tally:
    """Counts over rounds, each a line of ``rounds.jsonl``.

    In the rounds in which the rule selects rows, there were ``sent`` malicious rows, and the rule
    selected ``kept`` of them. ``present`` maps a number of malicious participants to the number of
    rounds with so many, and to the first such round. In ``compared`` of those rounds the malicious
    rows could be compared with honest ones, and in ``acted`` of them they differed. ``why_refused``
    is why the first answer of a real client was refused.
    """

    sent: int = 0
    kept: int = 0
    refused: int = 0
    first_refused: int = 0
    refused_clients: list[int] = field(default_factory=list)
    still: int = 0
    first_still: int = 0
    why_still: str | None = None
    present: dict[int, tuple[int, int]] = field(default_factory=dict)
    why_refused: str | None = None
    compared: int = 0
    acted: int = 0

    @classmethod
    def of(cls, lines: Iterable[Mapping[str, Any]]) -> "Tally":
        """Return the tally of the given rounds."""
        found = cls()
        for line in lines:
            found.add(line)
        return found

    def add(self, line: Mapping[str, Any]) -> None:
        """Count one more round."""
        round, malicious = line["round"], line["malicious"]
        if line["kept"] is not None:
            self.sent += len(malicious)
            self.kept += len(set(malicious) & set(line["kept"]))
        if line["dropped"]:
            self.first_refused = self.first_refused or round
            self.refused += 1
            if self.why_refused is None:
                self.why_refused = next(iter(line.get("refused", {}).values()), None)
            self.refused_clients = sorted({*self.refused_clients, *line["dropped"]})
        if not line["applied"]:
            if not self.still:
                self.first_still, self.why_still = round, line["reason"]
            self.still += 1
        if malicious:
            count, first = self.present.get(len(malicious), (0, round))
            self.present[len(malicious)] = count + 1, first
        if line.get("acted") is not None:
            self.compared += 1
            self.acted += line["acted"]

    @property
    def kept_share(self) -> float | None:
        """The share of malicious rows that the rule selected; None where there are none."""
        return self.kept / self.sent if self.sent else None

    @property
    def acted_share(self) -> float | None:
        """The share of rounds with malicious clients in which the attack acted; None if unknown."""
        if not self.compared or self.compared < sum(count for count, _ in self.present.values()):
            return None
        return self.acted / self.compared

    def troubles(self, least: int = 1) -> list[str]:
        """Return what a reader must know about refused rows and about rounds without a step.

        ``least`` malicious clients must take part in a round for the attack to do anything.
        """
        found = []
        if self.refused:
            found.append(
                f"rows of {_named(self.refused_clients)} were refused in "
                f"{_rounds(self.refused)}, the first {self.first_refused}: "
                + (self.why_refused or "they were not finite, or no dense rows [d] of real numbers")
            )
        if self.still:
            found.append(
                f"{_rounds(self.still)} made no step, the first {self.first_still}: "
                f"{self.why_still}"
            )
        powerless = [self.present[number] for number in self.present if number < least]
        if powerless:
            found.append(
                f"in {sum(count for count, _ in powerless)} of the rounds with malicious clients "
                f"fewer than {least} took part, too few for the attack, the first time in round "
                f"{min(first for _, first in powerless)}"
            )
        if self.acted_share == 0 and sum(count for count, _ in powerless) < self.compared:
            found.append(
                f"the attack sent the honest updates in {_all(self.compared)} with malicious "
                "clients, so that this run is one without an attack"
            )
        return found


def _all(rounds: int) -> str:
    return "the one round" if rounds == 1 else f"all {rounds} rounds"


def _rounds(number: int) -> str:
    return f"{number} round{'' if number == 1 else 's'}"


def _named(clients: list[int]) -> str:
    """Name the first few clients by id, since a federation may have thousands."""
    listed = ", ".join(map(str, clients[:_CLIENTS_NAMED]))
    more = f" and {len(clients) - _CLIENTS_NAMED} more" if len(clients) > _CLIENTS_NAMED else ""
    return f"client{'' if len(clients) == 1 else 's'} {listed}{more}"
