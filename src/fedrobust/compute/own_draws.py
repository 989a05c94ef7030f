"""What a user's own component draws from a global generator comes from a stream of the run."""

from contextlib import AbstractContextManager, nullcontext

from fedrobust.compute.randomness import Streams, drawing

_NOTHING = nullcontext()


def own_draws(foreign: bool, rng: Streams, what: str, *keys: int) -> AbstractContextManager[None]:
    """Within, a ``foreign`` component draws from the stream of ``what`` and ``keys``.

    Whatever generator it asks: Python's, NumPy's or PyTorch's global one. They are afterwards as
    they were. Fedrobust's own components ask none of these, and so pay nothing for it.
    """
    if not foreign:
        return _NOTHING
    return drawing(rng.generator(f"own {what}", *keys).initial_seed() % 2**63)
