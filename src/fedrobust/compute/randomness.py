"""Randomness is explicit: one generator for each (seed, stream, key ...), and no global one."""

import pickle
import random
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class Streams:
    """The random streams of one run.

    ``streams.generator("batches", round, client)`` is the same generator whenever and wherever it
    is created. So a run that was killed needs no saved random state. Neither the order in which
    clients train nor a client that is skipped changes what the others draw.
    """

    seed: int

    def child(self, name: str) -> "Streams":
        """Return separate streams for a part of the run whose keys would otherwise clash."""
        return Streams(self.generator(name).initial_seed())

    def generator(self, stream: str, *keys: int) -> torch.Generator:
        """Return a new CPU generator; draws do not depend on the device to which they are moved."""
        key = (zlib.crc32(stream.encode()), *keys)
        sequence = np.random.SeedSequence(self.seed, spawn_key=key)
        state = int(sequence.generate_state(1, np.uint64)[0])
        return torch.Generator().manual_seed(state)


def seed_globally(seed: int) -> None:
    """Seed the global generators of Python, NumPy and PyTorch, for code that uses them.

    Layers such as dropout draw from PyTorch's generator, and a user's own model, rule or attack
    from any. ``torch.manual_seed`` does the same for PyTorch. But where there is no GPU, it formats
    a stack trace at each call and keeps it, which takes longer than to train a small network.
    """
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_available():
        torch.cuda.manual_seed_all(seed)
    np.random.seed(seed % 2**32)  # intentionally the global one
    random.seed(seed)


def positions() -> tuple[object, ...]:
    """Return where the global generators of Python, NumPy and PyTorch stand; a draw changes it."""
    return (
        random.getstate(),
        pickle.dumps(np.random.get_state(legacy=False)),
        torch.get_rng_state().numpy().tobytes(),
    )


@contextmanager
def isolated() -> Iterator[None]:
    """Inside this context, global generators may be seeded and used; they are restored afterwards.

    These are the generators of Python, NumPy and PyTorch, on every GPU too, because
    ``torch.manual_seed`` sets them all.
    """
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=list(range(torch.cuda.device_count()))):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


@contextmanager
def drawing(seed: int) -> Iterator[None]:
    """Inside this context, the global generators are seeded with ``seed``; see :func:`isolated`."""
    with isolated():
        seed_globally(seed)
        yield
