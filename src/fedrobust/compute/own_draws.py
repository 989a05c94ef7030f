"""The draws of a user's own component from global generators come from a stream of the run."""

from contextlib import AbstractContextManager, nullcontext

from fedrobust.compute.randomness import Streams, drawing

_NOTHING = nullcontext()


def own_draws(foreign: bool, rng: Streams, what: str, *keys: int) -> AbstractContextManager[None]:
    """Inside this context, a ``foreign`` component draws from the stream of ``what`` and ``keys``.

    This holds for the global generators of Python, NumPy and PyTorch. They are restored afterwards.
    Fedrobust's own components use none of them, and so nothing is done for them.
    """
    if not foreign:
        return _NOTHING
    return drawing(rng.generator(f"own {what}", *keys).initial_seed() % 2**63)
