"""Rules, inner maximisations and evaluations on a GPU against the same on a CPU."""

from copy import deepcopy

import pytest
import torch
from rule_table import RULES
from torch import nn

from fedrobust.compute import captured, network
from fedrobust.compute.execution import Execution
from fedrobust.compute.network import evaluating, frozen
from fedrobust.evaluation import audit, certificate, robust_accuracy
from fedrobust.models import CifarCnn, EluCnn, MnistCnn, MnistCnnSmall, ModelSpec
from fedrobust.models.build import build_model
from fedrobust.perturb import Apgd, Fab, Pgd, Square, pgd, wasserstein_ascent

STRICT = Execution(device="cuda", batch=64)


def network_of(spec: ModelSpec, shape: tuple[int, ...]) -> nn.Module:
    return build_model(spec, shape, 10, torch.Generator().manual_seed(1)).eval()


def images(count: int, shape: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.rand(count, *shape, generator=torch.Generator().manual_seed(2))
    return x, torch.arange(count) % 10


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("f", [0, 2])
def test_rules(name: str, f: int) -> None:
    rule = RULES[name]
    n = max(11, rule.least(f))
    updates = torch.randn(n, 1000, generator=torch.Generator().manual_seed(3)).double()
    here = rule.aggregate(f, updates)
    with STRICT.active():  # as in a run: what has no repeatable form is refused there
        there = rule.aggregate(f, updates.cuda())
    assert there.vector.is_cuda
    torch.testing.assert_close(there.vector.cpu(), here.vector, rtol=1e-9, atol=1e-12)
    if here.kept is not None:
        assert there.kept is not None
        assert there.kept.tolist() == here.kept.tolist()


@pytest.mark.parametrize(
    ("spec", "shape"),
    [
        (MnistCnnSmall(), (1, 28, 28)),
        (MnistCnn(width=8), (1, 28, 28)),
        (CifarCnn(width=16), (3, 32, 32)),
        (EluCnn(width=16), (1, 28, 28)),
    ],
    ids=["small", "pooling", "group norm", "elu"],
)
def test_a_captured_gradient_is_the_gradient(spec: ModelSpec, shape: tuple[int, ...]) -> None:
    model = network_of(spec, shape).cuda()
    with frozen(model), evaluating(model):
        for count in (5, 7, 5):
            x, y = (part.cuda() for part in images(count, shape))
            found = captured.input_gradient(model, x, y, captured.kind(model))
            torch.testing.assert_close(found, network.input_gradient(model, x, y))
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.mul_(-0.9)


def test_inner_maximisations() -> None:
    """In float64, where rounding turns no sign."""
    model = network_of(MnistCnnSmall(), (1, 28, 28)).double()
    x, y = images(20, (1, 28, 28))
    x, there = x.double(), deepcopy(model).cuda()
    here = pgd(model, x, y, eps=0.2, step_size=0.02, steps=10)
    found = pgd(there, x.cuda(), y.cuda(), eps=0.2, step_size=0.02, steps=10)
    torch.testing.assert_close(found.cpu(), here)
    elu = network_of(EluCnn(width=16), (1, 28, 28)).double()
    transport = wasserstein_ascent(elu, x, y, gamma=2.0, steps=8)
    moved = wasserstein_ascent(deepcopy(elu).cuda(), x.cuda(), y.cuda(), gamma=2.0, steps=8)
    torch.testing.assert_close(moved.x.cpu(), transport.x)


def test_evaluations() -> None:
    model = network_of(EluCnn(width=16), (1, 28, 28)).double()
    x, _ = images(40, (1, 28, 28))
    x = x.double()
    y, there = model(x).argmax(1), deepcopy(model).cuda()
    attacks = [
        Pgd(eps=0.05, step_size=0.01, steps=5),
        Apgd(eps=0.05, steps=5),
        Fab(eps=0.05, steps=5, targets=2),
        Square(eps=0.05, queries=20),
    ]
    for attack in attacks:
        with STRICT.active():
            found = robust_accuracy(there, x.cuda(), y.cuda(), attack=attack)
        assert found == robust_accuracy(model, x, y, attack=attack), attack
    here = certificate(model, x, y, gamma=2.0)
    found = certificate(there, x.cuda(), y.cuda(), gamma=2.0)
    assert found.rho == pytest.approx(here.rho)
    assert found.worst_case_loss == pytest.approx(here.worst_case_loss)


def test_an_audit() -> None:
    model = network_of(MnistCnnSmall(), (1, 28, 28)).cuda()
    x, _ = images(20, (1, 28, 28))
    y = model(x.cuda()).argmax(1)
    with STRICT.active():
        report = audit(model, x.cuda(), y, eps=0.1, budget="standard")
    assert report.clean == 1.0
    assert report.verdict in {"genuine", "masked", "inconclusive"}
    assert report.robust <= report.claimed
