"""The audit that the command line runs, with its folder."""

import json
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from fedrobust.compute.execution import Execution, default_device
from fedrobust.compute.network import evaluating
from fedrobust.config.differences import differing
from fedrobust.data.sources import cache
from fedrobust.errors import ConfigError, RecordError, RecordWarning, WriteError
from fedrobust.evaluation.auditing.auditor import audit
from fedrobust.evaluation.auditing.battery import Budget
from fedrobust.evaluation.auditing.model_check import subject
from fedrobust.evaluation.auditing.progress_file import About
from fedrobust.evaluation.auditing.result import Audit
from fedrobust.files import clear, held, listing, reason, written
from fedrobust.models import LOCAL, BatchNorm
from fedrobust.perturb import Pgd
from fedrobust.perturb.geometry import Norm
from fedrobust.progress import UNWATCHED, Progress
from fedrobust.records.reading import broken, json_of, present
from fedrobust.records.schema.audit import AuditRecord, OwnAudit
from fedrobust.records.schema.formats import declared, with_format
from fedrobust.runs.audited_model import Source, opened
from fedrobust.runs.claim import claim_of
from fedrobust.runs.own_audit import own_audit
from fedrobust.runs.run import trained
from fedrobust.runs.surrogates import surrogates

_RESULT, _JOURNAL = "audit.json", "progress.jsonl"


@dataclass(frozen=True)
class Asked:
    """The options of ``fedrobust audit``. None stands for the setting of the model's own run."""

    where: str
    eps: float | None = None
    norm: str | None = None
    claim: str | None = None
    data: str | None = None
    network: str | None = None
    batch_norm: str | None = None
    budget: str = "quick"
    samples: int = 1000
    seed: int = 0
    batch: int = 256
    last: bool = False
    out: Path | None = None
    resume: bool = False
    trust: bool = False

    def content(self) -> dict[str, Any]:
        """Return the part of the record that describes these options."""
        silent = ("where", "out", "resume", "trust")
        asked = {k: v for k, v in asdict(self).items() if k not in silent}
        return {"model": self.where, "data": self.data or "the run's own", "asked": asked}

    def own(self, found: Audit) -> OwnAudit | None:
        """Return the run's own audit of the same model on its own data, if there is one."""
        return own_audit(Path(self.where), self.last, found) if self.data is None else None


