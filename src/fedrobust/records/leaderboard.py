"""Read the results of a leaderboard, and notice what was edited or is there twice."""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from fedrobust.digest import digest
from fedrobust.errors import RecordError
from fedrobust.files import listing, reason
from fedrobust.records.bounded import named
from fedrobust.records.reading import broken, json_of, present, shaped
from fedrobust.records.schema.formats import known_format
from fedrobust.records.schema.leaderboard import ResultRecord

FILE = "leaderboard.json"
"""The file that marks a folder as a leaderboard."""
_THEN = "make it anew from its run with fedrobust leaderboard add RUN --by NAME"


class Conflict(NamedTuple):
    """Why a result cannot stand beside another one, and what its submitter can do."""

    why: str
    mend: str


def text_digest(content: object) -> str:
    """Return the SHA-256 of plain data; equal data have equal digests."""
    return digest(json.dumps(content, sort_keys=True, ensure_ascii=False, allow_nan=False))


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return a result with the digest of all its other keys."""
    rest = {key: value for key, value in content.items() if key != "digest"}
    return {**rest, "digest": text_digest(rest)}


def results_in(folder: Path) -> list[ResultRecord]:
    """Return all results of a leaderboard, each checked alone and beside the others.

    Raises: ``RecordError`` for a folder that is no leaderboard, for a file that is broken, was
    edited, has another's name or lies elsewhere, for one result that is there twice, and for one
    name that stands for two rules or two protocols.
    """
    require_leaderboard(folder)
    paths = [folder / name for name in _names(folder) if name != FILE]
    for inner in [path for path in paths if os.path.isdir(path) and path.name != "report"]:
        paths += [inner / name for name in _names(inner)]
    found = [_result(p, folder) for p in paths if p.suffix == ".json" and not os.path.isdir(p)]
    for i, result in enumerate(found):
        if it := conflict(result, found[:i]):
            raise RecordError(f"{named(folder / result.file)}: {it.why}; remove one of them")
    return found


def some_results_in(folder: Path) -> list[ResultRecord]:
    """Return all results of a leaderboard that has any.

    Raises: ``RecordError`` for one that has none, and as :func:`results_in`.
    """
    found = results_in(folder)
    if not found:
        raise RecordError(
            f"{named(folder)} has no results yet: fedrobust leaderboard add RUN --by NAME --out "
            f"{named(folder)} makes one"
        )
    return found


def require_leaderboard(folder: Path) -> None:
    """Raises: ``RecordError`` for a folder that is no leaderboard, which names one beside it."""
    names = _names(folder)
    if present(folder / FILE):
        json_of(folder / FILE, dict, "write {} into it")
        return
    near = [folder / name for name in names if present(folder / name / FILE)]
    near += [folder.parent] if present(folder.parent / FILE) else []
    if near:
        advice = f"name {named(near[0])}"
    elif names:
        advice = "name the folder of a leaderboard, or a new one to add results to"
    else:
        advice = f"fedrobust leaderboard add RUN --by NAME --out {named(folder)} begins one"
    raise RecordError(f"{named(folder)} is no leaderboard, since it has no {FILE}: {advice}")


def conflict(new: ResultRecord, there: Iterable[ResultRecord]) -> Conflict | None:
    """Return why ``new`` cannot stand beside the results ``there``; None where it can."""
    for old in there:
        if old.protocol.name != new.protocol.name:
            continue
        if old.protocol.digest != new.protocol.digest:
            return Conflict(
                f"{old.file} was played by another version of the protocol {new.protocol.name}",
                "nothing was written; add it to another leaderboard with --out",
            )
        same = _rule(old) == _rule(new)
        if old.rule.label == new.rule.label and not same:
            return Conflict(
                f"{old.file} calls another rule {new.rule.label}",
                "nothing was written; give this rule a name of its own with --rule",
            )
        if same and (old.attack.label, old.seed) == (new.attack.label, new.seed):
            return Conflict(
                f"{old.file} is the same rule, attack and seed", "nothing was written over it"
            )
        if same and old.rule.label != new.rule.label:
            return Conflict(
                f"{old.file} calls the same rule {old.rule.label}",
                f"nothing was written; add it under this name with --rule {old.rule.label}",
            )
    return None


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
