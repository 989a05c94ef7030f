"""Open a run directory: check that its content belongs to this run, and find where to go on."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from fedrobust.compute.execution import OF_NO_BIT, Execution
from fedrobust.config import differences
from fedrobust.config.arguments import told, unfit
from fedrobust.config.component import to_config
from fedrobust.config.differences import differing
from fedrobust.config.fingerprint import untold
from fedrobust.errors import ConfigError, RecordError
from fedrobust.experiment import Experiment
from fedrobust.federation.state import FederationState
from fedrobust.records.reading import broken, shaped
from fedrobust.runs.directory import RunDirectory
from fedrobust.runs.extend import (
    best_without_the_end,
    extendable,
    refused_to_shorten,
    require_extendable,
)
from fedrobust.runs.older_configs import completed
from fedrobust.runs.prepare import Prepared
from fedrobust.runs.provenance import note_environment
from fedrobust.runs.rounds_log import Extent, RoundsLog
from fedrobust.runs.state import FORMAT, RunState
from fedrobust.runs.tally import Tally
from fedrobust.runs.times import Times
from fedrobust.runs.weights import Weights
from fedrobust.typing import Json

_COPY = "put a copy back, or start again in a new --out"
_BOTH: dict[str, Any] = {
    "digest": str,
    "state": dict,
    "metrics": list,
    "best": torch.Tensor,
    "seconds": int | float,
}
_KEYS: dict[int, dict[str, Any]] = {
    1: _BOTH | {"rounds": list},
    FORMAT: _BOTH | {"format": int, "config": dict, "log": dict, "tally": dict},
}
"""The keys of a checkpoint, and the types of their values, by format."""
_OPTIONAL = {"config", "best_store", "earlier", "earlier_store", "times"}


_SAME_START = (
    ". The fingerprint of a module includes its initial weights: call torch.manual_seed before "
    "you make it, or name its class in the config, model: module:Class"
)


def stored_plan(experiment: Experiment, directory: RunDirectory) -> Execution:
    """Return the execution plan of the run in ``directory``, which may have fewer rounds.

    Raises: ``RecordError`` if it is another experiment, or if its config is broken.
    """
    file, asked = directory.path / "config.yaml", to_config(experiment)
    content = directory.config()
    try:
        stored = completed(content, like=asked)
    except (ConfigError, AttributeError, TypeError, ValueError) as error:
        raise broken(file, error) from error
    kept = stored.setdefault("execution", {})
    filled = {k: v if v is not None else kept.get(k) for k, v in asked["execution"].items()}
    for key in OF_NO_BIT:
        kept[key] = filled[key] = asked["execution"][key]
    asked["execution"] = filled
    rounds, alike = stored.get("rounds"), stored | {"rounds": experiment.rounds}
    if extendable(rounds, experiment.rounds):
        require_extendable(experiment, directory.path, rounds)
        stored = alike
    elif type(rounds) is int and rounds > experiment.rounds and not any(differing(alike, asked)):
        raise RecordError(refused_to_shorten(directory.path, rounds, experiment.rounds))
    if found := list(differing(stored, asked)):
        raise RecordError(
            f"{directory.path} holds a run of another config, so it cannot be resumed with this "
            f"one; choose another --out. They differ in {differences.told(found)}"
            f"{_SAME_START if any(d.startswith('model.fingerprint:') for d in found) else ''}"
        )
    require_told(directory.path, asked)
    return Execution(**filled)


def require_told(path: Path, asked: Mapping[str, Any]) -> None:
    """Refuse a config with objects that nothing compares with those of the run in ``path``.

    Raises: ``RecordError``.
    """
    if unknown := untold(asked):
        raise RecordError(
            f"{path} cannot be resumed: nothing tells whether {' and '.join(unknown)} is "
            "the object of that run. Make it an importable dataclass, or one that can be pickled"
        )


def require_processor(path: Path, began: Execution | None, here: Execution) -> None:
    """Check that a run goes on where results have the same bits. Raises: ``RecordError``."""
    there = None if began is None else began.processor
    if there != here.processor:
        known = f"on another kind of processor ({there})" if there else "with an older fedrobust"
        raise RecordError(
            f"the run in {path} began {known}, and goes on here ({here.processor}) with results "
            "that may differ in rounding from those of an uninterrupted run; if that is all right, "
            "add --other-processor (other_processor=True)"
        )


def open_course(run: Prepared, directory: RunDirectory) -> RunState:
    """Return the state to go on from. For a new run, write its config and environment.

    Raises: ``RecordError`` where the directory belongs to other data or other initial parameters,
    where its content is damaged, or where it cannot be extended. Nothing is changed then.
    """
    checkpoint = directory.load_checkpoint()
    if checkpoint is None:
        run_state = RunState.start(run, RoundsLog())
    else:
        run_state = _restored(run, directory, checkpoint)
    stored = directory.read_json("environment.json")
    if not directory.has_config:
        directory.write_config(to_config(run.experiment))
    plays = checkpoint is None or run_state.state.round < run.experiment.rounds
    note_environment(run, directory, stored, begins=checkpoint is None, plays=plays)
    return run_state


def _restored(run: Prepared, directory: RunDirectory, content: Json) -> RunState:
    """Return the state in a checkpoint. Raises: ``RecordError`` where it is not this run's."""
    path = directory.path / "checkpoint.pt"
    if why := _misfit(run, content):
        raise broken(path, why, then=_COPY)
    if content["digest"] != run.digest:
        raise RecordError(
            f"{directory.path} was run on other data or from other initial parameters "
            "(checkpoint.pt); choose another --out"
        )
    rounds = _recorded_rounds(path, content.get("config"), to_config(run.experiment))
    device = run.start.device
    tally, log = _rounds(directory, content)
    run_state = RunState(
        FederationState(**_to(content["state"], device)),
        content["metrics"],
        _weights(content, "best", device),
        directory.config()["rounds"] if rounds is None else rounds,
        content["seconds"],
        tally,
        log,
        _weights(content, "earlier", device) if "earlier" in content else None,
        Times.stored(content),
        "times" in content,
    )
    best_without_the_end(run, run_state, path)
    return run_state


