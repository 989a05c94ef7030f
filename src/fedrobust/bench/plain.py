"""The plain ways: what a careful script does, in idiomatic PyTorch. They are never made faster."""

import math
from collections.abc import Callable, Sequence
from copy import deepcopy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedrobust.clients.optimizers import Adam, Sgd
from fedrobust.clients.poisoning import Poisons
from fedrobust.compute.parameters import read, write
from fedrobust.compute.randomness import Streams
from fedrobust.compute.units import workers
from fedrobust.federation.state import Federation, FederationState
from fedrobust.objectives import Adversarial, WassersteinDRO
from fedrobust.perturb import Pgd
from fedrobust.typing import Images, Labels, Updates, Vector


def input_gradient(model: nn.Module, x: Images, y: Labels) -> tuple[Images, Tensor]:
    """Return x with a graph, and the gradient of the summed cross-entropy by it."""
    x = x.detach().requires_grad_(True)
    loss = F.cross_entropy(model(x), y, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, x)
    return x, gradient


def pgd(model: nn.Module, x: Images, y: Labels, attack: Pgd, start: Tensor) -> Images:
    """Return adversarial examples by PGD in linf."""
    moved = (x + start).clamp(0, 1)
    for _ in range(attack.steps):
        moved, gradient = input_gradient(model, moved, y)
        moved = moved.detach() + attack.step_size * gradient.sign()
        moved = torch.clamp(moved, x - attack.eps, x + attack.eps).clamp(0, 1)
    return moved.detach()


def wasserstein(model: nn.Module, x: Images, y: Labels, gamma: float, steps: int) -> Images:
    """Return T_γ(x) by gradient ascent with steps of 1/2γ."""
    moved = x
    for _ in range(steps):
        moved, gradient = input_gradient(model, moved, y)
        moved = moved.detach() + (gradient - 2 * gamma * (moved.detach() - x)) / (2 * gamma)
    return moved.detach()


def robust_accuracy(model: nn.Module, x: Images, y: Labels, attack: Pgd, noise: Tensor) -> float:
    """Return the share of examples that are right before and after PGD, in batches of 256."""
    right = 0
    parts = (torch.split(tensor, 256) for tensor in (x, y, noise))
    for at, labels, start in zip(*parts, strict=True):
        with torch.no_grad():
            clean = model(at).argmax(1) == labels
        moved = pgd(model, at, labels, attack, start)
        with torch.no_grad():
            right += int((clean & (model(moved).argmax(1) == labels)).sum())
    return right / len(x)


class ClientByClient:
    """A backend that trains one client after another, each with a model and an optimiser."""

    def __init__(self) -> None:
        self.optimizers: dict[int, dict[str, object]] = {}

    def local_updates(
        self,
        federation: Federation,
        state: FederationState,
        clients: Sequence[int],
        rng: Streams,
        poison: dict[int, Poisons],
    ) -> Updates:
        """Return the updates of ``clients`` [n, d], in as many threads as there are workers."""
        threads = torch.get_num_threads()
        torch.set_num_threads(workers())
        try:
            return torch.stack([self._row(federation, state, i, rng) for i in clients])
        finally:
            torch.set_num_threads(threads)

    def _row(
        self, federation: Federation, state: FederationState, client: int, rng: Streams
    ) -> Vector:
        local, round = federation.local, state.round + 1
        model = deepcopy(local.model)
        write(model, state.parameters)
        optimizer = self._optimizer(client, model, local.config.optimizer)
        shuffles = rng.generator("batches", round, client)
        for index in local.config.schedule(local.clients[client], shuffles):
            x, y = local.data.images(index).to(local.device), local.data.y[index].to(local.device)
            k, objective = local.objective.perturbed(len(y), round), local.objective
            if isinstance(objective, Adversarial):
                assert isinstance(objective.attack, Pgd)
                noise = rng.generator("inner maximisation", round, client)
                start = objective.draw(x[:k].clone(), noise)
                assert start is not None
                x[:k] = pgd(model, x[:k].clone(), y[:k], objective.attack, start)
            elif isinstance(objective, WassersteinDRO) and math.isfinite(objective.price):
                x = wasserstein(model, x, y, objective.price, objective.ascent.steps)
            optimizer.zero_grad()
            torch.autograd.backward(F.cross_entropy(model(x), y))
            optimizer.step()
        if local.config.keep_optimizer:
            self.optimizers[client] = optimizer.state_dict()
        return read(model) - state.parameters

    def _optimizer(self, client: int, model: nn.Module, spec: object) -> torch.optim.Optimizer:
        assert isinstance(spec, Adam | Sgd)
        make: Callable[..., torch.optim.Optimizer] = (
            torch.optim.Adam if isinstance(spec, Adam) else torch.optim.SGD
        )
        found = make(model.parameters(), lr=spec.lr)
        if client in self.optimizers:
            found.load_state_dict(self.optimizers[client])
        return found


def median(rows: Updates) -> Vector:
    """Return the median of each coordinate."""
    ordered, n = rows.sort(dim=0).values, len(rows)
    return (ordered[(n - 1) // 2] + ordered[n // 2]) / 2


def krum(rows: Updates, f: int) -> Vector:
    """Return the row with the least sum of squared distances to its n − f − 2 nearest others."""
    near = (torch.cdist(rows, rows) ** 2).sort(dim=1).values[:, 1 : len(rows) - f - 1]
    return rows[int(near.sum(dim=1).argmin())]
