"""Clients that train together: one backward pass and one optimiser step serve a unit's clients.

On a GPU this takes the place of one client after another. Each client draws what it would draw
alone, so that both agree up to rounding.
"""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from fedrobust.clients.optimizers import Adam, Sgd
from fedrobust.clients.turn import (
    ORDINARY,
    OptimizerState,
    Store,
    Task,
    Trained,
    Turn,
    copied,
    largest,
)
from fedrobust.compute.global_draws import draws
from fedrobust.compute.network import evaluating
from fedrobust.compute.parameters import write
from fedrobust.compute.stacked import Stacked, client_gradients, why_not
from fedrobust.config.by_round import in_round
from fedrobust.objectives import Adversarial, asked, own_loss
from fedrobust.perturb import Pgd
from fedrobust.typing import Images, Labels, Updates, Vector


def unsupported(task: Task, model: nn.Module, x: Images) -> str | None:
    """Return why clients cannot train together, tried on examples like x; None where they can."""
    if type(task.config.optimizer) not in (Sgd, Adam):
        return f"the optimiser {type(task.config.optimizer).__name__} is a user's own"
    if task.own is not None:
        return "each client has BatchNorm statistics of its own"
    if own_loss(task.objective):
        return f"the objective {type(task.objective).__name__} has a loss of its own"
    model.train()
    if draws(model, x) == "perhaps":
        return "the model draws random numbers, which belong to one client's training"
    return why_not(model, x)


def trained(
    task: Task, model: nn.Module, turns: Sequence[Turn], parameters: Vector, store: Store
) -> list[Trained]:
    """Return what :meth:`Turn.train` returns for each of ``turns``, from one start [d].

    ``model`` is a workspace. The first batches are perturbed already.
    """
    config, count = task.config, len(turns)
    steps = max(len(turn.batches) for turn in turns)
    local = parameters.expand(count, -1).clone()
    vectors = [nn.Parameter(row) for row in local]  # they share the memory of ``local``
    optimizer = config.optimizer.build(*vectors)
    for group in optimizer.param_groups:
        group["lr"] *= in_round(config.lr_factor, turns[0].round)
    before = [store.get(turn.client) if config.keep_optimizer else None for turn in turns]
    for vector, state in zip(vectors, before, strict=True):
        if state is not None:
            # A step writes into the state, and a later batch may still be refused.
            optimizer.state[vector] = state if steps == 1 else copied(state)
    steepest = local.new_zeros(count)
    for i in range(steps):
        for rows, x, y in _batches(task, model, turns, i, local):
            at = parameters if i == 0 else local[rows]
            gradients = client_gradients(model, at, x, y)
            steepest[rows] = steepest[rows].maximum(gradients.abs().amax(dim=1))
            for row, gradient in zip(rows, gradients, strict=True):
                vectors[row].grad = gradient
        if steps == 1:
            for vector, finite in zip(vectors, steepest.isfinite().tolist(), strict=True):
                if not finite:
                    vector.grad = None  # so that the step leaves the client's state alone
        optimizer.step()
        optimizer.zero_grad()
    updates = local - parameters
    updates[~steepest.isfinite()] = torch.nan
    states = [optimizer.state[vector] for vector in vectors]
    if not config.keep_optimizer:
        return [(row, None) for row in updates]
    alone = [len(turn.batches) == 1 for turn in turns]
    return _kept(updates, steepest, before, states, alone)


def _kept(
    updates: Updates,
    steepest: Tensor,
    before: Sequence[OptimizerState | None],
    states: Sequence[OptimizerState],
    alone: Sequence[bool],
) -> list[Trained]:
    """Return each update, with the state to keep: see :meth:`Turn.train`."""
    sizes = torch.stack([steepest, updates.abs().amax(dim=1)]).tolist()
    found = list[Trained]()
    for row, slope, size, old, new, once in zip(
        updates, *sizes, before, states, alone, strict=True
    ):
        fit = math.isfinite(size) and (
            slope < ORDINARY or all(math.isfinite(largest(value)) for value in new.values())
        )
        if fit:
            found.append((row, new))
        else:
            # A client's only step, with a finite gradient, has changed the state in place.
            found.append((row, None if once and math.isfinite(slope) else old))
    return found


def _batches(
    task: Task, model: nn.Module, turns: Sequence[Turn], number: int, local: Updates
) -> Iterator[tuple[list[int], Images, Labels]]:
    """Yield the rows of clients whose batch has the same size, x [n, b, ...] and y [n, b]."""
    sizes = dict[int, list[int]]()
    for row, turn in enumerate(turns):
        if number < len(turn.batches):
            sizes.setdefault(len(turn.batches[number]), []).append(row)
    for rows in sizes.values():
        chosen = [turns[row] for row in rows]
        if number == 0:
            pairs = [(turn.first.x, turn.first.y) for turn in chosen]
        else:
            pairs = _perturbed(task, model, chosen, number, local[rows])
        x, y = (torch.stack(part) for part in zip(*pairs, strict=True))
        yield rows, x, y


def _perturbed(
    task: Task, model: nn.Module, turns: Sequence[Turn], number: int, theta: Updates
) -> list[tuple[Images, Labels]]:
    """Return a later batch of each client, perturbed at its own parameters: a row of ``theta``."""
    objective = task.objective
    if not isinstance(objective, Adversarial) or not isinstance(objective.attack, Pgd):
        # Other attacks leave out examples that they have finished with.
        pairs = []
        for turn, vector in zip(turns, theta, strict=True):
            write(model, vector)
            batch = turn.perturbed(number)
            pairs.append((batch.x, batch.y))
        return pairs
    pairs = [turn.load(number) for turn in turns]
    k = asked.count(objective, len(pairs[0][1]), turns[0].round)
    if k:
        inputs = [x[:k].clone() for x, _ in pairs]
        draw = asked.draws(objective, inputs, [turn.noise for turn in turns])
        x, y = torch.cat(inputs), torch.cat([y[:k] for _, y in pairs])
        with evaluating(model):
            moved = asked.points(objective, Stacked(model, theta), x, y, draw, len(x))
        for (x, _), piece in zip(pairs, torch.split(moved, k), strict=True):
            x[:k] = piece
    return pairs
