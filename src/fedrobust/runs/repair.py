"""Mend a run directory when its run is resumed: make files again from the checkpoint."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from fedrobust.errors import FormatError, RecordError
from fedrobust.records.pictures import examples_of
from fedrobust.records.plain import attack_pictures, plain_json
from fedrobust.records.reading import arrays_of, content_of, cure, json_of, present, tensors_of
from fedrobust.records.schema.run import Summary
from fedrobust.runs import measure
from fedrobust.runs.directory import RunDirectory
from fedrobust.runs.prepare import Prepared
from fedrobust.runs.rounds_log import as_lines
from fedrobust.runs.state import RunState
from fedrobust.runs.weights import Weights
from fedrobust.typing import Json


def repaired(run: Prepared, run_state: RunState, directory: RunDirectory) -> list[str]:
    """Make missing or damaged files in ``directory`` again, and return a text about each.

    A damaged file is kept under another name. A summary that is not this run's is only renamed: the
    end of the run writes the summary and all that belongs to it.

    Raises: ``RecordError`` where a file cannot be renamed or written.
    """
    told: list[str] = []
    ended = run_state.state.round >= run_state.rounds
    summary = directory.path / "summary.json"
    why = _not_this_runs(summary, run_state, ended) if present(summary) else ""
    if why:
        told.append(_aside(directory, summary.name, why))
    whole = ended and present(summary)
    told += _lines(directory, "metrics.jsonl", run_state.metrics, whole)
    if run_state.log is not None:
        told += run_state.log.repair(directory.path, ended, lambda name: directory.set_aside(name))
    if whole:
        for name, weights in run_state.models():
            told += _model(run, directory, f"{name}.safetensors", weights)
        told += _pictures(run, run_state, directory)
    return told


def _aside(directory: RunDirectory, name: str, why: object) -> str:
    kept = directory.set_aside(name)
    return f"{name} is made again from checkpoint.pt, and the old one kept as {kept}: {why}"


def _again(directory: RunDirectory, name: str, why: object) -> str:
    if present(directory.path / name):
        return _aside(directory, name, why)
    return f"{name} was missing, and is made again from checkpoint.pt"


def _not_this_runs(path: Path, run_state: RunState, ended: bool) -> str:
    """Return why a summary does not belong to the run in its present state; empty if it does."""
    if not ended:
        return f"it is of a finished run, and this one stands at round {run_state.state.round}"
    try:
        found = json_of(path, Summary)
        content = json_of(path, dict)
    except FormatError:
        raise
    except RecordError as error:
        return _cause(path, error)
    if found.rounds != run_state.state.round:
        return f"it is of {found.rounds} rounds, and this run has {run_state.state.round}"
    if found.test is None or not isinstance(content.get("troubles"), list):
        return "it has no test scores, or no troubles"
    last = plain_json(run_state.metrics[-1:], "")[0]
    if found.validation is not None and [found.validation.final] != last:
        return "its last evaluation is not this run's"
    return ""


def _lines(directory: RunDirectory, name: str, lines: Sequence[Json], whole: bool) -> list[str]:
    """Mend a file of lines. After a kill it may have fewer lines than the checkpoint.

    Any other difference is damage.
    """
    path, wanted = directory.path / name, as_lines(lines).encode()
    try:
        there = content_of(path) if present(path) else b""
    except RecordError as error:
        there, why = None, _cause(path, error)
    else:
        why = "it does not hold what the checkpoint does"
    if there == wanted and path.exists():
        return []
    cut_off = there is not None and wanted.startswith(there) and (not there or there[-1:] == b"\n")
    told = []
    if not cut_off:
        told.append(_aside(directory, name, why))
    elif whole:
        told.append(f"{name} was cut off or missing, and is made again from checkpoint.pt")
    directory.write_lines(name, lines)
    return told


def _model(run: Prepared, directory: RunDirectory, name: str, weights: Weights) -> list[str]:
    own = run.federation.local.own
    wanted = {k: v.cpu().clone() for k, v in weights.tensors(run.model, own).items()}
    path = directory.path / name
    try:
        found = tensors_of(path)
        why = "" if _alike(found, wanted) and _same(run, found, wanted) else "it is another model"
    except RecordError as error:
        why = _cause(path, error)
    if not why:
        return []
    told = [_again(directory, name, why)]
    directory.write_model(name, wanted)
    return told


def _alike(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> bool:
    return found.keys() == wanted.keys() and all(
        found[k].shape == wanted[k].shape and found[k].dtype == wanted[k].dtype for k in wanted
    )


def _same(run: Prepared, found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> bool:
    """Whether the tensors that training changes are equal, bit by bit."""
    trained = {name for name, p in run.model.named_parameters() if p.requires_grad}
    looked = trained & wanted.keys() | {name for name in wanted if name.startswith("clients")}
    return all(
        torch.equal(*(held[name].reshape(-1).view(torch.uint8) for held in (found, wanted)))
        for name in looked
    )


def _pictures(run: Prepared, run_state: RunState, directory: RunDirectory) -> list[str]:
    told = []
    path = directory.path / "examples.npz"
    if why := _unreadable(path, examples_of):
        images = measure.strip(run, run_state.best)
        if images is not None:
            told.append(_again(directory, path.name, why))
            directory.write_arrays(path.name, images)
    path = directory.path / "attack.npz"
    if present(path) and (why := _unreadable(path, arrays_of)):
        told.append(_aside(directory, path.name, why))
        attack = run_state.state.attack
        arrays, lost = attack_pictures(lambda: measure.on_attack(run, attack, "pictures"))
        told += [f"the attack: {text}" for text in lost]
        if arrays is not None:
            directory.write_arrays(path.name, arrays)
    return told


def _unreadable(path: Path, read: Callable[[Path], object]) -> str:
    try:
        read(path)
    except RecordError as error:
        return _cause(path, error)
    return ""


def _cause(path: Path, error: RecordError) -> str:
    """Return what is wrong, without the advice to resume the run, since it is being resumed."""
    return str(error).removesuffix(f"; {cure(path)}")
