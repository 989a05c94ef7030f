"""What the model under audit claims: the ball, and the PGD behind its robust accuracy."""

import math
import re
from dataclasses import replace
from fractions import Fraction

from fedrobust.errors import ConfigError
from fedrobust.perturb import Pgd

_PGD = re.compile(r"\s*(\d+)\s*[x×*]\s*(\S+)\s*", re.I)


def claim_of(
    known: Pgd | None, eps: float | None, norm: str | None, said: str | None
) -> tuple[float, str, Pgd | None]:
    """Return radius, norm and claim; the claim is None where it is FAT's PGD.

    They are those of the run, ``known``, unless the options ``eps``, ``norm`` and ``said``, such as
    "40x0.01" for 40 steps of 0.01, differ. ``said`` keeps the run's restarts and kind of start.

    Raises: ``ConfigError`` where there is no radius, or where ``said`` is no PGD.
    """
    if known is not None:
        same = eps is None or math.isclose(eps, known.eps, rel_tol=2e-3)
        if same and norm in (None, known.norm):
            eps, norm = known.eps, known.norm
            if said is None:
                return eps, norm, known
    if eps is None:
        raise ConfigError("name the radius of the ball: --eps 0.3")
    norm = norm or (known.norm if known else "linf")
    if said is None:
        return eps, norm, None
    ball = Pgd(eps=eps, norm=norm, step_size=eps, steps=1)  # type: ignore[arg-type]
    return eps, norm, _read(said, replace(known, eps=eps, norm=ball.norm) if known else ball)


def _read(said: str, given: Pgd) -> Pgd:
    """Return ``given`` with the steps and the step size of ``said``."""
    found = _PGD.fullmatch(said)
    try:
        if found is None:
            raise ValueError("it is no number of steps and their size")
        return replace(given, steps=int(found[1]), step_size=float(Fraction(found[2])))
    except (ValueError, OverflowError, ZeroDivisionError) as error:
        raise ConfigError(
            f"--claim is {said!r} ({error}); write the steps of PGD and their size, such as "
            "40x0.01 or 20x2/255"
        ) from error
