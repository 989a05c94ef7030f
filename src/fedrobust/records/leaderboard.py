"""Read the results of a leaderboard, and notice what was edited or is there twice."""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fedrobust.digest import digest
from fedrobust.errors import RecordError
from fedrobust.files import listing, reason
from fedrobust.records.bounded import named
from fedrobust.records.reading import broken, json_of, shaped
from fedrobust.records.schema.formats import known_format
from fedrobust.records.schema.leaderboard import ResultRecord

FILE = "leaderboard.json"
"""The file that marks a folder as a leaderboard."""
_THEN = "make it anew from its run with fedrobust leaderboard add"


def text_digest(content: object) -> str:
    """Return the SHA-256 of plain data; equal data have equal digests."""
    return digest(json.dumps(content, sort_keys=True, ensure_ascii=False, allow_nan=False))


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return a result with the digest of all its other keys."""
    rest = {key: value for key, value in content.items() if key != "digest"}
    return {**rest, "digest": text_digest(rest)}


def results_in(folder: Path) -> list[ResultRecord]:
    """Return all results of a leaderboard, each checked alone and beside the others.

    Raises: ``RecordError`` for a file that is broken, was edited or has another's name, for one
    result that is there twice, and for one name that stands for two rules or two protocols.
    """
    found = []
    for name in _names(folder):
        if os.path.isdir(folder / name) and name != "report":
            paths = [folder / name / each for each in _names(folder / name)]
            found += [_result(path, folder) for path in paths if path.suffix == ".json"]
    for i, result in enumerate(found):
        if why := conflict(result, found[:i]):
            raise RecordError(f"{named(folder / result.file)}: {why}; remove one of them")
    return found


def conflict(new: ResultRecord, there: Iterable[ResultRecord]) -> str:
    """Return why ``new`` cannot stand beside the results ``there``; empty where it can."""
    for old in there:
        if old.protocol.name != new.protocol.name:
            continue
        if old.protocol.digest != new.protocol.digest:
            return f"{old.file} was played by another version of the protocol {new.protocol.name}"
        same = _rule(old) == _rule(new)
        if old.rule.label == new.rule.label and not same:
            return f"{old.file} calls another rule {new.rule.label}"
        if same and (old.attack.label, old.seed) == (new.attack.label, new.seed):
            return f"{old.file} is the same rule, attack and seed"
        if same and old.rule.label != new.rule.label:
            return f"{old.file} calls the same rule {old.rule.label}"
    return ""


def _rule(result: ResultRecord) -> tuple[str, int]:
    return text_digest(result.rule.config), result.rule.root


def _names(folder: Path) -> list[str]:
    try:
        return listing(folder)
    except OSError as error:
        raise RecordError(f"cannot read {named(folder)}: {reason(error)}") from error


def _result(path: Path, folder: Path) -> ResultRecord:
    content = json_of(path, dict, _THEN)
    try:
        if not known_format("result.json", content):
            raise ValueError("it is of a later format: update fedrobust")
        result = shaped(ResultRecord, content)
    except ValueError as error:
        raise broken(path, error, then=_THEN) from error
    if sealed(content)["digest"] != result.digest:
        raise broken(path, "it was edited, since its digest is another", then=_THEN)
    if folder / result.file != path:
        raise broken(path, f"its place is {result.file}", then="move it there")
    return result
