"""Time inner maximisations on the fast form of each network, and on the network as it is.

``python benchmarks/inner_maximisation.py`` takes both in turns, in one process on one core, and
prints the median of their ratio. The rate is the share of a 2048³ float32 product's rate that the
convolutions and linear layers of the forward and the backward pass reach; the product is timed in
the same turns. PGD is 10 steps of 0.01 in ε = 0.3, the Wasserstein ascent 10 steps.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fedrobust.compute.frozen import AsItIs, fastest
from fedrobust.models import DigitsCnn, EluCnn, MnistCnn, MnistCnnSmall
from fedrobust.perturb import Ascent, Pgd

SIZE = 2048
PGD = Pgd(eps=0.3, step_size=0.01, steps=10)
ASCENT = Ascent(steps=10, rule="decaying", size=1.5)
SUBJECTS: dict[str, tuple[Any, tuple[int, ...], Pgd | Ascent]] = {
    "mnist-cnn-small": (MnistCnnSmall(), (1, 28, 28), PGD),
    "mnist-cnn": (MnistCnn(), (1, 28, 28), PGD),
    "digits-cnn": (DigitsCnn(), (1, 8, 8), PGD),
    "elu-cnn, width 16": (EluCnn(width=16), (1, 28, 28), ASCENT),
    "elu-cnn, width 64": (EluCnn(), (1, 28, 28), ASCENT),
}


@dataclass(frozen=True)
class Measured:
    """Image steps a second, their ratio to the network as it is, and the share of the product."""

    rate: float
    ratio: float
    share: float


def in_turns(functions: Mapping[str, Callable[[], object]], turns: int) -> dict[str, list[float]]:
    """Return the seconds of each function in each turn, after one turn to warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(turns + 1):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            seconds[name].append(time.perf_counter() - start)
    return {name: found[1:] for name, found in seconds.items()}


def operations(model: nn.Module, shape: tuple[int, ...]) -> int:
    """Return the multiplications and additions of a forward and an input-gradient pass."""
    total = 0

    def count(layer: nn.Module, _: object, found: Tensor) -> None:
        nonlocal total
        if isinstance(layer, nn.Conv2d | nn.Linear):
            total += 2 * found[0, 0].numel() * layer.weight.numel()

    layers = nn.Sequential(*model.children())  # a network with hooks runs layer by layer
    hooks = [layer.register_forward_hook(count) for layer in layers]
    with torch.no_grad():
        layers(torch.zeros(1, *shape))
    for hook in hooks:
        hook.remove()
    return 2 * total


def measured(
    spec: Any, shape: tuple[int, ...], attack: Pgd | Ascent, batch: int, turns: int
) -> Measured:
    """Measure one inner maximisation of ``batch`` random images."""
    model = spec.build(shape, 10).to(memory_format=torch.channels_last)
    x, y = torch.rand(batch, *shape), torch.randint(10, (batch,))
    module: Any = sys.modules[type(attack).__module__]
    square = torch.rand(SIZE, SIZE)

    def moved(form: Callable[[nn.Module, Tensor], object]) -> None:
        module.fastest = form
        if isinstance(attack, Pgd):
            attack.maximize(model, x, y, lambda: None)
        else:
            attack.move(model, x, y, 0.4)
        module.fastest = fastest

    seconds = in_turns(
        {
            "product": lambda: square @ square,
            "as it is": lambda: moved(lambda model, _: AsItIs(model)),
            "fast": lambda: moved(fastest),
        },
        turns,
    )
    rate = batch * attack.steps / statistics.median(seconds["fast"])
    shares = [
        batch * attack.steps * operations(model, shape) / fast * product / (2 * SIZE**3)
        for fast, product in zip(seconds["fast"], seconds["product"], strict=True)
    ]
    ratios = [slow / fast for slow, fast in zip(seconds["as it is"], seconds["fast"], strict=True)]
    return Measured(rate, statistics.median(ratios), statistics.median(shares))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--turns", type=int, default=11)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| network | image steps a second | times as fast as autograd | share of the product |")
    print("|---|---|---|---|")
    for name, subject in SUBJECTS.items():
        found = measured(*subject, options.batch, options.turns)
        print(f"| {name} | {found.rate:,.0f} | {found.ratio:.2f} | {found.share:.0%} |", flush=True)


if __name__ == "__main__":
    main()
