"""The values of a leaderboard's page, and its table as files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fedrobust.records.leaderboard import some_results_in
from fedrobust.records.schema.leaderboard import Knowledge, ResultRecord
from fedrobust.report.leaderboard.files import numbers_of, table_of
from fedrobust.report.leaderboard.ranking import LEVELS, Standing, Under, standings
from fedrobust.report.wording import component, percent

KNOWS: dict[Knowledge, str] = {
    "own data": "only their own data",
    "other attackers": "also each other's updates",
    "benign updates": "all that the protocol grants",
}
_ORDER = {"mnist": 0, "fashion-mnist": 1}
_CODE = ":"
"""A rule of a user's own is named by its code, module:Class."""


def leaderboard_values(path: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Return the template's values for the leaderboard at ``path``, and its table as files.

    Raises: ``RecordError`` for a leaderboard that is broken or empty.
    """
    results = some_results_in(path)
    protocols: dict[str, list[ResultRecord]] = {}
    for result in results:
        protocols.setdefault(result.protocol.name, []).append(result)
    names = sorted(protocols, key=lambda name: (_ORDER.get(name, 2), name))
    boards = [_board(name, protocols[name]) for name in names]
    lines = [(board["name"], row) for board in boards for row in board["levels"][-1]["rows"]]
    files = {
        "table.md": table_of(lines),
        "table.json": numbers_of({name: _rules(protocols[name]) for name in names}),
    }
    people = sorted({result.submitted_by for result in results})
    return {
        "boards": boards,
        "headline": " ".join(board["headline"] for board in boards),
        "count": len(results),
        "people": ", ".join(people),
        "knows": [(level, KNOWS[level]) for level in LEVELS],
    }, files


def _rules(results: Sequence[ResultRecord]) -> tuple[list[Standing], dict[str, Knowledge]]:
    """Return all rules of one protocol under all of its attacks, and these."""
    attacks = results[0].protocol.attacks
    ranked, apart = standings(results, attacks, LEVELS[-1])
    return [*ranked, *apart], attacks


def _board(name: str, results: Sequence[ResultRecord]) -> dict[str, Any]:
    """Return one protocol: its ranking for each level of the attackers' knowledge."""
    protocol = results[0].protocol
    levels = []
    for most in LEVELS:
        ranked, apart = standings(results, protocol.attacks, most)
        levels.append(
            {
                "most": most,
                "headline": _headline(name, ranked, most),
                "rows": [_row(each, protocol.attacks) for each in ranked],
                "apart": [_row(each, protocol.attacks) for each in apart],
            }
        )
    first = results[0]
    return {
        "name": name,
        "headline": levels[-1]["headline"],
        "levels": levels,
        "attacks": [
            (label, _attack(label, results), knows) for label, knows in protocol.attacks.items()
        ],
        "examples": first.audit.examples,
        "budget": first.audit.budget,
        "digest": protocol.digest[:12],
        "setup": [(key, component(value)) for key, value in protocol.settings.items()],
    }


def _headline(name: str, ranked: Sequence[Standing], most: Knowledge = LEVELS[-1]) -> str:
    if not ranked:
        return f"On {name}, no rule has been played under every attack yet."
    first = ranked[0]
    of = f", the most of {len(ranked)} rules" if len(ranked) > 1 else ""
    # Scores whose ranges overlap may differ by chance.
    near = [r.rule.label for r in ranked[1:] if r.worst.ends[1] >= first.worst.ends[0]]
    if near:
        more = f" and {len(near) - 1} more" if len(near) > 1 else ""
        of += f", which may be chance: the range of {near[0]}{more} overlaps its own"
    who = "" if most == LEVELS[-1] else f" by attackers that know {KNOWS[most]}"
    text = (
        f"On {name}, {first.rule.label} keeps {percent(first.worst.robust)} under its worst attack"
        f"{who} ({first.worst.attack}){of}."
    )
    said = min(ranked, key=lambda each: (each.rank_by_pgd, each.rank))
    if said is not first:
        text += (
            f" Plain PGD would have put {said.rule.label} first, with "
            f"{percent(said.claimed.claimed)}; {percent(said.worst.robust)} are true."
        )
    return text


def _attack(label: str, results: Sequence[ResultRecord]) -> str:
    of = next((r.attack for r in results if r.attack.label == label), None)
    if of is None:
        return "not played yet"
    return f"{of.malicious} malicious: {component(of.config)}" if of.config else "no attack"


def _row(each: Standing, attacks: dict[str, Knowledge]) -> dict[str, Any]:
    """Return one rule for the template."""
    worst, said = each.worst, each.claimed
    rule = each.rule
    own = _CODE in str(rule.config.get("name", ""))
    needs = [
        *(["f"] if rule.knows_f else []),
        *(["root"] if rule.root else []),
    ]
    words = {"f": "the number of attackers", "root": f"{rule.root} clean examples"}
    return {
        "rank": each.rank,
        "rank_by_pgd": each.rank_by_pgd,
        "rule": rule.label,
        "config": component(rule.config) + (" (code of its author)" if own else ""),
        "needs": needs,
        "told": " and ".join(words[need] for need in needs) or "nothing",
        "worst": worst.attack,
        "robust": _share(worst.robust),
        "range": _range(worst),
        "share": 100 * worst.robust,
        "said_share": 100 * said.claimed,
        "claimed": _share(said.claimed),
        "claimed_under": said.attack,
        "clean": _share(worst.clean),
        "seeds": ", ".join(map(str, each.seeds)),
        "played": len(each.seeds),
        "missing": ", ".join(each.missing),
        "under": [
            _line(under, attacks) for under in sorted(each.under, key=lambda under: under.robust)
        ],
    }


def _line(under: Under, attacks: dict[str, Knowledge]) -> dict[str, Any]:
    verdicts = [r.audit.verdict for r in under.results]
    return {
        "attack": under.attack,
        "knows": attacks[under.attack],
        "robust": _share(under.robust),
        "range": _range(under),
        "claimed": _share(under.claimed),
        "clean": _share(under.clean),
        "verdict": ", ".join(
            word if len(verdicts) == 1 else f"{word} {verdicts.count(word)} of {len(verdicts)}"
            for word in dict.fromkeys(verdicts)
        ),
        "masked": "masked" in verdicts,
        "seeds": len(under.results),
        "by": ", ".join(dict.fromkeys(r.submitted_by for r in under.results)),
        "commit": ", ".join(
            dict.fromkeys(_commit(r.played.commit, r.played.fedrobust) for r in under.results)
        ),
    }


def _commit(commit: str | None, version: str) -> str:
    """Return the version that a result was played by, "+" at code that was changed since."""
    return version if commit is None else commit[:8] + ("+" if commit.endswith("changes") else "")


def _share(value: float) -> str:
    return f"{100 * value:.1f}"


def _range(under: Under) -> str:
    return " to ".join(map(_share, under.ends))
