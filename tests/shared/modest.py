"""What reads a hostile file takes little memory, little time, and never waits."""

import signal
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def modestly(most: int = 2**26, seconds: float = 5.0) -> Iterator[None]:
    """Within, so much memory and time of a processor is taken at most; what waits is stopped."""

    def stop(*_: Any) -> None:
        raise TimeoutError("it hangs")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, 10 * seconds)
    tracemalloc.start()
    began = time.process_time()
    try:
        yield
        taken = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert taken < most, f"{taken:,} bytes"
    assert time.process_time() - began < seconds
