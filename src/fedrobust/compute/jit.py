"""How numba compiles loops. Importing this module imports numba, which takes half a second."""

from collections.abc import Callable
from typing import Any, TypeVar

from fedrobust.compute.unconfigured import numba

Loop = TypeVar("Loop", bound=Callable[..., Any])


def compiled(loop: Loop, **options: Any) -> Loop:
    """``loop`` as machine code, kept on disk for the next process where that is possible."""
    options |= {"nogil": True, "error_model": "numpy"}
    try:
        machine_code: Loop = numba.njit(cache=True, **options)(loop)
    except RuntimeError:  # neither the package nor the user's cache directory can be written
        machine_code = numba.njit(**options)(loop)
    return machine_code


def reassociated(loop: Loop) -> Loop:
    """``compiled``, where sums may be split into parallel ones and products fused into them."""
    return compiled(loop, fastmath={"reassoc", "contract"})


def inlined(loop: Loop) -> Loop:
    """``compiled``, as a part of whatever calls it, so that a loop around it can be vectorised."""
    return compiled(loop, fastmath={"reassoc", "contract"}, inline="always")
