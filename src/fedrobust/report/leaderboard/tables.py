"""The tables that a paper takes from a leaderboard: the rankings, and every rule under each attack.

The page shows a ranking as blocks that open, and once for each level of the attackers' knowledge.
"""

from collections.abc import Sequence
from typing import Any

from fedrobust.report.page_tables import PageTable

Row = dict[str, Any]
"""A rule of the page, or one attack that it is played under."""


def leaderboard_tables(boards: Sequence[Row]) -> list[PageTable]:
    """Return the tables of all protocols, from the values of the page.

    Of each protocol: the ranking under all attacks, then every rule once under each attack, then
    the rankings under those attacks alone that know less. A rule without a rank is only in the
    second table.
    """
    tables = []
    for board in boards:
        *fewer, whole = board["levels"]
        tables.append(_ranking(f"Ranking on {board['name']}", whole["rows"]))
        tables.append(_scores(board["name"], [*whole["rows"], *whole["apart"]]))
        tables += [
            _ranking(f"Ranking on {board['name']}: {level['most']} at most", level["rows"])
            for level in fewer[::-1]
        ]
    return [table for table in tables if table.rows]


def _ranking(name: str, rows: Sequence[Row]) -> PageTable:
    heads = {
        "rank": True,
        "rule": False,
        "worst attack": False,
        "true robust (%)": True,
        "plain PGD (%)": True,
        "plain PGD: worst attack": False,
        "rank by plain PGD": True,
        "clean (%)": True,
        "number of seeds": True,
    }
    body = [
        [
            str(row["rank"]),
            row["rule"],
            row["worst"],
            f"{row['robust']} ({row['range']})",
            row["claimed"],
            row["claimed_under"],
            str(row["rank_by_pgd"]),
            row["clean"],
            str(row["played"]),
        ]
        for row in rows
    ]
    return PageTable(name, [list(heads)], body, list(heads.values()))


def _scores(protocol: str, rows: Sequence[Row]) -> PageTable:
    heads = {
        "rule": False,
        "attack": False,
        "attackers know": False,
        "true robust (%)": True,
        "plain PGD (%)": True,
        "clean (%)": True,
        "the audit": False,
        "number of seeds": True,
        "played by": False,
    }
    body = [
        [
            row["rule"],
            line["attack"],
            line["knows"],
            f"{line['robust']} ({line['range']})",
            line["claimed"],
            line["clean"],
            line["verdict"],
            str(line["seeds"]),
            f"{line['by']} ({line['commit']})",
        ]
        for row in rows
        for line in row["under"]
    ]
    name = f"Every rule under each attack on {protocol}"
    return PageTable(name, [list(heads)], body, list(heads.values()))
