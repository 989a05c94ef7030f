"""Models of digits whose robustness is known: honest, masked in several ways, or none."""

from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedrobust.data import Digits
from fedrobust.evaluation import Audit
from fedrobust.perturb import pgd

EPS = 0.1


@cache
def digits() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Training images and labels, and 120 test images and labels."""
    data = Digits().load()
    train = data.train.images(torch.arange(len(data.train)))
    test = data.test.images(torch.arange(120))
    return train, data.train.y, test, data.test.y[:120]


def network(seed: int) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 100), nn.ReLU(), nn.Linear(100, 10))


@torch.enable_grad()  # a test's model may ask for it where no gradient is taken
def trained(
    seed: int,
    steps: int,
    *,
    eps: float = 0.0,
    temperature: float = 1.0,
    soft: Tensor | None = None,
) -> nn.Module:
    """By Adam; on PGD examples with an ``eps``, on ``soft`` labels at a ``temperature``."""
    model, (x, y, _, _) = network(seed), digits()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2 if temperature > 1 else 2e-3)
    source = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        index = torch.randint(len(x), (64,), generator=source)
        batch, labels = x[index], (y if soft is None else soft)[index]
        if eps:
            batch = pgd(model, batch, labels, eps=eps, step_size=eps / 4, steps=7, generator=source)
        optimizer.zero_grad()
        F.cross_entropy(model(batch) / temperature, labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return model.eval()


@cache
def natural() -> nn.Module:
    return trained(0, 500)


@cache
def robust() -> nn.Module:
    return trained(1, 500, eps=EPS)


@cache
def distilled() -> nn.Module:
    """Papernot et al.: teacher and student at temperature 100, used at 1."""
    teacher = trained(2, 1200, temperature=100.0)
    with torch.no_grad():
        soft = (teacher(digits()[0]) / 100).softmax(dim=1)
    return trained(3, 1200, temperature=100.0, soft=soft)


class Times(nn.Module):
    """Logits times a factor: in float32 the cross-entropy has no gradient left."""

    def __init__(self, model: nn.Module, factor: float) -> None:
        super().__init__()
        self.model, self.factor = model, factor

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x) * self.factor
        return logits


class Rounded(nn.Module):
    """Inputs rounded to sixteenths, through which no gradient comes."""

    def __init__(self, model: nn.Module, path: bool = True) -> None:
        super().__init__()
        self.model, self.path = model, path

    def forward(self, x: Tensor) -> Tensor:
        rounded = torch.round(x * 16) / 16
        logits: Tensor = self.model(rounded if self.path else rounded.detach())
        return logits


class Decoy(nn.Module):
    """The same logits, with the gradient of how bright the image is."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x).detach()
        light = x.flatten(1).sum(dim=1, keepdim=True)
        return logits + (light - light.detach()) * torch.arange(10)


class Noisy(nn.Module):
    """Inputs with fresh noise each time."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x + 0.1 * torch.randn_like(x))
        return logits


class Probabilities(nn.Module):
    """A model that gives probabilities, and no logits."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        p: Tensor = self.model(x).softmax(dim=1)
        return p


def sign(found: Audit, start: str) -> bool | None:
    """Whether the sign that begins with ``start`` lies beyond its limit."""
    (beyond,) = [s.beyond for s in found.signs if s.name.startswith(start)]
    return beyond


class Felling:
    """Fells the first so many examples, each darker than the last, by blacking them out."""

    def __init__(self, count: int) -> None:
        self.count = count

    def draw(self, x: Tensor, generator: torch.Generator) -> Tensor:
        return ((1 - x[:, :1, :1, :1]) * 100 < self.count - 0.5).float()

    def maximize(self, model: nn.Module, x: Tensor, y: Tensor, draw: Any, **_: Any) -> Tensor:
        return x * (1 - draw())


class Bright(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        light = x.flatten(1).sum(dim=1)
        return torch.stack([0.5 - light, light - 0.5], dim=1)
