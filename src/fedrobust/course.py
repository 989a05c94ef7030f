"""Where a run stands, in memory and in its run directory: begun, saved, opened again."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from fedrobust import measure
from fedrobust.attacks.learned.journal import JOURNALS
from fedrobust.component import to_config
from fedrobust.environment import environment
from fedrobust.errors import RecordError
from fedrobust.execution import Execution
from fedrobust.experiment import Experiment, completed
from fedrobust.federation import FederationState
from fedrobust.flat import write
from fedrobust.opaque import untold
from fedrobust.prepare import Prepared
from fedrobust.records import Json, RunDirectory
from fedrobust.typing import Vector


@dataclass
class Course:
    """What a checkpoint holds: the state, what was recorded so far, and the chosen parameters."""

    state: FederationState
    metrics: list[Json]
    rounds: list[Json]
    best: Vector
    seconds: float = 0.0

    @classmethod
    def start(cls, run: Prepared) -> "Course":
        """The course before the first round."""
        return cls(run.federation.start(run.start), [], [], run.start)


def stored_plan(experiment: Experiment, directory: RunDirectory) -> Execution:
    """The plan of the run in ``directory``. Raises: ``RecordError`` if it is another experiment."""
    stored, asked = completed(directory.config()), to_config(experiment)
    kept = stored.get("execution", {})
    filled = {k: v if v is not None else kept.get(k) for k, v in asked["execution"].items()}
    asked["execution"] = filled
    if differing := list(_differing(stored, asked)):
        raise RecordError(
            f"{directory.path} holds a run of another config, so it cannot be resumed with this "
            "one; choose another --out. They differ in " + "; ".join(differing)
        )
    if unknown := untold(asked):
        raise RecordError(
            f"{directory.path} cannot be resumed: nothing tells whether {' and '.join(unknown)} is "
            "the object of that run. Make it an importable dataclass, or one that can be pickled"
        )
    return Execution(**filled)


def _differing(there: Mapping[str, Any], here: Mapping[str, Any], at: str = "") -> Iterator[str]:
    """Where two configs differ, each place with both values."""
    for key in {**there, **here}:
        a, b = there.get(key), here.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping) and a.get("name") == b.get("name"):
            yield from _differing(a, b, f"{at}{key}.")
        elif a != b:
            yield f"{at}{key}: {a} there, {b} here"


def open_course(run: Prepared, directory: RunDirectory) -> Course:
    """The course to go on with; a new one is begun with its config and environment.

    Raises: ``RecordError`` where the directory holds other data or another start.
    """
    checkpoint = directory.load_checkpoint()
    if not directory.has_config:
        directory.write_config(to_config(run.experiment))
    _note_environment(run, directory)
    if checkpoint is None:
        return Course.start(run)
    if checkpoint["digest"] != run.digest:
        raise RecordError(
            f"{directory.path} was run on other data or from other initial parameters; "
            "choose another --out"
        )
    device = run.start.device
    return Course(
        FederationState(**_to(checkpoint["state"], device)),
        checkpoint["metrics"],
        checkpoint["rounds"],
        checkpoint["best"].to(device),
        checkpoint["seconds"],
    )


def _note_environment(run: Prepared, directory: RunDirectory) -> None:
    """Keep where the run began, and what differed wherever it was resumed."""
    now, stored = environment(run.plan), directory.read_json("environment.json")
    if stored is None:
        directory.write_json("environment.json", now)
        return
    last = stored | {k: v for part in stored.get("resumed", []) for k, v in part.items()}
    changed = {k: v for k, v in now.items() if k != "started" and last.get(k) != v}
    if changed:
        later = {"started": now["started"], **changed}
        stored["resumed"] = [*stored.get("resumed", []), later]
        directory.write_json("environment.json", stored)


def _to(value: Any, device: torch.device) -> Any:
    """``value`` with every tensor in it, however deep, on ``device``."""
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {key: _to(item, device) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_to(item, device) for item in value)
    return value


def save(run: Prepared, directory: RunDirectory, course: Course) -> None:
    """The checkpoint, then what is made from it; it holds what trainings have come to."""
    directory.save_checkpoint(
        {
            "digest": run.digest,
            "state": vars(course.state),
            "metrics": course.metrics,
            "rounds": course.rounds,
            "best": course.best,
            "seconds": course.seconds,
        }
    )
    _write_lines(directory, course)
    directory.drop(JOURNALS)


def save_end(run: Prepared, directory: RunDirectory, course: Course, summary: Json) -> None:
    """The models and what a report shows; the summary comes last and says that all is there."""
    _write_lines(directory, course)
    for name, vector in (("model", course.state.parameters), ("best", course.best)):
        write(run.model, vector)
        directory.write_model(f"{name}.safetensors", run.model.state_dict())
    images = measure.strip(run, course.best)
    if images is not None:
        directory.write_arrays("examples.npz", images)
    shown = measure.on_attack(run, course.state.attack, "pictures")
    if shown is not None:
        directory.write_arrays("attack.npz", shown)
    directory.write_json("summary.json", summary)


def _write_lines(directory: RunDirectory, course: Course) -> None:
    directory.write_lines("metrics.jsonl", course.metrics)
    directory.write_lines("rounds.jsonl", course.rounds)
