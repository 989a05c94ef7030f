"""Make results of a leaderboard from finished runs, and never write over one."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedrobust.errors import ConfigError, RecordError, UserError
from fedrobust.evaluation.intervals import bounds
from fedrobust.files import held, listing, require_new, written
from fedrobust.records.bounded import named
from fedrobust.records.leaderboard import (
    FILE,
    conflict,
    require_leaderboard,
    results_in,
    sealed,
    text_digest,
)
from fedrobust.records.plain import plain_json
from fedrobust.records.reading import (
    broken,
    json_of,
    mapping_of,
    present,
    shaped,
)
from fedrobust.records.schema.formats import with_format
from fedrobust.records.schema.leaderboard import LONGEST_BY, ResultRecord
from fedrobust.records.schema.run import Summary
from fedrobust.records.schema.sweep import SweepRecord
from fedrobust.runs.leaderboard.agreement import disagreement
from fedrobust.runs.leaderboard.check import unsound
from fedrobust.runs.leaderboard.protocol import Protocol, knows_f, require_label, root_of


@dataclass
class Added:
    """What became of the runs: ``files`` were written, ``there`` stood already, others refused."""

    files: list[str] = field(default_factory=list)
    there: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)


def add(
    folders: Sequence[Path],
    out: Path,
    protocols: Sequence[Protocol],
    by: str,
    rule: str | None = None,
) -> Added:
    """Write a result of each finished run of ``folders``, runs or sweeps, to the leaderboard.

    A run counts under the one of the ``protocols`` that it differs least from. ``by`` names who
    submits. ``rule`` is the rule's label; without it the label on a sweep's axis ``rule``, or the
    rule's name. A run whose result is there already, with the same figures, is left as it is; with
    another name for its rule it is refused. If all are refused, ``out`` is not made.

    Raises: ``RecordError`` for a folder that is neither, for a leaderboard that is broken, and for
    an ``out`` that holds something else. ``ConfigError`` for names that cannot be written.
    """
    if not by.strip() or len(by) > LONGEST_BY:
        raise ConfigError(f"--by: name who submits, in 1 to {LONGEST_BY} characters")
    if rule is not None:
        require_label(rule, "give another one with --rule")
    if out.is_dir() and not present(out / FILE) and listing(out):
        require_leaderboard(out)
    told, new = Added(), list[tuple[Path, dict[str, Any], ResultRecord]]()
    for path, label in [found for folder in folders for found in _runs(folder)]:
        try:
            content = result_of(path, protocols, by, rule or label)
        except UserError as error:
            told.refused[str(path)] = str(error)
        else:
            new.append((path, content, shaped(ResultRecord, content)))
    if new:
        with held(out, f"another process is writing to {out}", remove=True):
            known = results_in(out) if present(out / FILE) else []
            for path, content, result in new:
                if why := _added(content, result, out, known, rule, told):
                    told.refused[str(path)] = why
    return told


def _added(
    content: Mapping[str, Any],
    result: ResultRecord,
    out: Path,
    known: list[ResultRecord],
    rule: str | None,
    told: Added,
) -> str:
    """Write one result beside the ``known`` ones; return why not, or an empty text."""
    for old in known:
        if (result.run, result.audit) == (old.run, old.audit):
            if rule not in (None, old.rule.label):
                return (
                    f"it is there already as {old.file}, and its rule keeps the name "
                    f"{old.rule.label}: leave out --rule"
                )
            told.there.append(old.file)
            return ""
    if it := conflict(result, known):
        return f"{it.why}; {it.mend}"
    if not present(out / FILE):
        written(out / FILE, _json(with_format(FILE, {"about": "fedrobust leaderboard"})))
    try:
        require_new(out / result.file)
    except ConfigError as error:
        return str(error)
    written(out / result.file, _json(content))
    known.append(result)
    told.files.append(result.file)
    return ""


def result_of(
    path: Path, protocols: Sequence[Protocol], by: str, label: str | None = None
) -> dict[str, Any]:
    """Return the result of the finished run at ``path``, as it is written.

    Raises: ``RecordError`` for a run that is not finished, is broken or was edited, and
    ``ConfigError`` for one of no protocol.
    """
    if not present(path / "summary.json"):
        raise RecordError("it is not finished: go on with --resume")
    config = mapping_of(path / "config.yaml")
    protocol = min(protocols, key=lambda each: each.apart(config))
    attack = protocol.place(config)
    rule = config.get("aggregator")
    if not isinstance(rule, Mapping) or "name" not in rule:
        raise ConfigError("no config can name its rule: write it as a dataclass, module:Class")
    label = label or str(rule["name"]).rpartition(":")[2]
    require_label(label, "give one with --rule")
    summary = _summary(path, config)
    final, played = summary["test"]["final"], json_of(path / "environment.json", dict)
    audit = final["audit"]
    low, high = bounds(audit["robust"], audit["examples"])
    content = {
        "protocol": {
            "name": protocol.name,
            "digest": protocol.digest,
            "data": protocol.base["data"]["name"],
            "attacks": protocol.knowledge,
            "settings": protocol.written,
        },
        "rule": {
            "label": label,
            "config": rule,
            "root": root_of(config),
            "knows_f": knows_f(rule),
        },
        "attack": {
            "label": attack,
            "malicious": config["malicious"],
            "config": config.get("attack"),
            "threat": config.get("threat") or {},
        },
        "seed": config.get("seed", 0),
        "clean": final["accuracy"],
        "examples": final["examples"],
        "audit": {
            "budget": protocol.base["evaluation"]["audit"]["budget"],
            **{key: audit[key] for key in ("examples", "claimed", "robust", "verdict")},
            "low": low,
            "high": high,
        },
        "rounds": summary["rounds"],
        "seconds": summary["seconds"],
        "played": {
            key: played.get(key) for key in ("fedrobust", "commit", "platform", "device", "cores")
        },
        "submitted_by": by,
        "run": text_digest(plain_json(config, "config")[0]),
    }
    content = sealed(with_format("result.json", content))
    try:
        result = shaped(ResultRecord, content)
    except ValueError as error:
        raise RecordError(f"it makes no result: {error}") from error
    if why := unsound(result, protocol):
        raise RecordError(f"it makes no result: {why}")
    return content


def _summary(path: Path, config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the summary of a run if the run's other records agree with it.

    Raises: ``RecordError`` for one that is broken or was edited.
    """
    file = path / "summary.json"
    summary = json_of(file, dict)
    try:
        found = shaped(Summary, summary)
    except ValueError as error:
        raise broken(file, error) from error
    edited = disagreement(path, config, found)
    if edited:
        raise broken(file, edited)
    return summary


def _runs(folder: Path) -> Iterator[tuple[Path, str | None]]:
    """Yield each run of a folder, with its label on a sweep's axis ``rule``."""
    record = folder / "sweep.json"
    if not present(record):
        if not present(folder / "config.yaml"):
            raise RecordError(f"{named(folder)} is neither a run nor a sweep: name one")
        yield folder, None
        return
    for cell in json_of(record, SweepRecord).cells:
        yield folder / "cells" / cell.name, cell.labels.get("rule")


def _json(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
