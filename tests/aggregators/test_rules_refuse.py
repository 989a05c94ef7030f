"""What rules refuse, and how: bad rows, too few of them, wrong fields."""

from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from rule_table import RULES, Rule, every_rule, normal
from torch import Tensor

from fedrobust.aggregators import (
    AGGREGATORS,
    AnyAggregator,
    Context,
    Krum,
    MultiKrum,
)
from fedrobust.config.component import component, from_config, to_config
from fedrobust.errors import ConfigError


def hole(value: float) -> Tensor:
    updates = normal(9, 4)
    updates[[2, 7], 1] = value
    return updates


BAD: dict[str, tuple[Any, Context, str]] = {
    "list": ([[1.0]] * 9, Context(), r"one tensor \[n, d\], got list"),
    "one row": (normal(1, 9)[0], Context(), r"must be \[n, d\], got shape \[9\]"),
    "no rows": (normal(0, 9), Context(), r"needs n .*n = 0"),
    "no coordinates": (normal(9, 0), Context(), r"\[9, 0\] have no coordinates \(d = 0\)"),
    "integers": (torch.ones(9, 4, dtype=torch.int64), Context(), r"floating point, got torch.int"),
    "complex": (torch.ones(9, 4, dtype=torch.cfloat), Context(), "this one is complex"),
    "nan": (hole(torch.nan), Context(), r"NaN or infinity in rows 2, 7; .*tolerating\(2\)"),
    "infinity": (hole(-torch.inf), Context(), r"NaN or infinity in rows 2, 7;"),
    "all nan": (normal(15, 4) * torch.nan, Context(), r"rows 0, 1, .*, 9 and 5 more;"),
    "counts short": (normal(9, 4), Context(counts=torch.ones(8)), r"each of the 9 rows.*\[8\]"),
    "counts negative": (
        normal(9, 4),
        Context(counts=torch.tensor([1] * 8 + [-3])),
        r"not negative, got -3 for row 8",
    ),
    "counts nan": (normal(9, 4), Context(counts=torch.ones(9) * torch.nan), r"nan for row 0"),
    "counts zero": (normal(9, 4), Context(counts=torch.zeros(9)), r"counts are all zero"),
}


@every_rule
def test_bad_input_is_refused_saying_what_and_which(rule: Rule) -> None:
    for name, (updates, context, message) in BAD.items():
        made = rule.make(1)
        with pytest.raises(ValueError, match=message) as raised:
            made(updates, context)
        assert str(raised.value).startswith(type(made).__name__), name


@every_rule
def test_too_few_rows_are_refused_naming_n_f_and_the_condition(rule: Rule) -> None:
    for f in (0, 1, 3):
        made = rule.make(f)
        within = getattr(made, "rule", made)
        counts_f = hasattr(within, "f")
        least = rule.least(f) if counts_f else 1
        made.check(least)
        # Of 4f rows Bucketing makes 2f.
        seen = 2 * f if rule.ordered else least - 1
        named = rf"n = {seen}" + (
            rf", f = {f}" if counts_f and not (rule.ordered and f == 0) else ""
        )
        message = rf"^{type(made).__name__} .*needs n .*: {named} needs {seen + 1}$"
        with pytest.raises(ValueError, match=message):
            made.check(least - 1)
        with pytest.raises(ValueError, match=message):
            made(torch.ones(least - 1, 2))


def test_the_message_reads_well() -> None:
    with pytest.raises(ValueError, match=r"^Krum needs n >= 2f \+ 3: n = 7, f = 3 needs 9$"):
        Krum(3).check(7)
    with pytest.raises(ValueError, match=r"^MultiKrum needs n >= m = 8: n = 7, f = 2 needs 8$"):
        MultiKrum(2, m=8).check(7)


@every_rule
def test_dropped_rows_count_against_the_tolerance(rule: Rule) -> None:
    assert rule.make(4).tolerating(1) == rule.make(3)
    assert rule.make(4).tolerating(9) == rule.make(0)
    assert rule.make(4).tolerating(0) == rule.make(4)
    kind = type("Own", (type(rule.make(4)),), {})
    own = kind(**{field.name: getattr(rule.make(4), field.name) for field in fields(rule.make(4))})
    assert type(own.tolerating(1)) is kind


def test_a_given_m_stays_when_rows_are_dropped() -> None:
    assert MultiKrum(4, m=6).tolerating(2) == MultiKrum(2, m=6)


@component
class Server:
    aggregator: AnyAggregator


def test_every_rule_is_in_the_table_and_is_a_config_value() -> None:
    assert {rule.make(2).name: type(rule.make(2)) for rule in RULES.values()} == {
        member.name: member for member in AGGREGATORS
    }
    names = list(dict.fromkeys(rule.make(2).name for rule in RULES.values()))
    assert names == [member.name for member in AGGREGATORS]
    for rule in RULES.values():
        made = rule.make(2)
        assert from_config(Server, {"aggregator": to_config(made)}).aggregator == made


@pytest.mark.parametrize("f", [-1, 1.0, True, "1", None])
def test_f_is_a_whole_number_from_zero_on(f: Any) -> None:
    for rule in RULES.values():
        if hasattr(rule.make(0), "f"):
            with pytest.raises(ConfigError, match="f"):
                replace(rule.make(0), f=f)
