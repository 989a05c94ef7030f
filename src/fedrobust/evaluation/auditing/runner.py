"""Run attacks on the examples of an audit, one chunk at a time."""

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
"""The factors tried on logits, in units that make their median lead 1."""
_LOOKED_AT = 100
"""The number of examples on which the factor is chosen."""


@dataclass(frozen=True)
class Taken:
    """The result of one attack: it made the model err on ``fell`` of ``tried`` examples."""

    name: str
    tried: int
    fell: int
    seconds: float


class AttackRunner:
    """The examples of an audit, and which of them still stand after all attacks so far.

    A chunk of ``batch`` neighbouring examples is attacked at a time, and its result goes into the
    journal. Each chunk draws its own noise for all its examples, even for those that are not tried.
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
        """Return which examples ``work`` names. It runs once; then the journal has the result."""
        named = self.recalled(name, lambda: work().nonzero()[:, 0].tolist())
        found = torch.zeros_like(self.y, dtype=torch.bool)
        found[named] = True
        return found

    def recalled(self, name: str, work: Callable[[], Any]) -> Any:
        """Return the result of ``work``, from the journal if it is there.

        ``name`` gives the seed of the model's own random draws in ``work``.
        """

        def drawn() -> Any:
            with drawing(self._streams.generator(f"model, {name}").initial_seed()):
                return work()

        return self.journal.recall(name, drawn)

    def run(self, attack: Attack, among: Mask | None = None) -> Mask:
        """Run an attack on the examples that stand, or on ``among``; return which ones it takes.

        Those no longer stand afterwards.
        """
        fell = self.fells(attack, self.stands if among is None else among)
        self.stands = self.stands & ~fell
        return fell

    def fells(self, attack: Attack, among: Mask) -> Mask:
        """Return which of ``among`` an attack takes with points in its ball and in [0, 1]."""
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
        """Return ``how`` on smaller logits, and on larger logits if those took more examples.

        The auditor does not know the temperature at which a masked model was trained. So ``probe``
        tries factors, in units of the median lead of the first logit over the second. Only factors
        below 1 show masking: logits that are too large leave the loss without a gradient, while
        small logits only make the gradient less effective.
        """
        fell = self.recalled("factor", lambda: self._fell(probe))
        by = {float(factor): count for factor, count in fell.items()}
        quiet = max((f for f in by if f <= 1), key=lambda f: by[f], default=min(by))
        loud = max(by, key=lambda f: by[f])
        more = Attack("PGD, louder logits", how, loud) if by[loud] > by[quiet] else None
        return Attack("rescaled PGD", how, quiet), more

    def _fell(self, probe: Perturbation) -> dict[str, int]:
        """Return how many of a few examples the probe takes, for each factor."""
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
    """Return adversarial examples of ``x[index]``. Noise is drawn for all before any is skipped."""
    seen = model if attack.factor == 1.0 else Scaled(model, attack.factor)

    def draw() -> Any:
        noise = attack.how.draw(x, source)
        return None if noise is None else noise[index.to(noise.device)]

    return attack.how.maximize(seen, x[index], y[index], draw, batch=batch)
