"""Who draws from the global random generators, of which a process has one set."""

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from fedrobust.compute.network import logits
from fedrobust.compute.randomness import isolated, positions, seed_globally
from fedrobust.compute.trial import same
from fedrobust.errors import DrawWarning
from fedrobust.typing import Images

_KINDS = ("activation", "container", "conv", "flatten", "linear", "normalization", "pooling")
_HOMES = {f"torch.nn.modules.{kind}" for kind in _KINDS}
_DRAWING = (nn.RReLU, nn.MultiheadAttention, nn.FractionalMaxPool2d, nn.FractionalMaxPool3d)
_GENERATORS = threading.RLock()

DRAWS = (
    "{} drew from a global random generator, but did not do so {}: the result may depend on the "
    "number of workers. Let it draw always or never, or set execution.threads to 1"
)
"""What a ``DrawWarning`` says: who drew, and when it did not."""


def drawless(model: nn.Module) -> bool:
    """Whether ``model`` consists of layers that never draw a random number, without hooks."""
    return all(_drawless(module) for module in model.modules())


def _drawless(module: nn.Module) -> bool:
    home = type(module).__module__
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks)
    known = home in _HOMES or home.startswith("fedrobust.")
    own = "forward" in vars(module)  # a function of the user's in its place
    return known and not own and not isinstance(module, _DRAWING) and not any(hooks)


Draws: TypeAlias = Literal["never", "not in a trial", "perhaps", "from its own"]
"""What is known of a computation: whether it draws from the global generators.

What draws ``from its own`` generator, or keeps other state, answers otherwise the next time.
"""


def draws(model: nn.Module, x: Images) -> Draws:
    """Return whether ``model`` draws, for a model that is not known by a trial on a few of x."""
    if drawless(model):
        return "never"
    with isolated(), torch.no_grad():
        first, drew = _asked(model, x)
        again, _ = _asked(model, x)
    if not same(first, again):
        return "from its own"
    return "perhaps" if drew else "not in a trial"


def _asked(model: nn.Module, x: Images) -> tuple[Tensor, bool]:
    """Return the answer under one seed, and whether the global generators have moved."""
    seed_globally(0)
    before = positions()
    return logits(model, x[:2]).clone(), positions() != before


class GlobalDraws:
    """The parts of a round that may draw from the global generators: one worker at a time does.

    Parts in ``never`` do not. Any other part waits for its turn in the first round that plays it.
    If it draws there, it always waits. If not, workers compute it side by side in later rounds.
    """

    def __init__(self, never: set[str]) -> None:
        self._free, self._judged = set(never), set[str]()
        self._played, self._drew = set[str](), set[str]()

    @contextmanager
    def seeded(self, part: str, seed: int) -> Iterator[None]:
        """Inside this context ``part`` has the generators to itself, seeded with ``seed``."""
        if part in self._free:
            yield
            return
        with _GENERATORS:
            seed_globally(seed)
            before = positions()
            yield
            self._played.add(part)
            if positions() != before:
                self._drew.add(part)

    @contextmanager
    def round(self) -> Iterator[None]:
        """Inside this context the workers play one round. It warns of an unexpected draw."""
        before = positions() if self._judged else None
        yield
        if self._judged and not self._played and positions() != before:
            told = DRAWS.format("the model, the objective or the attack", "in an earlier round")
            warnings.warn(told, DrawWarning, stacklevel=2)
            self._free -= self._judged
            self._judged = set()
        self._judged |= self._played - self._drew
        self._free |= self._judged
        self._played, self._drew = set(), set()