def audited(asked: Asked, progress: Progress | None = None) -> Audit:
    """Audit a model on test examples, and write the result to the folder ``asked.out``.

    No existing result is overwritten.

    Raises: the ``UserError`` whose type fits the fault.
    """
    of_one_model = tuple(how for how in get_args(BatchNorm) if how not in LOCAL)
    for name, value, known in (
        ("norm", asked.norm, get_args(Norm)),
        ("budget", asked.budget, get_args(Budget)),
        ("batch-norm", asked.batch_norm, of_one_model),
    ):
        if value is not None and value not in known:
            raise ConfigError(f"--{name} is {value}; it can be {' or '.join(known)}")
    if asked.out is None:
        if asked.resume:
            raise ConfigError("--resume goes on with an audit in a folder: name it with --out")
        return _audited(asked, _task(asked), None, progress or UNWATCHED)
    with _folder(asked.out, asked.resume) as journal:
        task, done = _task(asked), asked.out / _RESULT
        if present(done):
            found = _finished(asked, task)
            _forget(journal)
            return found
        # This comes before the model goes to a GPU, since the examples stay on the CPU.
        about = task.about().to_json()
        found = _audited(asked, task, journal, progress or UNWATCHED)
        content = {"fedrobust": version("fedrobust")} | asked.content() | found.to_json()
        content["about"] = about
        if (own := asked.own(found)) is not None:
            content["run"] = asdict(own)
        content = declared(AuditRecord, with_format(_RESULT, content))
        _keep(done, json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    return found


def _keep(done: Path, text: str) -> None:
    """Write the result of an audit. If that fails, warn, and keep the journal."""
    try:
        written(done, text)
    except WriteError as error:
        warnings.warn(f"the audit was not kept: {error}", RecordWarning, stacklevel=2)
    else:
        _forget(done.with_name(_JOURNAL))


def _forget(journal: Path) -> None:
    """Remove the journal of a finished audit. If that fails, a later audit may remove it."""
    with suppress(OSError):
        journal.unlink(missing_ok=True)


def stored(folder: Path) -> Audit:
    """Read the audit that was written to ``folder``. Raises: ``RecordError`` if it is broken."""
    path = folder / _RESULT
    content = stored_words(folder)
    try:
        return Audit.from_json(content)
    except ValueError as error:
        raise broken(path, error, then=_then(folder)) from error


def stored_words(folder: Path) -> dict[str, Any]:
    """Return the whole record of an audit. Raises: ``RecordError`` where it cannot be read."""
    return json_of(folder / _RESULT, dict, then=_then(folder))


def _then(folder: Path) -> str:
    """Return what to do about a broken result. Its journal exists until the result is written."""
    if (folder / _JOURNAL).is_file():
        return "remove it and go on with the audit with --resume"
    return "audit again in a new --out"


def _finished(asked: Asked, task: "_Task") -> Audit:
    """Return the finished audit in the folder. Raises: ``RecordError`` if it is another audit."""
    assert asked.out is not None
    found = stored(asked.out)
    told = stored_words(asked.out)
    differing = _differing(told, asked.content())
    if not differing and not task.about().matches(told.get("about")):
        differing = ["the model's weights or answers, or the examples"]
    if differing:
        raise RecordError(
            f"{asked.out} holds an audit ({_RESULT}) of another model, or with other settings: "
            "choose another --out. They differ in " + "; ".join(differing)
        )
    return found


def _differing(there: dict[str, Any], here: dict[str, Any]) -> list[str]:
    """Return the options that differ, each with both values."""
    asked = [told.get("asked") for told in (there, here)]
    flat = [
        {"model": told.get("model"), "data": told.get("data")}
        | (more if isinstance(more, dict) else {})
        for told, more in zip((there, here), asked, strict=True)
    ]
    # Only options are compared, since a record may hold other keys.
    return list(differing({name: flat[0].get(name) for name in flat[1]}, flat[1]))


@contextmanager
def _folder(out: Path, resume: bool) -> Iterator[Path]:
    """Yield the journal in ``out`` for this process alone.

    ``out`` must be empty, or hold an audit to go on with.
    """
    if os.path.exists(out):
        _require_ours(out, resume)  # before anything in it is changed
    with held(out, f"another process is auditing in {out}"):
        _require_ours(out, resume)
        clear(out)
        yield out / _JOURNAL


def _require_ours(out: Path, resume: bool) -> None:
    """Refuse a folder with files that an audit must not change. Raises: ``RecordError``."""
    if not os.path.isdir(out):
        raise RecordError(f"{out} is a file; give a folder for the audit")
    try:
        there = set(listing(out))
    except OSError as error:
        raise RecordError(f"cannot read {out}: {reason(error)}") from error
    if there and not there & {_RESULT, _JOURNAL}:
        raise RecordError(f"{out} is not empty and holds no audit: choose another --out")
    if there and not resume:
        raise RecordError(
            f"{out} holds an audit, which was not overwritten: go on with it with --resume, "
            "or choose another --out"
        )


@dataclass(frozen=True)
class _Task:
    """The subject of an audit: a model, examples, a ball and a claim."""

    source: Source
    eps: float
    norm: str
    claim: Pgd | None
    x: Tensor
    y: Tensor

    def about(self) -> About:
        """Return what distinguishes this audit from others."""
        model = self.source.model
        try:
            with evaluating(model):
                said = subject(model, self.x, self.y).said
        except ValueError as error:
            raise ConfigError(str(error)) from error
        return About.of([model], [self.x, self.y], said)


def _task(asked: Asked) -> _Task:
    source = opened(
        asked.where,
        asked.data,
        asked.network,
        asked.last,
        asked.trust,
        asked.batch_norm,  # type: ignore[arg-type]
    )
    claim = claim_of(source.claim, asked.eps, asked.norm, asked.claim)
    return _Task(source, *claim, *_examples(source, asked))


def _audited(asked: Asked, task: _Task, journal: Path | None, progress: Progress) -> Audit:
    source, eps, norm = task.source, task.eps, task.norm
    device = default_device()
    plan = Execution(device, batch=asked.batch)
    others = []
    if asked.budget == "full":
        if source.network is None:
            raise ConfigError("name a network for the surrogates: --model mnist-cnn-small")
        others = surrogates(
            source.data,
            source.network,
            eps=eps,
            norm=norm,  # type: ignore[arg-type]
            cache=cache() / "surrogates",
            train=trained,
            progress=progress,
            batch_norm=source.batch_norm,
        )
    try:
        with plan.active():
            return audit(
                source.model.to(device),
                task.x.to(device),
                task.y.to(device),
                eps=eps,
                norm=norm,  # type: ignore[arg-type]
                budget=asked.budget,  # type: ignore[arg-type]
                claim=task.claim,
                surrogates=[other.to(device) for other in others],
                batch_size=asked.batch,
                seed=asked.seed,
                journal=journal,
                progress=progress,
            )
    except (ValueError, RuntimeError) as error:
        raise ConfigError(f"the audit of {asked.where} failed: {error}") from error


def _examples(source: Source, asked: Asked) -> tuple[Tensor, Tensor]:
    """Draw test examples at random; take all where there are fewer than asked for."""
    test = source.dataset.test
    draw = torch.Generator().manual_seed(asked.seed)
    index = torch.randperm(len(test), generator=draw)[: asked.samples].sort().values
    return test.images(index), test.y[index]
