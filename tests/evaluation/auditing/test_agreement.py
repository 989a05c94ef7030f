"""Other toolboxes find what we find: ART's PGD and APGD, AutoAttack's own APGD and its battery.

Small networks of digits: natural, adversarially trained, and the natural one with logits times 100,
whose loss has no gradient left in float32. Starts are shared, so that what differs is the attack.
A point is four examples of 400.
"""

from functools import cache
from importlib.util import find_spec
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from planted import EPS, Times
from torch import Tensor, nn

from fedrobust.data import Digits
from fedrobust.evaluation import audit
from fedrobust.perturb import Apgd, Pgd, pgd
from fedrobust.perturb.apgd import _LOSSES

pytestmark = pytest.mark.long

RADIUS = {"linf": EPS, "l2": 0.5}
NAMES = ("natural", "robust", "loud")
BALLS = pytest.mark.parametrize("norm", ["linf", "l2"])
MODELS = pytest.mark.parametrize("name", NAMES)
POINT = 0.01
FAINT = """Beyond a few of the loud network's examples: those with a gradient below 1e-30, which is
0 once ART divides it by the batch or squares it, or AutoAttack adds 1e-12 to its norm. Ours is
scaled first and still shows the way, so there ours may fell more."""


@pytest.fixture(scope="module")
def others() -> Any:
    """The other toolboxes, with our settings."""
    for package in ("art", "pyautoattack"):
        if find_spec(package) is None:  # importing it here would leave a folder in the home
            pytest.skip(f"{package} is missing: pip install -e '.[agreement]'")
    import toolboxes

    return toolboxes


@cache
def network(name: str) -> nn.Module:
    if name == "loud":
        return Times(network("natural"), 100.0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        layers = [nn.Flatten(), nn.Linear(64, 100), nn.ReLU(), nn.Linear(100, 10)]
    model, train = nn.Sequential(*layers), Digits().load().train
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    source = torch.Generator().manual_seed(7)
    for _ in range(400):
        index = torch.randint(len(train), (64,), generator=source)
        x, y = train.images(index), train.y[index]
        if name == "robust":
            x = pgd(model, x, y, eps=EPS, step_size=EPS / 4, steps=7, generator=source)
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return model.eval()


@cache
def examples(name: str, count: int = 400) -> tuple[Tensor, Tensor]:
    """Digits that the model gets right: neither toolbox starts from others."""
    data = Digits().load()
    parts = [(part.images(torch.arange(len(part))), part.y) for part in (data.test, data.train)]
    x, y = (torch.cat(column) for column in zip(*parts, strict=True))
    with torch.no_grad():
        right = network(name)(x).argmax(dim=1) == y
    return x[right][:count], y[right][:count]


def found(attack: Any, model: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The points that an attack of ours finds, and where it started."""
    start = attack.draw(x, torch.Generator().manual_seed(0))
    return attack.maximize(model, x, y, lambda: start), start


def losses(model: nn.Module, x: Tensor, y: Tensor, kind: str) -> Tensor:
    """The loss that an attack raises, of each example."""
    with torch.no_grad():
        return _LOSSES[kind](model(x), y, None)


@BALLS
@MODELS
def test_pgd_goes_where_arts_goes(others: Any, name: str, norm: Any) -> None:
    """The same points in linf. In l2 ART cuts to [0, 1] before the ball, so only without a box."""
    model, (x, y) = network(name), examples(name)
    eps = RADIUS[norm]
    attack = Pgd(eps=eps, step_size=eps / 10, steps=20, norm=norm, box=norm == "linf")
    ours, start = found(attack, model, x, y)
    theirs = others.art_pgd(model, x, y, attack, start=start)
    moved = ((ours - theirs).flatten(1).abs() > 1e-4).any(dim=1)
    assert moved.double().mean() <= (0.03 if name == "loud" else 0.005), FAINT


@BALLS
@MODELS
@pytest.mark.parametrize("attack", ["pgd", "ce", "dlr"])
def test_within_a_point_of_art(others: Any, name: str, norm: Any, attack: str) -> None:
    model, (x, y) = network(name), examples(name)
    eps = RADIUS[norm]
    how: Any = Pgd(eps=eps, step_size=eps / 10, steps=20, norm=norm)
    if attack != "pgd":
        how = Apgd(eps=eps, norm=norm, steps=30, loss=attack)
    ours, start = found(how, model, x, y)
    asked = others.art_pgd if attack == "pgd" else others.art_apgd
    theirs = asked(model, x, y, how, start=start)
    a, b = (
        others.stands(model, x, y, points, eps=eps, norm=norm).double().mean().item()
        for points in (ours, theirs)
    )
    assert a <= b + POINT
    if (name, norm) != ("loud", "l2"):
        assert a >= b - POINT, "ours is stronger without need"
    if attack == "pgd" and name != "loud":
        reached = [losses(model, points, y, "ce").mean().item() for points in (ours, theirs)]
        assert reached[0] == pytest.approx(reached[1], rel=0.01)


@BALLS
@MODELS
@pytest.mark.parametrize("kind", ["ce", "dlr"])
def test_apgd_does_what_its_authors_code_does(others: Any, name: str, norm: Any, kind: Any) -> None:
    """From the same start the same examples fall, and the best loss of the others is the same."""
    model, (x, y) = network(name), examples(name)
    eps = RADIUS[norm]
    attack = Apgd(eps=eps, norm=norm, steps=100, loss=kind)
    ours, start = found(attack, model, x, y)
    best, fooled = others.authors_apgd(model, x, y, attack, start=start)
    with torch.no_grad():
        fell = model(ours).argmax(dim=1) != y
    assert (fooled & ~fell).sum() <= 1
    more = (fell & ~fooled).sum()
    assert more > 1 if (name, norm, kind) == ("loud", "l2", "ce") else more <= 1, FAINT
    both = ~fell & ~fooled
    a, b = (losses(model, points[both], y[both], kind) for points in (ours, best))
    same = torch.isclose(a, b, rtol=1e-5, atol=1e-6).double().mean()
    assert same >= (0.95 if norm == "linf" else 0.75)  # norms are rounded otherwise
    assert a.mean().item() == pytest.approx(b.mean().item(), rel=1e-3)


@pytest.mark.parametrize(("name", "norm"), [("robust", "l2"), ("loud", "linf")])
def test_the_standard_battery_is_no_weaker_than_autoattack(
    others: Any, name: str, norm: Any
) -> None:
    """A point of 100 examples is one."""
    model, (x, y), eps = network(name), examples(name, 100), 1.5 * RADIUS[norm]
    ours = audit(model, x, y, eps=eps, norm=norm, budget="standard")
    theirs = others.autoattack(model, x, y, eps=eps, norm=norm)["square"].double().mean().item()
    assert ours.robust <= theirs + POINT + 1e-9
    assert 0.05 < theirs < 0.95, "no test where all or none fall"
