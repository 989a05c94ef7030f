"""An attack is one call on rows, and a selecting rule says which it takes."""

from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
import torch
from attack_table import CONFIGS, NETWORKS, every_attack
from pydantic import TypeAdapter
from rule_table import RULES
from torch import nn

from fedrobust import View
from fedrobust.aggregators import Bucketing, Context, Krum, Mean, Median, MultiKrum
from fedrobust.attacks import (
    ALittleIsEnough,
    AnyAttack,
    Delayed,
    Distillation,
    InnerProduct,
    LocalModelPoisoning,
    Optimized,
    Shrink,
    SignFlip,
)
from fedrobust.compute.parameters import read
from fedrobust.data import Split
from fedrobust.federation.attack import poisons

N, M, D = 11, 2, 40


def honest() -> torch.Tensor:
    return torch.randn(N, D, generator=torch.Generator().manual_seed(0))


@every_attack
def test_it_gives_a_row_for_each_malicious_client_and_changes_nothing(config: Any) -> None:
    attack = TypeAdapter(AnyAttack).validate_python(config)
    if any(name in str(config) for name in NETWORKS):
        pytest.skip("it trains")
    rows = honest()
    if poisons(attack):
        with pytest.raises(ValueError, match=r"poisons the data .* play it with run_round"):
            attack(rows, malicious=M, rule=Krum(f=2))
        return
    known = {"rule": Krum(f=2), "parameters": torch.linspace(-1, 1, D)}
    found = [attack(rows, malicious=M, **known, seed=seed) for seed in (0, 0, 1)]
    assert torch.equal(rows, honest())
    assert found[0].shape == (M, D)
    assert found[0].dtype == rows.dtype
    assert torch.equal(found[0], found[1])


def test_the_malicious_rows_come_first_and_the_others_are_seen() -> None:
    rows = honest()
    assert torch.equal(SignFlip()(rows, malicious=3), -rows[:3])
    mean, deviation = rows[2:].mean(dim=0), rows[2:].std(dim=0, correction=0)
    sent = ALittleIsEnough(k=-1.5)(rows, malicious=2)
    torch.testing.assert_close(sent, (mean - 1.5 * deviation).expand(2, -1))
    torch.testing.assert_close(
        InnerProduct(epsilon=2.0)(rows, malicious=1)[0], -2 * rows[1:].mean(0)
    )
    # Where all are malicious, they see each other.
    alone = ALittleIsEnough(k=0.0)(rows, malicious=N)
    torch.testing.assert_close(alone, rows.mean(dim=0).expand(N, -1))


def test_the_rule_is_the_one_that_is_given() -> None:
    attack = Optimized(attack=ALittleIsEnough(k=-1.0))
    asked = list[torch.Tensor]()

    def rule(rows: torch.Tensor) -> torch.Tensor:
        asked.append(rows)
        return rows.median(dim=0).values

    sent = attack(honest(), malicious=M, rule=rule)
    assert asked
    assert all(rows.shape == (N, D) for rows in asked)
    assert not torch.equal(sent, attack(honest(), malicious=M, rule=Mean()))


def test_an_attack_that_trains_is_given_a_network_and_data() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    size = sum(p.numel() for p in model.parameters())
    rows = 0.01 * torch.randn(5, size, generator=torch.Generator().manual_seed(0))
    x, y = torch.rand(20, 1, 2, 2), torch.arange(20) % 3
    attack = Distillation(epochs=2.0, shared=True)
    data = [Split(x[:10], y[:10]), Split(x[10:], y[10:])]
    sent = attack(rows, malicious=2, model=model, data=data, classes=3)
    assert torch.equal(sent[0], sent[1])
    assert sent.any()
    with pytest.raises(ValueError, match="this attack trains: pass model="):
        attack(rows, malicious=2, data=data)
    with pytest.raises(ValueError, match="this attack trains: pass data="):
        attack(rows, malicious=2, model=model)


@every_attack
def test_an_attack_that_works_on_the_parameters_does_not_assume_zeros(config: Any) -> None:
    """It is refused without them, or its rows are the same whatever they are."""
    attack = TypeAdapter(AnyAttack).validate_python(config)
    if any(name in str(config) for name in NETWORKS) or poisons(attack):
        pytest.skip("it trains")
    rows, at = honest(), torch.linspace(-1, 1, D)
    sent, other = (
        attack(rows, malicious=M, rule=Krum(f=2), parameters=given) for given in (at, -at)
    )
    if torch.equal(sent, other):
        assert torch.equal(sent, attack(rows, malicious=M, rule=Krum(f=2)))
        return
    with pytest.raises(ValueError, match="broadcast parameters, which were not given: pass param"):
        attack(rows, malicious=M, rule=Krum(f=2))


def test_a_view_that_gets_parameters_later_has_them() -> None:
    """Copies know, too, whether the zeros are only assumed."""
    rows, draw = torch.tensor([[3.0, 4.0]]), torch.Generator()
    for view in (View.of(rows), deepcopy(View.of(rows)), replace(View.of(rows), round=9)):
        with pytest.raises(ValueError, match="which were not given"):
            Shrink().craft(None, view, draw)
        sent, _ = Shrink().craft(None, replace(view, parameters=torch.tensor([0.0, 2.0])), draw)
        assert torch.equal(sent, torch.tensor([[0.0, -5.0]]))
    assert torch.equal(
        Shrink().craft(None, View.of(rows, parameters=torch.zeros(2)), draw)[0], torch.zeros(1, 2)
    )


