"""Examples that fall stay fallen, and what is drawn does not depend on who is tried."""

from typing import Any

import torch
from planted import Bright, Felling
from torch import Tensor, nn

from fedrobust.evaluation.auditing.battery import Attack
from fedrobust.evaluation.auditing.progress_file import About, ProgressFile
from fedrobust.evaluation.auditing.runner import AttackRunner
from fedrobust.progress import UNWATCHED


def test_what_fell_once_never_stands_again() -> None:
    x, y = 1 - torch.arange(10).view(-1, 1, 1, 1) / 100 * torch.ones(1, 1, 2, 2), torch.ones(10)
    y = y.long()
    battle = AttackRunner(
        Bright(), x, y, (1.0, "linf"), 4, 0, UNWATCHED, ProgressFile(None, About("", None))
    )
    assert battle.stands.all()
    assert battle.run(Attack("three", Felling(3))).sum() == 3
    assert battle.run(Attack("two, asked of all", Felling(2)), among=torch.ones(10) > 0).sum() == 2
    assert battle.stands.tolist() == [False] * 3 + [True] * 7
    assert battle.run(Attack("six", Felling(6))).tolist() == [False] * 3 + [True] * 3 + [False] * 4
    assert [(t.tried, t.fell) for t in battle.taken] == [(10, 3), (10, 2), (7, 3)]
    assert battle.stands.sum() == 4


class Drawing:
    """Keeps what it draws, and moves nothing."""

    def __init__(self) -> None:
        self.drawn: list[list[float]] = []

    def draw(self, x: Tensor, generator: torch.Generator) -> Tensor:
        return torch.rand(len(x), generator=generator)

    def maximize(self, model: nn.Module, x: Tensor, y: Tensor, draw: Any, **_: Any) -> Tensor:
        self.drawn.append(draw().tolist())
        return x


def test_every_seed_and_every_chunk_draws_its_own_noise_whoever_is_tried() -> None:
    x, y = torch.ones(8, 1, 2, 2), torch.ones(8, dtype=torch.long)

    def drawn(seed: int, among: Tensor) -> list[list[float]]:
        attack = Drawing()
        battle = AttackRunner(
            Bright(), x, y, (1.0, "linf"), 4, seed, UNWATCHED, ProgressFile(None, About("", None))
        )
        battle.run(Attack("drawing", attack), among=among)
        return attack.drawn

    everyone, odd = torch.ones(8) > 0, torch.arange(8) % 2 == 1
    first, other = drawn(0, everyone), drawn(1, everyone)
    assert len({value for chunk in first + other for value in chunk}) == 16
    assert drawn(0, everyone) == first
    assert drawn(0, odd) == [[chunk[1], chunk[3]] for chunk in first]
