"""A wrapper that chooses an attack's strength in each round, against the rule itself."""

import math
from collections.abc import Callable
from copy import deepcopy
from dataclasses import fields, is_dataclass, replace
from typing import Annotated, Any, Literal, cast, get_args, get_type_hints

import torch
from annotated_types import Ge
from pydantic import Strict, model_validator

from fedrobust.aggregators.aggregator import NoAnswerError
from fedrobust.aggregators.checks import finite_rows
from fedrobust.attacks import estimates
from fedrobust.attacks.checks import fits, numbers, validate
from fedrobust.attacks.moments import mean
from fedrobust.attacks.wrappers.wrapper import Wrapper
from fedrobust.config.arguments import told
from fedrobust.config.component import component
from fedrobust.config.kind import name_of
from fedrobust.config.scalars import Positive, Size, Text
from fedrobust.config.text import shortened
from fedrobust.errors import ConfigError
from fedrobust.federation.attack import (
    AnyAttack,
    Attack,
    Requirements,
)
from fedrobust.federation.malicious_rows import crafted
from fedrobust.federation.one_call import on_rows
from fedrobust.federation.threat import View, not_granted
from fedrobust.typing import Updates, Vector

_GOLDEN = (math.sqrt(5) - 1) / 2


@component
class Optimized(Wrapper):
    """The inner attack with the value of one parameter that does the most harm in this round.

    It maximises the harm over the parameter p. p has the sign that the inner attack was given, and
    |p| lies in [low, high]. F is the rule, and μ the mean of the benign rows X. Of an attack within
    wrappers, p is the innermost attack's, so that a budget around it holds:

    - ``distance``: ‖F([malicious(p); X]) - μ‖₂;
    - ``direction``: -⟨F([malicious(p); X]), μ⟩ / ‖μ‖₂, how far the model is driven backwards.

    It tries ``grid`` values a constant factor apart, then ``refine`` more values by golden-section
    search on log |p| between the neighbours of the best, and uses the best of all. Each value costs
    one aggregation, and all values see the same random draws. ``parameter`` names the field to
    search; it may be left out where only one field holds a real number. Benign rows that are not
    granted are simulated from the colluders' own rows, up to the known number of clients or its
    lower bound; then a single malicious client sends its honest update. To get rows that differ as
    well, put ``Jittered`` around this wrapper, not inside it.

    Raises: ``ConfigError`` where the rule refuses the rows that the adversary expects.

    References: Shejwalkar and Houmansadr, "Manipulating the Byzantine", NDSS 2021 (attacks adapted
    to a known rule); Allouah et al., "Fixing by mixing", AISTATS 2023 (the factors of ALIE and FOE
    are optimised in each round for the same distance). Differences from the papers: the search
    described above.

    Cost: one aggregation and one attack for each of the grid + refine values.

    Example: ``{name: optimized, attack: {name: inner-product, epsilon: 1.0}}``
    """

    attack: AnyAttack
    parameter: Text | None = None
    low: Positive = 0.01
    high: Positive = 100.0
    grid: Annotated[int, Strict(), Ge(2)] = 9
    refine: Size = 7
    objective: Literal["distance", "direction"] = "distance"
    name: Literal["optimized"] = "optimized"
    __call__ = on_rows

    @model_validator(mode="after")
    def _fits(self) -> "Optimized":
        if self.low >= self.high:
            raise ValueError(f"low must be below high; got {self.low} and {self.high}")
        for size in (self.low, self.high):
            self._with(size)
        return self

    @property
    def requires(self) -> Requirements:
        """What the inner attack requires, the rule, and what is needed to estimate the other rows.

        Without benign updates it takes two colluders, because one row has no deviation.
        """
        inner = super().requires
        return replace(
            inner,
            knowledge=inner.knowledge | {"colluders", "rule", "clients"},
            min_colluders=max(2, inner.min_colluders),
            uses_honest_updates=True,
            first_round=1,
            latest_start=None,
        )

    def craft(self, state: Any, view: View, rng: torch.Generator) -> tuple[Updates, Any]:
        """Return the inner attack's rows [m, d] and state at the best value found."""
        validate(self, view, rng)
        total = estimates.clients(view)
        if view.rule is None:
            raise not_granted(self, "rule")
        if total is None:
            raise not_granted(self, "clients")
        known = estimates.honest(view)
        few = not estimates.sees_benign(view) and len(known) < 2
        if few or not all(finite_rows(known)):
            return view.own, state
        benign = estimates.expected_benign(view, total, rng)
        trial, centre = torch.cat([benign[:1].expand(view.rows, -1), benign]), mean(benign)
        start = rng.get_state()
        best: tuple[float, Updates, Any] | None = None

        def harm(share: float) -> float:
            nonlocal best
            rng.set_state(start)
            size = self.low * (self.high / self.low) ** share
            rows, after = crafted(self._with(size), _copied(state), view, rng)
            found = self._harm(rows, trial, centre, view)
            if best is None or found > best[0]:
                best = found, rows, after
            return found

        _search(harm, self.grid, self.refine)
        assert best is not None
        return best[1], best[2]

    def _harm(self, rows: Updates, trial: Updates, centre: Vector, view: View) -> float:
        if not fits(rows, view) or not torch.isfinite(rows).all():
            return -math.inf  # the server would drop them
        trial[: view.rows] = numbers(rows, view)
        try:
            answer = estimates.answer(view, trial)
        except NoAnswerError:
            return 0.0  # the server would make no step
        except ValueError as error:
            if estimates.sees_benign(view):
                return 0.0  # these are the rows of the round: the server makes no step either
            raise ConfigError(
                f"attack {self.name} tried the rule on the {len(trial)} rows that it expects, and "
                f"the rule refused: {error}; grant threat.clients: true, or a larger number"
            ) from error
        answer, centre = answer.double(), centre.double()
        if self.objective == "distance":
            harm = float((answer - centre).norm())
        else:
            least = torch.finfo(torch.float64).tiny
            harm = float(-(answer @ centre) / centre.norm().clamp(min=least))
        return harm if math.isfinite(harm) else -math.inf

    def _with(self, size: float, inner: Any = None) -> Attack:
        """Return the inner attack with the parameter set to ``size``. Raises: ``ValueError``.

        A wrapper's own field is searched only where ``parameter`` names it.
        """
        inner = self.attack if inner is None else inner
        if isinstance(inner, Wrapper) and not hasattr(inner, self.parameter or ""):
            return cast(
                "Attack", replace(cast("Any", inner), attack=self._with(size, inner.attack))
            )
        name = name_of(type(inner))
        if not is_dataclass(inner) or isinstance(inner, type):
            raise ValueError(f"{name} is not a dataclass, so it has no field to search")
        try:
            hints = get_type_hints(type(inner))
        except NameError:  # a user's class may import its types for the type checker alone
            hints = {}
        numbers = [f.name for f in fields(inner) if _has_float(hints.get(f.name, f.type))]
        field = self.parameter
        if field is None:
            if len(numbers) != 1:
                held = f"has {', '.join(numbers)}" if numbers else "has none"
                raise ValueError(f"set parameter to the real number of {name} to search; it {held}")
            field = numbers[0]
        elif field not in numbers:
            known = ", ".join(numbers) or "none"
            raise ValueError(f"{name} has no real number {field!r} to search; it has: {known}")
        given = getattr(inner, field)
        if not isinstance(given, int | float) or not given:
            raise ValueError(
                f"{field} of {name} must be a number that is not 0, whose sign says where to "
                f"search; it is {given!r}"
            )
        return cast("Attack", replace(inner, **{field: math.copysign(size, given)}))


