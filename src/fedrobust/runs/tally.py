"""Count facts about all rounds for the summary while they are played, without keeping rounds."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fedrobust.config.text import shortened
from fedrobust.records.reading import shaped

_CLIENTS_NAMED = 10
"""The number of clients that a trouble names; the rest are counted."""
_REASONS = 8
"""The number of reasons that are told; what clients elsewhere say may differ each time."""
_NO_ROWS = "they were not finite, or no dense rows [d] of real numbers"
_OTHERS = "for other reasons"


@dataclass
class Refusals:
    """Rows that were refused for one reason: of which clients, in how many rounds."""

    first: int
    """The first of these rounds."""
    rounds: int = 0
    clients: list[int] = field(default_factory=list)


@dataclass
class _OlderRefusals:
    """What a tally of an earlier version says of refused rows: a reason of one stands for all."""

    refused: int = 0
    first_refused: int = 0
    refused_clients: list[int] = field(default_factory=list)
    why_refused: str | None = None

    def by_reason(self) -> dict[str, Refusals]:
        why = self.why_refused or _NO_ROWS
        if self.why_refused and len(self.refused_clients) > 1:
            why = f"for one of them, {why}"
        found = Refusals(self.first_refused, self.refused, self.refused_clients)
        return {why: found} if self.refused else {}


@dataclass
class Tally:
    """Counts over rounds, each a line of ``rounds.jsonl``.

    In the rounds in which the rule selects rows, there were ``sent`` malicious rows, and the rule
    selected ``kept`` of them. ``present`` maps a number of malicious participants to the number of
    rounds with so many, and to the first such round. In ``compared`` of those rounds the malicious
    rows could be compared with honest ones, and in ``acted`` of them they differed. ``refusals``
    are by reason.
    """

    sent: int = 0
    kept: int = 0
    still: int = 0
    first_still: int = 0
    why_still: str | None = None
    present: dict[int, tuple[int, int]] = field(default_factory=dict)
    compared: int = 0
    acted: int = 0
    refusals: dict[str, Refusals] = field(default_factory=dict)

    @classmethod
    def stored(cls, content: Any) -> "Tally":
        """Return the tally in a checkpoint, also of an earlier version. Raises: ``ValueError``."""
        found, older = shaped(cls, content), shaped(_OlderRefusals, content)
        found.refusals = {**older.by_reason(), **found.refusals}
        return found

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
        for why, clients in self._by_reason(line).items():
            found = self.refusals.setdefault(why, Refusals(round))
            found.rounds += 1
            found.clients = sorted({*found.clients, *clients})
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

    def _by_reason(self, line: Mapping[str, Any]) -> dict[str, list[int]]:
        """Return the clients whose rows a round dropped, by reason."""
        found: dict[str, list[int]] = {}
        for client in line["dropped"]:
            why = shortened(line.get("refused", {}).get(str(client), _NO_ROWS), 300)
            known = self.refusals.keys() | found.keys()
            if why not in known and len(known) >= _REASONS:
                why = _OTHERS
            found.setdefault(why, []).append(client)
        return found

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
        found = [
            f"rows of {_named(those.clients)} were refused in {_rounds(those.rounds)}, the first "
            f"{those.first}: {why}"
            for why, those in self.refusals.items()
        ]
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
