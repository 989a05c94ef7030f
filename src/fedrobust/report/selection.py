"""The malicious rows that passed the rule: shares by client and by stretch of rounds."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedrobust.report.run_records import ReportRun, Round

_WIDTHS = [digit * 10**power for power in range(12) for digit in (1, 2, 5)]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Passing:
    """The shares of malicious rows that passed the rule, in m columns of equally many rounds.

    ``shares`` is [malicious clients, m], the share of a client's rows that the rule kept, nan where
    no row of the client could be kept. ``passed`` and ``chance`` are [m]. ``passed`` is the share
    of all malicious rows that the rule kept. ``chance`` is the expected share if the rule had drawn
    as many rows at random from all participants. The totals are over all rounds. Chance is unknown
    (nan, None) without the number of clients. ``edges`` is [m + 1], in rounds: column j covers the
    rounds in (edges[j], edges[j + 1]].
    """

    clients: tuple[int, ...]
    edges: Array
    shares: Array
    passed: Array
    chance: Array
    total_passed: float
    total_chance: float | None


def selects(rounds: Sequence[Round]) -> bool:
    """Whether the rule names the rows that it keeps."""
    return any(r.kept is not None for r in rounds)


def passing(run: ReportRun, columns: int) -> Passing | None:
    """Return which malicious rows passed; None without such rows or without a selecting rule.

    There are at most ``columns`` columns, of 1, 2, 5, 10, 20 … rounds; the last may be narrower.
    Rounds in which the rule selected nothing because it could not be applied do not count.
    """
    clients = sorted(frozenset().union(*(r.malicious for r in run.rounds)))
    if not clients or not selects(run.rounds):
        return None
    first, last = run.rounds[0].round, run.rounds[-1].round
    width = next(w for w in _WIDTHS if (last - first + 1) / w <= columns)
    m = -(-(last - first + 1) // width)
    sent, kept = np.zeros((len(clients), m)), np.zeros((len(clients), m))
    expected = np.zeros(m)
    place = {client: i for i, client in enumerate(clients)}
    for r in run.rounds:
        if r.kept is None or not r.malicious:
            continue
        column = (r.round - first) // width
        rows = [place[client] for client in r.malicious]
        sent[rows, column] += 1
        kept[[place[client] for client in r.malicious & r.kept], column] += 1
        present = run.clients if r.participants is None else len(r.participants)
        share = len(r.kept) / present if present else np.nan
        expected[column] += len(r.malicious) * share
    if not sent.any():
        return None
    chance = float(expected.sum() / sent.sum())
    return Passing(
        clients=tuple(clients),
        edges=np.minimum(first - 1 + width * np.arange(m + 1.0), last),
        shares=_ratio(kept, sent),
        passed=_ratio(kept.sum(0), sent.sum(0)),
        chance=_ratio(expected, sent.sum(0)),
        total_passed=float(kept.sum() / sent.sum()),
        total_chance=None if np.isnan(chance) else chance,
    )


def _ratio(above: Array, below: Array) -> Array:
    """Return ``above / below``, with nan where nothing was counted."""
    shares: Array = np.full(below.shape, np.nan)
    np.divide(above, below, out=shares, where=below > 0)
    return shares
