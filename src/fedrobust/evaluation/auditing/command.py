"""An audit as the command line asks for it."""

import json
import math
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from typing import get_args

import torch

from fedrobust.errors import ConfigError, RecordError
from fedrobust.evaluation.auditing.auditor import audit
from fedrobust.evaluation.auditing.battery import Budget, Watch
from fedrobust.evaluation.auditing.result import Audit
from fedrobust.evaluation.auditing.source import opened
from fedrobust.perturb.geometry import Norm


def audited(
    where: str,
    *,
    eps: float | None,
    norm: str | None,
    data: str | None,
    network: str | None,
    budget: str,
    samples: int,
    seed: int,
    last: bool,
    out: Path | None,
    watch: Watch,
) -> Audit:
    """Audit the model ``where`` on test examples, and write the result to ``out``.

    Raises: ``UserError`` of the kind that says what is wrong; nothing that exists is overwritten.
    """
    for name, value, kind in (("norm", norm, Norm), ("budget", budget, Budget)):
        if value is not None and value not in get_args(kind):
            raise ConfigError(f"--{name} is {value}; it can be {' or '.join(get_args(kind))}")
    if out is not None and out.exists():
        raise RecordError(f"{out} exists and was not overwritten: name another file")
    source = opened(where, data, network, last)
    claim = source.claim
    if claim is not None:
        same = eps is None or math.isclose(eps, claim.eps, rel_tol=1e-2)
        if same and norm in (None, claim.norm):
            eps, norm = claim.eps, claim.norm
        else:
            claim = None
    if eps is None:
        raise ConfigError("name the radius of the ball: --eps 0.3")
    norm = norm or "linf"
    test = source.dataset.test
    if len(test) < samples:
        samples = len(test)
    draw = torch.Generator().manual_seed(seed)
    index = torch.randperm(len(test), generator=draw)[:samples].sort().values
    try:
        found = audit(
            source.model,
            test.images(index),
            test.y[index],
            eps=eps,
            norm=norm,  # type: ignore[arg-type]
            budget=budget,  # type: ignore[arg-type]
            claim=claim,
            seed=seed,
            watch=watch,
        )
    except (ValueError, RuntimeError) as error:
        raise ConfigError(f"the audit of {where} failed: {error}") from error
    if out is not None:
        _write(found, out, {"model": where, "data": data or "the run's own"})
    return found


def radius(text: str) -> float:
    """0.3, or a quotient such as 8/255. Raises: ``ConfigError``."""
    try:
        value = float(Fraction(text))
    except (ValueError, ZeroDivisionError) as error:
        raise ConfigError(f"--eps is {text}; write a number such as 0.3 or 8/255") from error
    return value


def _write(found: Audit, out: Path, about: dict[str, str]) -> None:
    content = about | asdict(found)
    content["shares"] = {
        name: {"value": share.value, "low": share.low, "high": share.high, "total": share.total}
        for name, share in found.shares.items()
    }
    content["signs"] = [asdict(s) | {"limit": s.limit, "masked": s.masked} for s in found.signs]
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with out.open("x", encoding="utf-8") as file:
            file.write(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    except OSError as error:
        raise RecordError(f"cannot write {out}: {error}") from error
