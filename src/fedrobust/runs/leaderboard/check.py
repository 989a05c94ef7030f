"""Check the results of a leaderboard beside the protocols that they name."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fedrobust.errors import RecordError
from fedrobust.evaluation.intervals import bounds
from fedrobust.records.bounded import named
from fedrobust.records.leaderboard import some_results_in
from fedrobust.records.schema.leaderboard import ResultRecord
from fedrobust.runs.leaderboard.agreement import figures
from fedrobust.runs.leaderboard.protocol import Protocol, differences, knows_f


def checked(folder: Path, protocols: Sequence[Protocol]) -> int:
    """Return how many results a leaderboard has, if all are sound.

    Raises: ``RecordError`` that names the first one that is not, and for a folder without results
    or that is no leaderboard.
    """
    known = {protocol.name: protocol for protocol in protocols}
    results = some_results_in(folder)
    for result in results:
        if why := unsound(result, known.get(result.protocol.name)):
            raise RecordError(f"{named(folder / result.file)}: {why}")
    return len(results)


def unsound(result: ResultRecord, protocol: Protocol | None) -> str:
    """Return what is wrong with a result; empty where nothing is."""
    if protocol is None:
        return f"there is no protocol {result.protocol.name}; name its config with --protocol"
    if result.protocol.digest != protocol.digest:
        changed = differences(dict(result.protocol.settings), dict(protocol.written))
        more = f": {changed[0]}" if changed else ""
        return f"it was played by another version of the protocol{more}; play it again"
    if differ := differences(_common(result), _wanted(result, protocol)):
        return f"it does not agree with the protocol: {differ[0]}"
    if result.protocol.attacks != protocol.knowledge:
        return "its list of attacks is not the protocol's; make it anew from its run"
    wanted = protocol.attacks[result.attack.label]
    mine = {
        "malicious": result.attack.malicious,
        "attack": result.attack.config,
        "threat": result.attack.threat,
    }
    if differ := differences(mine, {key: wanted[key] for key in mine}):
        return f"it is not of the attack {result.attack.label}: {differ[0]}"
    if result.rule.knows_f != knows_f(result.rule.config):
        return "knows_f does not fit the rule's config"
    audit = result.audit
    if why := figures(result.clean, result.examples, audit.claimed, audit.robust, audit.examples):
        return why
    if (audit.low, audit.high) != bounds(audit.robust, audit.examples):
        return "the interval of robust is not that of so many examples"
    return ""


def _common(result: ResultRecord) -> dict[str, Any]:
    """Return what a result says of the things that all results of its protocol share."""
    return {
        "rounds": result.rounds,
        "data": result.protocol.data,
        "settings": result.protocol.settings,
        "examples": result.examples,
        "audit": {"budget": result.audit.budget, "examples": result.audit.examples},
    }


def _wanted(result: ResultRecord, protocol: Protocol) -> dict[str, Any]:
    """Return what it must say; where the protocol takes all test examples, as many as it says."""
    base, audit = protocol.base, protocol.base["evaluation"]["audit"]
    return {
        "rounds": base["rounds"],
        "data": base["data"]["name"],
        "settings": dict(protocol.written),
        "examples": base["evaluation"]["test_samples"] or result.examples,
        "audit": {
            "budget": audit["budget"],
            "examples": audit["test_samples"] or result.audit.examples,
        },
    }
