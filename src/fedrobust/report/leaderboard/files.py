"""A leaderboard's table as files: rounded for a reader, and with all digits for a program."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from fedrobust.records.schema.leaderboard import Knowledge
from fedrobust.report.leaderboard.ranking import Standing, Under
from fedrobust.report.sweep.page import markdown

Row = dict[str, Any]


def table_of(lines: Sequence[tuple[str, Row]]) -> bytes:
    """Return the ranked rules as Markdown, from pairs (protocol, the rule's row on the page)."""
    keys = {
        "rank": "rank",
        "rule": "rule",
        "worst attack": "worst",
        "robust, in per cent": "robust",
        "range": "range",
        "plain PGD": "claimed",
        "rank by plain PGD": "rank_by_pgd",
        "clean": "clean",
        "seeds": "seeds",
    }
    body = [[name, *(str(row[key]) for key in keys.values())] for name, row in lines]
    return markdown(["data", *keys], body).encode()


def numbers_of(boards: Mapping[str, tuple[Sequence[Standing], Mapping[str, Knowledge]]]) -> bytes:
    """Return every rule as JSON, the best first, from (its rules, attacks) of each protocol.

    Accuracies are shares of 1, unrounded. ``under`` has one entry for each attack. Ranks are null
    for a rule that misses an attack.
    """
    rows: list[Row] = []
    for name, (rules, attacks) in boards.items():
        for each in rules:
            under = {one.attack: _numbers(one, attacks[one.attack]) for one in each.under}
            rows.append(
                {
                    "data": name,
                    "rank": each.rank or None,
                    "rank_by_pgd": each.rank_by_pgd or None,
                    "rule": each.rule.label,
                    "config": each.rule.config,
                    "seeds": each.seeds,
                    "missing": each.missing,
                    "worst": under[each.worst.attack],
                    "worst_by_pgd": under[each.claimed.attack],
                    "under": list(under.values()),
                }
            )
    return (json.dumps({"rows": rows}, indent=1, ensure_ascii=False) + "\n").encode()


def _numbers(under: Under, knows: Knowledge) -> Row:
    low, high = under.ends
    return {
        "attack": under.attack,
        "knows": knows,
        "robust": under.robust,
        "low": low,
        "high": high,
        "claimed": under.claimed,
        "clean": under.clean,
        "seeds": [result.seed for result in under.results],
    }
