"""An audit as the command line asks for it."""

import json
import math
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from fractions import Fraction
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from fedrobust.compute.execution import Execution, default_device
from fedrobust.compute.network import evaluating
from fedrobust.config.arguments import shortened
from fedrobust.data.sources import cache
from fedrobust.errors import ConfigError, RecordError, RecordWarning, WriteError
from fedrobust.evaluation.auditing.auditor import audit
from fedrobust.evaluation.auditing.battery import Budget
from fedrobust.evaluation.auditing.model_check import subject
from fedrobust.evaluation.auditing.progress_file import About, ProgressFile
from fedrobust.evaluation.auditing.result import Audit
from fedrobust.files import clear, held, listing, reason, written
from fedrobust.perturb import Pgd
from fedrobust.perturb.geometry import Norm
from fedrobust.progress import UNWATCHED, Progress
from fedrobust.records.reading import broken, json_of, present
from fedrobust.records.schema.formats import with_format
from fedrobust.runs.audited_model import Source, opened
from fedrobust.runs.surrogates import surrogates

_RESULT, _JOURNAL = "audit.json", "progress.jsonl"


@dataclass(frozen=True)
class Asked:
    """What ``fedrobust audit`` was asked for; None is what the model's own run says."""

    where: str
    eps: float | None = None
    norm: str | None = None
    data: str | None = None
    network: str | None = None
    budget: str = "quick"
    samples: int = 1000
    seed: int = 0
    batch: int = 256
    last: bool = False
    out: Path | None = None
    resume: bool = False
    trust: bool = False

    def content(self) -> dict[str, Any]:
        """What the record says of the question."""
        silent = ("where", "out", "resume", "trust")
        asked = {k: v for k, v in asdict(self).items() if k not in silent}
        return {"model": self.where, "data": self.data or "the run's own", "asked": asked}


