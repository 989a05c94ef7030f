"""How numba compiles loops. Importing this module imports numba, which takes half a second."""

from collections.abc import Callable
from typing import Any, TypeVar

from fedrobust.compute.unconfigured import numba

Loop = TypeVar("Loop", bound=Callable[..., Any])


def compiled(loop: Loop, **options: Any) -> Loop:
    """Compile ``loop`` to machine code, stored on disk for the next process where possible."""
    options |= {"nogil": True, "error_model": "numpy"}
    try:
        machine_code: Loop = numba.njit(cache=True, **options)(loop)
    except RuntimeError:  # neither the package folder nor the user's cache folder is writable
        machine_code = numba.njit(**options)(loop)
    return machine_code


def reassociated(loop: Loop) -> Loop:
    """Compile like ``compiled``; sums may be split into parallel ones and fused with products."""
    return compiled(loop, fastmath={"reassoc", "contract"})


def inlined(loop: Loop) -> Loop:
    """Compile like ``compiled``, inside each caller, so that a loop around it can be vectorised."""
    return compiled(loop, fastmath={"reassoc", "contract"}, inline="always")
