"""The attacks of an audit do what their names say, and the signs read them so."""

from typing import Any

import pytest
import torch
from planted import (
    EPS,
    Bright,
    Felling,
    Probabilities,
    Rounded,
    Times,
    digits,
    natural,
    robust,
    trained,
)
from torch import Tensor, nn

from fedrobust.compute.randomness import Streams
from fedrobust.evaluation import audit
from fedrobust.evaluation.accuracy import noise
from fedrobust.evaluation.auditing.auditor import _later, _surrogate
from fedrobust.evaluation.auditing.battery import Attack, Noise, Transfer, battery, compared, longer
from fedrobust.evaluation.auditing.loss_surface import surface
from fedrobust.evaluation.auditing.model_check import Logs, same
from fedrobust.evaluation.auditing.progress_file import About, ProgressFile
from fedrobust.evaluation.auditing.runner import AttackRunner
from fedrobust.perturb import Apgd, Fab, Pgd, Square
from fedrobust.progress import UNWATCHED

pytestmark = pytest.mark.slow


def battle(model: nn.Module, x: Tensor, y: Tensor, eps: float, batch: int = 64) -> AttackRunner:
    return AttackRunner(
        model, x, y, (eps, "linf"), batch, 0, UNWATCHED, ProgressFile(None, About("", None))
    )


def test_each_budget_holds_what_it_promises() -> None:
    def all_of(budget: Any) -> dict[str, Any]:
        taken = (
            *compared(budget, 0.3, "linf"),
            *longer(budget, 0.3, "linf"),
            *battery(budget, 0.3, "linf", 10),
        )
        return {attack.name: attack.how for attack in taken}

    quick, standard, full = (all_of(budget) for budget in ("quick", "standard", "full"))
    assert quick["Square"] == Square(eps=0.3, queries=500)
    assert quick["targeted APGD-DLR"] == Apgd(eps=0.3, steps=50, loss="dlr-targeted", targets=3)
    assert quick["one step"] == Pgd(eps=0.3, step_size=0.3, steps=1, random_start=False)
    assert set(quick) == {"Square", "noise", "one step", "APGD-CE", "targeted APGD-DLR"}
    # AutoAttack's own: APGD-CE, nine targets of APGD and of FAB, 100 steps each, 5,000 queries.
    assert standard["Square"] == Square(eps=0.3, queries=5000)
    assert standard["APGD-CE"] == Apgd(eps=0.3, steps=100)
    assert standard["targeted APGD-DLR"] == Apgd(eps=0.3, steps=100, loss="dlr-targeted", targets=9)
    assert standard["FAB"] == Fab(eps=0.3, steps=100, targets=9)
    many = full["PGD, 100 steps, 40 restarts"]
    assert (many.steps, many.restarts) == (100, 40)
    assert set(full) - set(standard) == {"PGD, 100 steps, 40 restarts"}
    assert not {"targeted APGD-DLR", "APGD-DLR"} & {a.name for a in battery("quick", 0.3, "l2", 2)}
    assert "APGD-DLR" in {a.name for a in battery("quick", 0.3, "l2", 3)}


class Line(nn.Module):
    """Two classes on either side of the hyperplane w·x = w·½."""

    def __init__(self) -> None:
        super().__init__()
        self.w = torch.tensor([1.0, -2.0, 0.5, 1.5])

    def forward(self, x: Tensor) -> Tensor:
        height = (x.flatten(1) - 0.5) @ self.w.to(x)
        return torch.stack([height, -height], dim=1)


