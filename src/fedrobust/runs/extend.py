"""Extend a run: make a run of fewer rounds the beginning of one of more rounds, to the same bits.

The last round of a run leaves more than the same round of a longer run does: an evaluation or an
audit that is not due, perhaps the choice of that round, and the results of the run. All of this is
undone, and the results are kept under other names.

The checkpoint names the rounds of its run, so it is written last. Until then it shows, after a kill
at any moment, that a longer run is wanted (config.yaml) and which run is there. All steps before it
can be done again.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import TypeGuard

from fedrobust.errors import RecordError
from fedrobust.experiment import Experiment
from fedrobust.federation.attack import requirements
from fedrobust.records.reading import present
from fedrobust.records.schema.formats import declared, with_format
from fedrobust.records.schema.run import Extension
from fedrobust.runs.directory import RunDirectory
from fedrobust.runs.prepare import Prepared
from fedrobust.runs.state import RunState, write_checkpoint
from fedrobust.runs.summary import best_of
from fedrobust.runs.weights import Weights
from fedrobust.typing import Json

_RESULTS = (
    "summary.json",  # first: without it, a resumed run does not make the others again
    "model.safetensors",
    "best.safetensors",
    "examples.npz",
    "attack.npz",
)
"""The files that the end of a run leaves."""


def extendable(stored: object, rounds: int) -> TypeGuard[int]:
    """Whether ``stored``, the rounds in a record, are those of a run that ``rounds`` extend."""
    return type(stored) is int and 0 < stored < rounds


def require_extendable(experiment: Experiment, path: Path, rounds: int) -> None:
    """Refuse to extend a run whose attack has planned for its rounds. Raises: ``RecordError``."""
    attack = experiment.attack if experiment.malicious else None
    if attack is not None and requirements(attack).uses_rounds:
        raise RecordError(
            f"{path} holds a run of {rounds} rounds, for which its attack has planned: it cannot "
            f"be extended to {experiment.rounds}. Play all rounds in a new --out"
        )


def refused_to_shorten(path: Path, stored: int, rounds: int) -> str:
    """Return why a run of ``stored`` rounds does not go on with a config of fewer."""
    kept = f"summary.{rounds}-rounds.json"
    there = f" (the results of {rounds} rounds are in {kept})" if present(path / kept) else ""
    return (
        f"{path} holds a run of {stored} rounds, and this config has {rounds}: a run can be "
        f"extended, but not shortened{there}. Add --rounds {stored} (rounds={stored}), or choose "
        "another --out"
    )


def extended(run: Prepared, run_state: RunState, directory: RunDirectory) -> str:
    """Make the recorded run the beginning of one with the rounds of ``run``, if it has fewer.

    Its records must be whole. ``run_state`` is changed in place. Return how its results are kept,
    as a text; empty where there is nothing to extend.

    Raises: ``RecordError`` where a file cannot be renamed or written. A resumed run tries again.
    """
    before, rounds = run_state.rounds, run.experiment.rounds
    config = directory.config()
    if before < rounds and run_state.log is not None and run_state.log.of_older_checkpoint:
        write_checkpoint(run, directory, run_state)  # anew, so that it names its rounds
    if config["rounds"] != rounds:
        directory.write_config(config | {"rounds": rounds})
    if before == rounds:
        return ""
    _note(run_state, rounds, directory)
    names = [name for name in _RESULTS if present(directory.path / name)]
    kept = [directory.keep_result(name, before) for name in names]
    whole = run_state.metrics
    _undo_the_end(run, run_state, directory.path)
    if run_state.metrics is not whole:
        # Fewer lines than a checkpoint has are no damage, whichever checkpoint there is.
        directory.write_lines("metrics.jsonl", whole[:-1])
    run_state.rounds = rounds
    write_checkpoint(run, directory, run_state)
    stay = f"; its results stay as {', '.join(kept)}" if kept else ""
    return f"the run of {before} rounds goes on to {rounds}{stay}"


def _undo_the_end(run: Prepared, run_state: RunState, path: Path) -> None:
    """Take back what only the last round of a run does."""
    evaluation = run.experiment.evaluation
    run_state.best = best_without_the_end(run, run_state, path / "checkpoint.pt")
    run_state.earlier = None
    *others, last = run_state.metrics or [{}]
    if _is_extra(run, run_state):
        run_state.metrics = others
    elif "audit" in last and not evaluation.audit_due(last["round"]):
        run_state.metrics = [*others, {k: v for k, v in last.items() if k != "audit"}]


def best_without_the_end(run: Prepared, run_state: RunState, path: Path) -> Weights:
    """Return the weights that a run with the rounds of ``run`` has chosen by now.

    ``path`` is the checkpoint. Raises: ``RecordError`` where they are lost.
    """
    metrics = run_state.metrics
    if not _is_extra(run, run_state) or best_of(metrics) is not metrics[-1]:
        return run_state.best
    if len(metrics) == 1:
        return Weights(run.start)
    if run_state.earlier is None:
        last, every = metrics[-1]["round"], run.experiment.evaluation.every
        raise RecordError(
            f"{path} cannot be extended to {run.experiment.rounds} rounds: round {last} was "
            f"chosen, which a longer run does not evaluate (evaluation.every: {every}), and an "
            "earlier version of fedrobust did not keep the parameters that were chosen before. "
            "Play all rounds in a new --out"
        )
    return run_state.earlier


def _is_extra(run: Prepared, run_state: RunState) -> bool:
    """Whether the last evaluation is one that a run with the rounds of ``run`` does not make."""
    if run_state.rounds == run.experiment.rounds or not run_state.metrics:
        return False
    return not run.experiment.evaluation.due(run_state.metrics[-1]["round"])


def _note(run_state: RunState, rounds: int, directory: RunDirectory) -> None:
    """Record in environment.json that the run is extended, if that is not recorded yet."""
    extension: Json = {
        "from_rounds": run_state.rounds,
        "to_rounds": rounds,
        "after_round": run_state.state.round,
        "test_read": run_state.state.round >= run_state.rounds,
    }
    stored = directory.read_json("environment.json")
    resumed = stored.get("resumed", [])
    if any(part.get("extended") == extension for part in resumed):
        return
    now = datetime.now(UTC).isoformat(timespec="seconds")
    stored["resumed"] = [*resumed, {"started": now, "extended": declared(Extension, extension)}]
    directory.write_json("environment.json", with_format("environment.json", stored))