def _weights(content: Json, name: str, device: torch.device) -> Weights:
    """Return weights in a checkpoint: the shared parameters, and what stays with each client."""
    return Weights(content[name].to(device), _to(content.get(f"{name}_store", {}), device))


def _rounds(directory: RunDirectory, content: Json) -> tuple[Tally, RoundsLog]:
    """Return the tally and the log of the rounds that were played. Raises: ``RecordError``."""
    if "rounds" in content:
        return Tally.of(content["rounds"]), RoundsLog.older(content["rounds"])
    log = RoundsLog.found(directory.path, shaped(Extent, content["log"]))
    return Tally.stored(content["tally"]), log


def _recorded_rounds(path: Path, stored: object, asked: Json) -> int | None:
    """Return how many rounds the run of a checkpoint with the config ``stored`` has.

    Old checkpoints hold no config: None. Raises: ``RecordError`` for another config.
    """
    if not isinstance(stored, dict):
        return None
    try:
        there = completed(stored, like=asked)
    except (ConfigError, AttributeError, TypeError, ValueError) as error:
        raise broken(path, error, then=_COPY) from error
    rounds, alike = there.get("rounds"), {"execution": None}
    if extendable(rounds, asked["rounds"]):
        alike["rounds"] = asked["rounds"]
    if found := list(differing(there | alike, asked | alike)):
        why = f"it belongs to a run of another config: {differences.told(found)}"
        raise broken(path, why, then=_COPY)
    return rounds


def _misfit(run: Prepared, content: Json) -> str:
    """Return why a checkpoint's content does not fit this experiment; empty where it fits."""
    format = content.get("format", 1)
    if type(format) is not int or format not in _KEYS:
        return f"it is of format {told(format)}, which this version of fedrobust does not know"
    keys = _KEYS[format]
    if lacks := keys.keys() - content.keys():
        return f"it lacks {min(lacks)}"
    if more := content.keys() - keys.keys() - _OPTIONAL:
        return f"it holds {min(map(str, more))}, which this version of fedrobust does not know"
    for key, kind in keys.items():
        if not isinstance(content[key], kind):
            return f"its {key} is {told(content[key])}"
    state, known = content["state"], {field.name for field in fields(FederationState)}
    if more := state.keys() - known:
        return f"its state holds {min(map(str, more))}, which this version does not know"
    vectors = {"state.parameters": state.get("parameters"), "best": content["best"]}
    vectors |= {"earlier": content["earlier"]} if "earlier" in content else {}
    history = state.get("history", ())
    if not isinstance(history, tuple):
        return f"its state.history is {told(history)}"
    vectors |= {f"state.history[{i}]": vector for i, vector in enumerate(history)}
    for name, vector in vectors.items():
        if not isinstance(vector, torch.Tensor) or unfit(vector) or not _like(vector, run.start):
            return f"its {name} is {told(vector)}, and this run has {told(run.start)}"
    stores = {f"state.{key}": state.get(key, {}) for key in ("store", "root")}
    stores |= {key: content.get(key, {}) for key in ("best_store", "earlier_store")}
    for name, store in stores.items():
        if not _holds_values(store):
            return f"its {name} does not hold tensors and numbers by client"
        own = run.federation.local.own
        if own is not None and (why := own.misfit(store)):
            return f"its {name} does not fit: {why}"
    if not all(isinstance(line, dict) for line in content["metrics"]):
        return "its metrics are no list of mappings"
    if not all(type(line.get("round")) is int for line in content["metrics"]):
        return "its metrics do not say of which rounds they are"
    try:
        rounds = _number(content)
        Times.stored(content)
    except (ValueError, KeyError, TypeError) as error:
        return f"its account of the rounds is broken: {error}"
    round = state.get("round")
    # The training of a policy keeps no log of its rounds.
    if type(round) is not int or rounds not in (0, round):
        return f"it stands at round {told(round)}, but has a log of {rounds} rounds"
    if not 0 <= round <= run.experiment.rounds:
        return f"it stands at round {round}, but this run has {run.experiment.rounds} rounds"
    return ""


def _number(content: Json) -> int:
    """Return how many rounds a checkpoint has logged. Raises: ``ValueError``, ``KeyError``."""
    if "rounds" not in content:
        Tally.stored(content["tally"])
        found = shaped(Extent, content["log"])
        if min(found.rounds, found.size) < 0:
            raise ValueError("it has a length below 0")
        return found.rounds
    rounds = [line["round"] for line in content["rounds"]]
    if rounds != list(range(1, len(rounds) + 1)):
        raise ValueError("they are not in order")
    Tally.of(content["rounds"])
    return len(rounds)


def _like(vector: torch.Tensor, start: torch.Tensor) -> bool:
    return vector.shape == start.shape and vector.dtype == start.dtype


def _holds_values(store: object) -> bool:
    """Whether a store holds what each optimiser keeps, by name. A user's may keep anything."""
    return isinstance(store, dict) and all(isinstance(kept, dict) for kept in store.values())


def _to(value: Any, device: torch.device) -> Any:
    """Return ``value`` with all tensors in it, nested ones too, on ``device``."""
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {key: _to(item, device) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_to(item, device) for item in value)
    return value