def _copied(state: Any) -> Any:
    """Return a copy for one trial. Raises: ``ConfigError`` for a state that cannot be copied."""
    try:
        return deepcopy(state)
    except Exception as error:  # a user's object may fail in any way
        raise ConfigError(
            "attack optimized tries values on copies of the inner attack's state, and this one, "
            f"{told(state)}, cannot be copied: {shortened(str(error))}; keep tensors, numbers and "
            "containers of these"
        ) from error


def _has_float(hint: Any) -> bool:
    return hint in (float, "float") or any(_has_float(part) for part in get_args(hint))


def _search(harm: Callable[[float], float], grid: int, refine: int) -> None:
    """Try ``grid`` points from 0 to 1, then ``refine`` more between the neighbours of the best."""
    points = [i / (grid - 1) for i in range(grid)]
    values = [harm(point) for point in points]
    best = values.index(max(values))
    left, right = points[max(best - 1, 0)], points[min(best + 1, grid - 1)]
    a, b = right - _GOLDEN * (right - left), left + _GOLDEN * (right - left)
    at_a = harm(a) if refine > 0 else -math.inf
    at_b = harm(b) if refine > 1 else -math.inf
    for _ in range(refine - 2):
        if at_a >= at_b:
            right, b, at_b = b, a, at_a
            a = right - _GOLDEN * (right - left)
            at_a = harm(a)
        else:
            left, a, at_a = a, b, at_b
            b = left + _GOLDEN * (right - left)
            at_b = harm(b)