def audited(asked: Asked, progress: Progress | None = None) -> Audit:
    """Audit a model on test examples; what is found goes into the folder ``asked.out``.

    Raises: ``UserError`` of the kind that says what is wrong; nothing that exists is overwritten.
    """
    for name, value, kind in (("norm", asked.norm, Norm), ("budget", asked.budget, Budget)):
        if value is not None and value not in get_args(kind):
            raise ConfigError(f"--{name} is {value}; it can be {' or '.join(get_args(kind))}")
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
        # Before the model goes to a GPU: the examples stay here.
        about = task.about().to_json()
        found = _audited(asked, task, journal, progress or UNWATCHED)
        content = {"fedrobust": version("fedrobust")} | asked.content() | found.to_json()
        content["about"] = about
        content = with_format(_RESULT, content)
        _keep(done, json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    return found


def _keep(done: Path, text: str) -> None:
    """Write what an audit found; where that fails it is still told, and its journal goes on."""
    try:
        written(done, text)
    except WriteError as error:
        warnings.warn(f"the audit was not kept: {error}", RecordWarning, stacklevel=2)
    else:
        _forget(done.with_name(_JOURNAL))


def _forget(journal: Path) -> None:
    """Remove the journal of a finished audit, which a later one may remove as well."""
    with suppress(OSError):
        journal.unlink(missing_ok=True)


def stored(folder: Path) -> Audit:
    """The audit that was written to ``folder``. Raises: ``RecordError`` where it is broken."""
    path = folder / _RESULT
    content = stored_words(folder)
    try:
        return Audit.from_json(content)
    except ValueError as error:
        raise broken(path, error, then=_then(folder)) from error


def stored_words(folder: Path) -> dict[str, Any]:
    """All that the record of an audit holds. Raises: ``RecordError`` where it cannot be read."""
    return json_of(folder / _RESULT, dict, then=_then(folder))


def _then(folder: Path) -> str:
    """What to do about a broken result: its journal is there until it is written."""
    if (folder / _JOURNAL).is_file():
        return "remove it and go on with the audit with --resume"
    return "audit again in a new --out"


def _finished(asked: Asked, task: "_Task") -> Audit:
    """The audit that is done there. Raises: ``RecordError`` where that is another one."""
    assert asked.out is not None
    found = stored(asked.out)
    told = stored_words(asked.out)
    differing = _differing(told, asked.content())
    if not differing and not task.about().matches(told.get("about")):
        differing = ["what the model holds or answers, or the examples"]
    if differing:
        raise RecordError(
            f"{asked.out} holds an audit ({_RESULT}) of another model, or with other settings: "
            "choose another --out. They differ in " + "; ".join(differing)
        )
    return found


def _differing(there: dict[str, Any], here: dict[str, Any]) -> list[str]:
    """What was asked for, name by name, where it is not the same."""
    asked = [told.get("asked") for told in (there, here)]
    flat = [
        {"model": told.get("model"), "data": told.get("data")}
        | (more if isinstance(more, dict) else {})
        for told, more in zip((there, here), asked, strict=True)
    ]
    # Only what can be asked for: a record may hold anything else.
    names = list(flat[1])
    pairs = [(name, *(shortened(str(told.get(name))) for told in flat)) for name in names]
    return [f"{name}: {a} there, {b} here" for name, a, b in pairs if a != b]


@contextmanager
def _folder(out: Path, resume: bool) -> Iterator[Path]:
    """The journal in ``out``, which is empty or holds an audit to go on with, for us alone."""
    if os.path.exists(out):
        _require_ours(out, resume)  # before anything in it is changed
    with held(out, f"another process is auditing in {out}"):
        _require_ours(out, resume)
        clear(out)
        yield out / _JOURNAL


def _require_ours(out: Path, resume: bool) -> None:
    """Raises: ``RecordError`` where there is anything that an audit must not change."""
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
    """What is audited: a model, examples, a ball and a claim."""

    source: Source
    eps: float
    norm: str
    claim: Pgd | None
    x: Tensor
    y: Tensor

    def about(self) -> About:
        """What tells this audit from others."""
        model = self.source.model
        try:
            with evaluating(model):
                said = subject(model, self.x, self.y).said
        except ValueError as error:
            raise ConfigError(str(error)) from error
        return About.of([model], [self.x, self.y], said)


def _task(asked: Asked) -> _Task:
    source = opened(asked.where, asked.data, asked.network, asked.last, asked.trust)
    return _Task(source, *_claimed(asked, source), *_examples(source, asked))


def _audited(asked: Asked, task: _Task, journal: Path | None, progress: Progress) -> Audit:
    source, eps, norm = task.source, task.eps, task.norm
    device = default_device()
    threads = None if journal is None else ProgressFile.threads(journal)
    plan = Execution(device, threads or torch.get_num_threads(), asked.batch)
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
            progress=progress,
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


def _claimed(asked: Asked, source: Source) -> tuple[float, str, Pgd | None]:
    """Radius, norm and claim: the run's own where nothing else is asked for."""
    eps, norm, claim = asked.eps, asked.norm, source.claim
    if claim is not None:
        same = eps is None or math.isclose(eps, claim.eps, rel_tol=2e-3)
        if same and norm in (None, claim.norm):
            return claim.eps, claim.norm, claim
    if eps is None:
        raise ConfigError("name the radius of the ball: --eps 0.3")
    return eps, norm or (claim.norm if claim else "linf"), None


def _examples(source: Source, asked: Asked) -> tuple[Tensor, Tensor]:
    """Test examples drawn at random, all of them where there are not as many."""
    test = source.dataset.test
    draw = torch.Generator().manual_seed(asked.seed)
    index = torch.randperm(len(test), generator=draw)[: asked.samples].sort().values
    return test.images(index), test.y[index]


def radius(text: str) -> float:
    """0.3, or a quotient such as 8/255. Raises: ``ConfigError``."""
    try:
        value = float(Fraction(text))
    except (ValueError, OverflowError, ZeroDivisionError) as error:
        raise ConfigError(f"--eps is {text}; write a number such as 0.3 or 8/255") from error
    return value