def test_the_nearest_mistake_counts_only_within_the_ball() -> None:
    """On a line the distance to the boundary is known: |w·(x − ½)| / ‖w‖₁ in linf."""
    x = 0.5 + 0.02 * torch.randn(40, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    height = (x.flatten(1) - 0.5) @ Line().w
    y = (height < 0).long()
    distance = height.abs() / 5.0
    eps = float(distance.median())
    attack = Attack("FAB", Fab(eps=eps))
    fell = battle(Line(), x, y, eps).run(attack)
    assert torch.equal(
        fell[(distance - eps).abs() > 0.002 * eps],
        (distance < eps)[(distance - eps).abs() > 0.002 * eps],
    )
    assert fell.any()
    assert not fell.all()


def test_points_outside_the_ball_or_the_pixel_range_take_nothing() -> None:
    """The right answers change only far away: no attack may go there."""

    class Away:
        def __init__(self, shift: float) -> None:
            self.shift = shift

        def draw(self, x: Tensor, generator: torch.Generator) -> None:
            return None

        def maximize(self, model: nn.Module, x: Tensor, y: Tensor, *_: Any, **__: Any) -> Tensor:
            return x + self.shift

    x = torch.full((9, 1, 2, 2), 0.5)
    y = torch.zeros(9, dtype=torch.long)

    class Step(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            far = (x.flatten(1).mean(dim=1) - 0.5).abs() > 0.2
            return torch.stack([~far, far], dim=1).float()

    assert not battle(Step(), x, y, 0.25).run(Attack("far", Away(0.3))).any()
    assert battle(Step(), x, y, 0.25).run(Attack("near", Away(0.24))).all()
    assert not battle(Step(), x, y, 0.9).run(Attack("out", Away(0.6))).any()


def test_transfer_takes_the_surrogates_examples() -> None:
    _, _, x, y = digits()
    x, y = x[:60], y[:60]
    how = Pgd(eps=EPS, step_size=EPS / 10, steps=20)
    seed = Streams(0).generator("audit").initial_seed()
    drawn = noise(how, x, slice(0, 60), seed)()  # as a battle of seed 0 draws it
    assert drawn is not None
    own = how.maximize(natural(), x, y, lambda: drawn)
    for other in (natural(), robust(), Line()):
        assert torch.equal(Transfer(natural(), how).maximize(other, x, y, lambda: drawn), own)
    right = natural()(x).argmax(dim=1) == y
    felled = battle(natural(), x, y, EPS).run(Attack("transfer", Transfer(natural(), how)))
    # The same examples in the same batch, so that the arithmetic is the same on every machine.
    again = how.maximize(natural(), x[right], y[right], lambda: drawn[right])
    wrong = natural()(again).argmax(dim=1) != y[right]
    assert torch.equal(felled.nonzero()[:, 0], right.nonzero()[wrong, 0])
    assert felled.sum() > 20


@pytest.mark.long
def test_a_surrogate_sees_through_what_hides_the_gradient_and_not_through_honesty() -> None:
    _, _, x, y = digits()
    x, y = x[:80], y[:80]
    surrogate = trained(9, 300)
    hidden = audit(Times(natural(), 1000.0), x, y, eps=EPS, surrogates=[surrogate])
    honest = audit(robust(), x, y, eps=EPS, surrogates=[surrogate])
    signs = [{s.name: s.beyond for s in found.signs} for found in (hidden, honest)]
    assert signs[0]["transfer beats plain PGD"] is True
    assert signs[1]["transfer beats plain PGD"] is False
    assert "transfer 1" in [taken.name for taken in hidden.taken]
    # One surrogate that tells is enough, whatever another one says.
    blind = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    for parameter in blind.parameters():
        nn.init.zeros_(parameter)
    both = audit(Times(natural(), 1000.0), x, y, eps=EPS, surrogates=[blind, surrogate])
    told = {s.name: s for s in both.signs}["transfer beats plain PGD"]
    assert told.beyond is True
    with pytest.raises(ValueError, match="surrogate 1: the model does not take examples"):
        audit(robust(), x, y, eps=EPS, surrogates=[nn.Linear(3, 10)])
    with pytest.raises(ValueError, match="surrogate 2: no gradient reaches its input"):
        audit(robust(), x, y, eps=EPS, surrogates=[surrogate, Rounded(natural(), False)])


def test_a_surrogate_is_asked_as_a_subject_is() -> None:
    _, _, x, y = digits()
    assert isinstance(_surrogate(1, Probabilities(natural()), x, y), Logs)
    assert _surrogate(1, natural(), x, y) is natural()


def test_answers_are_the_same_but_for_rounding() -> None:
    """Row by row, and what is infinite must be so again: it would drown the rest."""
    a = torch.tensor([[1.0, 2.0, -torch.inf], [1e-3, 2e-3, -torch.inf]])
    assert same(a, a * (1 + 1e-7))
    assert not same(a, a + torch.tensor([[0.0], [1e-6]]))
    assert not same(a, a.nan_to_num(neginf=0.0))
    assert not same(a[:, :2], a[:, :2] * 1.001)


def test_noise_stays_in_the_ball_and_keeps_the_first_mistake() -> None:
    x = torch.full((50, 1, 2, 2), 0.5)
    y = torch.zeros(50, dtype=torch.long)  # on the edge: half of all noise is a mistake
    noise = Noise(0.2, "linf", points=10)
    source = torch.Generator().manual_seed(0)
    found = noise.maximize(Line(), x, y, lambda: noise.draw(x, source))
    size = (found - x).flatten(1).abs().amax(dim=1)
    assert torch.allclose(size, torch.full_like(size, 0.2))
    assert (Line()(found).argmax(dim=1) != y).float().mean() > 0.95


def test_more_steps_and_restarts_count_what_enough_steps_left() -> None:
    x = 1 - torch.arange(20).view(-1, 1, 1, 1) / 100 * torch.ones(1, 1, 2, 2)
    field = battle(Bright(), x, torch.ones(20).long(), 1.0, batch=6)
    plainly = torch.arange(20) >= 4  # plain PGD fells the first four
    attacks = [Attack(str(count), Felling(count)) for count in (7, 12)]
    field.run(Attack("enough", Felling(4)))
    steps, restarts = _later(field, plainly, attacks)
    assert (steps.name, steps.value) == ("more steps take more", 3 / 20)
    assert (restarts.name, restarts.value) == ("restarts take more", 8 / 20)
    assert field.stands.tolist() == [False] * 12 + [True] * 8
    assert _later(field, plainly, ()) == []


def test_the_surface_of_a_line_is_known() -> None:
    """Along u the margin falls by 2ε‖w‖₁ a radius; along v it changes as w·v says."""
    source = torch.Generator().manual_seed(1)
    x = 0.5 + 0.01 * torch.randn(20, 1, 2, 2, generator=source)
    height = (x.flatten(1) - 0.5) @ Line().w
    y = (height < 0).long()
    found = surface(Line(), x, y, Pgd(eps=0.1, step_size=0.1, steps=1))
    ticks, middle = found["ticks"], 8
    assert (ticks[0], ticks[middle], ticks[-1]) == (-1.0, 0.0, 1.0)
    size = 2 * height.abs().mean()
    for a, value in zip(ticks, found["lead"][middle], strict=True):
        assert value == pytest.approx(float(1 - a * 2 * 0.1 * 5.0 / size), rel=2e-3, abs=2e-3)
    assert found["errors"][middle][middle] == 0
    assert found["errors"][middle][-1] == 1
    assert found["examples"] == 20


def test_the_surface_shows_a_hidden_slope() -> None:
    """With logits × 1000 the cross-entropy is 0 around the images, and the mistakes are there."""
    _, _, x, y = digits()
    plain = Pgd(eps=EPS, step_size=EPS, steps=1)
    right = natural()(x).argmax(dim=1) == y
    x, y = x[right], y[right]
    hidden, open_ = surface(Times(natural(), 1e4), x, y, plain), surface(natural(), x, y, plain)
    assert hidden["loss"][8][8] == 0 < open_["loss"][8][8]
    assert hidden["errors"] == open_["errors"]
    assert hidden["errors"][8][-1] > 0.3
    assert hidden["lead"] == [pytest.approx(row, rel=1e-2, abs=1e-3) for row in open_["lead"]]


def test_the_surface_finds_the_way_down_where_no_gradient_shows_it() -> None:
    """Behind rounding the mistakes at the end of the way are there, as they are without it."""
    _, _, x, y = digits()
    plain = Pgd(eps=EPS, step_size=EPS, steps=1)
    right = natural()(x).argmax(dim=1) == y
    x, y = x[right], y[right]
    felt = surface(Rounded(natural()), x, y, plain)
    known = surface(natural(), x, y, plain)
    assert felt["errors"][8][8] == 0
    assert felt["errors"][8][-1] > 0.5 * known["errors"][8][-1] > 0.1
    assert felt["errors"][8][-1] > 2 * felt["errors"][-1][8]


class HalfRounded(nn.Module):
    """Rounds the brighter half of a batch, and lets the gradients of the others through."""

    def forward(self, x: Tensor) -> Tensor:
        light = x.flatten(1).sum(dim=1)
        flat = (light > 18).view(-1, 1, 1, 1)
        logits: Tensor = natural()(torch.where(flat, torch.round(x * 16) / 16, x))
        return logits


def test_the_way_down_is_felt_out_for_each_example_that_shows_none() -> None:
    _, _, x, y = digits()
    plain = Pgd(eps=EPS, step_size=EPS, steps=1)
    right = natural()(x).argmax(dim=1) == y
    x, y = x[right][:32], y[right][:32]
    half = surface(HalfRounded(), x, y, plain)["errors"][8][-1]
    whole = surface(natural(), x, y, plain)["errors"][8][-1]
    assert half > 0.7 * whole > 0.1
