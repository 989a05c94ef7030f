"""Small networks of which a smoothness bound is proved."""

import torch
from torch import Tensor, nn


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def network(scale: float = 1.0, seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made = nn.Sequential(nn.Linear(2, 6), nn.ELU(), nn.Linear(6, 5), nn.ELU(), nn.Linear(5, 3))
    for parameter in made.parameters():
        parameter.data *= scale
    return made.double()


def convolutional() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        made = nn.Sequential(
            *(nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.ELU()),
            *(nn.Conv2d(4, 4, 2, groups=2, dilation=2), nn.ELU()),
            *(nn.Flatten(), nn.Linear(16, 3)),
        )
    return made.double()
