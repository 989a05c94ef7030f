"""Run attacks on the examples of an audit, one chunk at a time."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from fedrobust.compute.global_draws import Draws, draws
from fedrobust.compute.network import batched_logits, right
from fedrobust.compute.randomness import Streams, drawing
from fedrobust.compute.trial import spread
from fedrobust.compute.units import computed, slices
from fedrobust.evaluation.accuracy import noise
from fedrobust.evaluation.auditing.battery import Attack
from fedrobust.evaluation.auditing.model_check import Scaled
from fedrobust.evaluation.auditing.progress_file import ProgressFile
from fedrobust.perturb import Perturbation
from fedrobust.perturb.geometry import Norm, allowed
from fedrobust.perturb.perturbation import Draw
from fedrobust.progress import Progress
from fedrobust.typing import Images, Indices, Labels, Mask

_FACTORS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0)
"""The factors tried on logits, in units that make their median lead 1."""
_LOOKED_AT = 100
"""The number of examples on which the factor is chosen."""


@dataclass(frozen=True)
class Taken:
    """The result of one attack: it made the model err on ``fell`` of ``tried`` examples.

    ``seconds`` are those of all workers together.
    """

    name: str
    tried: int
    fell: int
    seconds: float


class AttackRunner:
    """The examples of an audit, and which of them still stand after all attacks so far.

    A chunk of ``batch`` neighbouring examples is attacked at a time, and its result goes into the
    journal. Noise is drawn for all examples, even for those that are not tried.
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
        self.refused: dict[str, int] = {}
        """How many points of each attack lie outside of its ball or [0, 1], or are not finite."""
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
            with drawing(self._seed(name)):
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
        parts = slices(len(among), self.batch)
        tried = {f"{attack.name}: {i.start}": i for i in parts if among[i].any()}
        missing = [name for name in tried if self.journal.known(name) is None]
        total = int(among.sum())
        done = total - sum(int(among[tried[name]].sum()) for name in missing)
        self.progress.moved(attack.name, done, total)

        seed = self._streams.generator("audit").initial_seed()
        work = partial(
            _fallen, attack, (self.x, self.y), among, tried, (self.eps, self.norm), self.batch, seed
        )

        def keep(i: int, found: dict[str, Any]) -> None:
            nonlocal done
            self.journal.keep(missing[i], found)
            done += int(among[tried[missing[i]]].sum())
            self.progress.moved(attack.name, done, total)

        # One module holds all models that the attack asks, so that each worker has its own copies.
        models = nn.ModuleList([self.model, *attack.asks])
        drawn = self._draws(*models)
        computed(models, missing, work, seed=self._seed, draws=drawn, anywhere=True, done=keep)
        found = [self.journal.known(name) for name in tried]
        fell = torch.zeros_like(among)
        fell[[i for part in found for i in part["fell"]]] = True
        if lost := sum(part.get("refused", 0) for part in found):  # older journals do not say
            self.refused[attack.name] = lost
        seconds = sum(part["seconds"] for part in found)
        self.taken.append(Taken(attack.name, total, int(fell.sum()), seconds))
        return fell

    def _draws(self, *models: nn.Module) -> Draws:
        """Return whether one of ``models`` draws."""
        found = {draws(model, self.x) for model in models}
        words: tuple[Draws, ...] = ("from its own", "perhaps", "not in a trial", "never")
        return next(word for word in words if word in found)

    def _seed(self, name: str) -> int:
        """Return the seed of the model's own draws in the work called ``name``."""
        return self._streams.generator(f"model, {name}").initial_seed() % 2**63

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
        x, y = spread(self.x, _LOOKED_AT), spread(self.y, _LOOKED_AT)
        top = batched_logits(self.model, x, self.batch).double().topk(2, dim=1).values
        lead = float((top[:, 0] - top[:, 1]).abs().median().nan_to_num(nan=1.0)) or 1.0
        some, factors = torch.arange(len(x), device=x.device), [share / lead for share in _FACTORS]

        def work(model: nn.Module, factor: float) -> int:
            attack = Attack("rescaled PGD", probe, factor)
            seed = self._streams.generator("factor").initial_seed()
            draw = noise(probe, x, slice(0, len(x)), seed)
            found = attacked(model, attack, x, y, some, draw)
            taken = ~right(model, found, y, self.batch)
            return int((taken & allowed(found, x, self.eps, self.norm, box=True)).sum())

        def told(i: int, fell: int) -> None:
            self.progress.moved("search for the factor", i + 1, len(factors))

        self.progress.moved("search for the factor", 0, len(factors))
        fell = computed(
            self.model,
            factors,
            work,
            seed=lambda factor: self._seed(f"factor {factor!r}"),
            draws=self._draws(self.model),
            done=told,
        )
        return {repr(factor): count for factor, count in zip(factors, fell, strict=True)}


def _fallen(
    attack: Attack,
    examples: tuple[Images, Labels],
    among: Mask,
    parts: Mapping[str, slice],
    ball: tuple[float, Norm],
    batch: int,
    seed: int,
    models: nn.Module,
    name: str,
) -> dict[str, Any]:
    """Attack the examples ``among`` those of a part; return which of them fell."""
    began, part = time.monotonic(), parts[name]
    model, attack = attack.of(models)
    x, y, index = examples[0][part], examples[1][part], among[part].nonzero()[:, 0]
    found = attacked(model, attack, x, y, index, noise(attack.how, examples[0], part, seed))
    fit = allowed(found, x[index], attack.radius or ball[0], ball[1], box=True)
    fell = ~right(model, found, y[index], batch) & fit
    seconds = round(time.monotonic() - began, 3)
    told = {"fell": (part.start + index[fell]).tolist(), "seconds": seconds}
    return told if fit.all() else told | {"refused": int((~fit).sum())}


def attacked(
    model: nn.Module, attack: Attack, x: Images, y: Labels, index: Indices, draw: Draw
) -> Images:
    """Return adversarial examples of ``x[index]``. ``draw`` draws for all, skipped ones too."""
    seen = model if attack.factor == 1.0 else Scaled(model, attack.factor)

    def drawn() -> Any:
        found = draw()
        return None if found is None else found[index.to(found.device)]

    return attack.how.maximize(seen, x[index], y[index], drawn, batch=max(len(index), 1))
