"""Running attacks on the examples of an audit, a chunk at a time."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from fedrobust.compute.network import batched_logits, right
from fedrobust.compute.randomness import Streams, drawing
from fedrobust.evaluation.auditing.battery import Attack
from fedrobust.evaluation.auditing.model_check import Scaled
from fedrobust.evaluation.auditing.progress_file import ProgressFile
from fedrobust.perturb import Perturbation
from fedrobust.perturb.geometry import Norm, allowed
from fedrobust.progress import Progress
from fedrobust.typing import Images, Indices, Labels, Mask

_FACTORS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0)
"""Factors tried on logits, in units that make their typical lead 1."""
_LOOKED_AT = 100
"""Examples on which the factor is chosen."""


@dataclass(frozen=True)
class Taken:
    """What one attack did: of ``tried`` examples it made the model err on ``fell``."""

    name: str
    tried: int
    fell: int
    seconds: float


class AttackRunner:
    """The examples of an audit, and which of them stand after every attack so far.

    They are attacked ``batch`` neighbours at a time, and what such a chunk gave goes into the
    journal. Each chunk draws its own noise, for all its examples, whoever of them is tried.
    """

    def __init__(
        self,
        model: nn.Module,
        x: Images,
        y: Labels,
        ball: tuple[float, Norm],
        batch: int,
        seed: int,
        progress: Progress,
        journal: ProgressFile,
    ) -> None:
        self.eps, self.norm = ball
        self.model, self.x, self.y, self.batch, self.progress = model, x, y, batch, progress
        self.journal, self._streams = journal, Streams(seed)
        self.taken: list[Taken] = []
        self.stands = self.mask("clean", lambda: right(model, x, y, batch))

    def mask(self, name: str, work: Callable[[], Mask]) -> Mask:
        """Which examples ``work`` names; once for all, by way of the journal."""
        named = self.recalled(name, lambda: work().nonzero()[:, 0].tolist())
        found = torch.zeros_like(self.y, dtype=torch.bool)
        found[named] = True
        return found

    def recalled(self, name: str, work: Callable[[], Any]) -> Any:
        """What ``work`` gives, once for all; what the model draws in it comes from its name."""

        def drawn() -> Any:
            with drawing(self._streams.generator(f"model, {name}").initial_seed()):
                return work()

        return self.journal.recall(name, drawn)

    def run(self, attack: Attack, among: Mask | None = None) -> Mask:
        """Which of those that stand, or of ``among``, an attack fells; they stand no more."""
        fell = self.fells(attack, self.stands if among is None else among)
        self.stands = self.stands & ~fell
        return fell

    def fells(self, attack: Attack, among: Mask) -> Mask:
        """Which of ``among`` an attack fells, by points that lie in its ball and in [0, 1]."""
        fell, done, total, seconds = torch.zeros_like(among), 0, int(among.sum()), 0.0
        for first in range(0, len(among), self.batch):
            self.progress.moved(attack.name, done, total)
            tried = first + among[first : first + self.batch].nonzero()[:, 0]
            if not len(tried):
                continue
            work = partial(self._chunk, attack, first, tried)
            found = self.recalled(f"{attack.name}: {first}", work)
            fell[found["fell"]] = True
            seconds += found["seconds"]
            done += len(tried)
        self.progress.moved(attack.name, total, total)
        self.taken.append(Taken(attack.name, total, int(fell.sum()), seconds))
        return fell

    def _chunk(self, attack: Attack, first: int, tried: Indices) -> dict[str, Any]:
        began = time.monotonic()
        part = slice(first, first + self.batch)
        model, x, y = self.model, self.x[part], self.y[part]
        index = tried - first
        source = self._streams.generator("audit", first)
        found = attacked(model, attack, x, y, index, self.batch, source)
        wrong = ~right(model, found, y[index], self.batch)
        fell = wrong & allowed(found, x[index], attack.radius or self.eps, self.norm, box=True)
        return {"fell": tried[fell].tolist(), "seconds": round(time.monotonic() - began, 3)}

    def rescaled(self, how: Perturbation, probe: Perturbation) -> tuple[Attack, Attack | None]:
        """``how`` on quieter logits, and on louder ones where these fell more of a few examples.

        The temperature that a masked model was trained at is unknown to whoever audits it, so
        ``probe`` tries factors, in units of the median lead of the first logit over the second.
        Only factors below 1 tell of masking: logits that are too large leave the loss no gradient,
        and small ones leave it one that is merely not the best.
        """
        fell = self.recalled("factor", lambda: self._fell(probe))
        by = {float(factor): count for factor, count in fell.items()}
        quiet = max((f for f in by if f <= 1), key=lambda f: by[f], default=min(by))
        loud = max(by, key=lambda f: by[f])
        more = Attack("PGD, louder logits", how, loud) if by[loud] > by[quiet] else None
        return Attack("rescaled PGD", how, quiet), more

    def _fell(self, probe: Perturbation) -> dict[str, int]:
        """How many of a few examples fall, for each factor."""
        x, y = self.x[:_LOOKED_AT], self.y[:_LOOKED_AT]
        top = batched_logits(self.model, x, self.batch).double().topk(2, dim=1).values
        lead = float((top[:, 0] - top[:, 1]).abs().median().nan_to_num(nan=1.0)) or 1.0
        some, fell = torch.arange(len(x), device=x.device), {}
        for tried, share in enumerate(_FACTORS):
            self.progress.moved("search for the factor", tried, len(_FACTORS))
            attack = Attack("rescaled PGD", probe, share / lead)
            source = self._streams.generator("factor")
            found = attacked(self.model, attack, x, y, some, self.batch, source)
            wrong = ~right(self.model, found, y, self.batch) & allowed(
                found, x, self.eps, self.norm, box=True
            )
            fell[repr(share / lead)] = int(wrong.sum())
        return fell


def attacked(
    model: nn.Module,
    attack: Attack,
    x: Images,
    y: Labels,
    index: Indices,
    batch: int,
    source: torch.Generator,
) -> Images:
    """The adversarial examples of ``x[index]``; noise is drawn for all before any is skipped."""
    seen = model if attack.factor == 1.0 else Scaled(model, attack.factor)

    def draw() -> Any:
        noise = attack.how.draw(x, source)
        return None if noise is None else noise[index.to(noise.device)]

    return attack.how.maximize(seen, x[index], y[index], draw, batch=batch)