def test_shrink_in_one_call_goes_to_zero_from_the_parameters_that_it_is_given() -> None:
    rows, theta = torch.tensor([[3.0, 4.0], [1.0, 0.0]]), torch.tensor([0.0, 2.0])
    wanted = torch.tensor([[0.0, -10.0]])
    assert torch.equal(Shrink(scale=2.0)(rows, malicious=1, parameters=theta), wanted)
    layer = nn.Linear(2, 1, bias=False)
    layer.weight.data = theta[None]
    assert torch.equal(Shrink(scale=2.0)(rows, malicious=1, model=layer), wanted)


WRONG: dict[str, tuple[Any, str]] = {
    "no rows": (lambda: SignFlip()(torch.zeros(0, 4), malicious=1), r"rows \[n, d\]"),
    "a vector": (lambda: SignFlip()(torch.zeros(4), malicious=1), r"rows \[n, d\]"),
    "whole numbers": (lambda: SignFlip()(torch.ones(4, 2).long(), malicious=1), r"rows \[n, d\]"),
    "nobody": (lambda: SignFlip()(honest(), malicious=0), "malicious"),
    "too many": (lambda: SignFlip()(honest(), malicious=12), "malicious is 12, but there are 11"),
    "no parameters": (
        lambda: Shrink()(honest(), malicious=2),
        "attack shrink works on the values of the broadcast parameters",
    ),
    "no parameters, within": (
        lambda: Delayed(Shrink(), start=1)(honest(), malicious=2),
        "attack shrink works on the values",
    ),
    "no parameters for the edges": (
        lambda: LocalModelPoisoning("median")(honest(), malicious=2),
        "attack local-model-poisoning works on the values",
    ),
    "no rule": (
        lambda: Optimized(attack=ALittleIsEnough(k=-1.0))(honest(), malicious=2),
        "attack optimized needs the server's rule: pass rule=",
    ),
    "no such rule": (lambda: SignFlip()(honest(), malicious=2, rule="krum"), "rule must be an"),
    "too few rows": (lambda: SignFlip()(honest(), malicious=2, rule=Krum(f=9)), "2f [+] 3"),
    "a seed": (lambda: SignFlip()(honest(), malicious=2, seed=-1), "seed"),
    "unknown": (lambda: SignFlip()(honest(), malicious=2, ruel=Mean()), "ruel"),
}


@pytest.mark.parametrize("case", WRONG.values(), ids=WRONG)
def test_what_does_not_fit_is_told(case: tuple[Any, str]) -> None:
    with pytest.raises((ValueError, TypeError), match=case[1]):
        case[0]()


def test_a_view_has_defaults_for_what_is_not_needed() -> None:
    view = View.of(honest()[:M])
    assert (view.rows, view.round, view.server_lr, len(view.parameters)) == (M, 1, 1.0, D)
    assert view.benign is None
    rows, _ = SignFlip().craft(None, view, torch.Generator())
    assert torch.equal(rows, -honest()[:M])
    model = nn.Linear(3, 2)
    known = View.of(torch.zeros(1, 8), model=model)
    assert torch.equal(known.parameters[:6], model.weight.flatten())
    with pytest.raises(ValueError, match="own"):
        View.of(torch.zeros(3))


SELECTING = {"krum", "multi-krum", "bulyan", "minimum-diameter-averaging"}
SELECTING |= {"smallest-maximum-eigenvalue-averaging", "bucketing", "nearest-neighbor-mixing"}


@pytest.mark.parametrize("name", RULES)
def test_rules_that_select_say_which_rows_they_take(name: str) -> None:
    rule = RULES[name].make(2)
    assert hasattr(rule, "select") == (rule.name in SELECTING)
    if not hasattr(rule, "select"):
        return
    rows = torch.randn(23, 6, generator=torch.Generator().manual_seed(1))
    kept = rule.aggregate(rows, Context()).kept
    if kept is None:
        with pytest.raises(ValueError, match="goes around a rule that does not select"):
            rule.select(rows)
    else:
        assert torch.equal(rule.select(rows), kept)


def test_the_rows_that_multi_krum_takes_are_the_near_ones() -> None:
    near = torch.randn(8, 5, generator=torch.Generator().manual_seed(0))
    rows = torch.cat([near, torch.full((2, 5), 50.0)])
    assert MultiKrum(f=2).select(rows).max() < 8
    assert len(Krum(f=2).select(rows)) == 1
    with pytest.raises(ValueError, match="bucketing goes around a rule that does not select"):
        Bucketing(s=2, rule=Median()).select(rows)


def test_every_attack_of_the_table_is_called() -> None:
    assert all(callable(TypeAdapter(AnyAttack).validate_python(c)) for c in CONFIGS.values())


def test_a_model_that_holds_other_weights_is_that_of_the_parameters() -> None:
    """A loop that reuses one network passes the broadcast parameters beside it."""
    network = nn.Linear(3, 2)
    broadcast = torch.arange(8.0)
    view = View.of(torch.ones(1, 8), model=network, parameters=broadcast)
    assert torch.equal(read(view.model()), broadcast)
    assert not torch.equal(read(network), broadcast)
