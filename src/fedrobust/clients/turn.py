"""One client's part in a round: its batches, their perturbation, and its training."""

import math
from collections.abc import Sequence
from copy import deepcopy
from typing import NamedTuple, Protocol, TypeAlias

import torch
from torch import Tensor, nn

from fedrobust.clients.client import Client
from fedrobust.clients.optimizers import Adam, Sgd
from fedrobust.clients.poisoning import Poisons, poisoned
from fedrobust.compute.global_draws import GlobalDraws
from fedrobust.compute.network import evaluating
from fedrobust.compute.parameters import read, write
from fedrobust.compute.randomness import Streams
from fedrobust.config import arguments
from fedrobust.config.by_round import in_round
from fedrobust.data import Split
from fedrobust.errors import ConfigError
from fedrobust.models import LocalTensors, optimizer_of, own_of
from fedrobust.objectives import LossContext, Objective, asked, own_loss
from fedrobust.typing import Images, Indices, Labels, Vector

ORDINARY = 1e15
"""A slope below this has a square that float32 can hold, and so have sums of many such squares."""

OptimizerState: TypeAlias = dict[str, Tensor]
Store: TypeAlias = dict[int, OptimizerState]
"""What is kept of each client that has taken part, by client id: the state of its optimiser, and
its own tensors where some stay with it (:mod:`fedrobust.models.local_tensors`)."""
Trained: TypeAlias = tuple[Vector, OptimizerState | None]
"""A client's update [d], and what is kept of the client, if anything."""


class Task(Protocol):
    """What a turn needs of the round's local training: see ``LocalTraining``."""

    @property
    def data(self) -> Split:
        """All training data."""
        ...

    @property
    def classes(self) -> int:
        """The number of classes."""
        ...

    @property
    def clients(self) -> Sequence[Indices]:
        """The indices of each client's examples."""
        ...

    @property
    def objective(self) -> Objective:
        """What clients minimise."""
        ...

    @property
    def config(self) -> Client:
        """How clients train."""
        ...

    @property
    def batch(self) -> int:
        """The number of examples in a unit of work."""
        ...

    @property
    def device(self) -> torch.device:
        """Where training runs."""
        ...

    @property
    def own(self) -> LocalTensors | None:
        """The tensors that stay with each client, if any."""
        ...

    @property
    def draws(self) -> GlobalDraws:
        """Who may draw from the global generators."""
        ...


class Batch(NamedTuple):
    """A batch: x [b, ...] with the first ``k`` inputs perturbed, labels y [b].

    ``clean`` are the inputs before that, where the objective's own loss may ask for them; else x.
    """

    clean: Images
    x: Images
    y: Labels
    k: int

    def moved(self, points: Images, objective: Objective) -> "Batch":
        """Return this batch with ``points`` in place of its first inputs, which are written to."""
        clean = self.x.clone() if own_loss(objective) else self.x
        self.x[: len(points)] = points
        return Batch(clean, self.x, self.y, len(points))


class Turn:
    """One client's local training in one round, on a worker's ``model``."""

    def __init__(
        self,
        task: Task,
        model: nn.Module,
        dtype: torch.dtype,
        client: int,
        streams: Streams,
        round: int,
        poison: Poisons | None,
    ) -> None:
        self.task, self.model, self.client, self.round = task, model, client, round
        self._dtype = dtype
        self._streams, self._poison = streams, poison
        self.noise = streams.generator("inner maximisation", round, client)
        shuffles = streams.generator("batches", round, client)
        self.batches = task.config.schedule(task.clients[client], shuffles)
        x, y = self.load(0)
        self.first = Batch(x, x, y, 0)

    def seed(self, stream: str, *keys: int) -> int:
        """Return a seed for the global generators, from which a model or an attack may draw."""
        found = self._streams.generator(stream, self.round, self.client, *keys)
        return found.initial_seed() % 2**63

    def load(self, number: int) -> tuple[Images, Labels]:
        """Return a batch that may be written to."""
        index, task = self.batches[number], self.task
        x, y = task.data.images(index), task.data.y[index]
        if self._poison is not None:
            with task.draws.seeded("poisoning", self.seed("poisoning", number)):
                x, y = poisoned(self._poison, x, y, task.classes)
        return x.to(task.device, self._dtype), y.to(task.device)

    def train(self, parameters: Vector, kept: OptimizerState | None) -> Trained:
        """Return the client's update [d], and what is kept of the client, if anything.

        ``model`` holds the client's own tensors, if there are any. Afterwards it holds arbitrary
        values. Where the update is not finite, nothing new is kept: the server refuses the update.
        """
        own = self.task.own
        if own is None:
            return self._stepped(parameters, kept)
        with own.training(self.model) as shared:
            row, state = self._stepped(read(self.model), optimizer_of(kept))
        found = own.read(self.model)
        if not all(math.isfinite(largest(value)) for value in (row, *found.values())):
            found = own_of(kept)
        return row[shared], {**(state or {}), **found} or None

    def _stepped(self, parameters: Vector, state: OptimizerState | None) -> Trained:
        """Return the change of all parameters that are trained, and the optimiser's state."""
        task, keeps, alone = self.task, self.task.config.keep_optimizer, len(self.batches) == 1
        local = nn.Parameter(parameters.clone())
        optimizer = task.config.optimizer.build(local)
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise ConfigError(
                f"build of the optimiser {type(task.config.optimizer).__name__} must give a "
                f"torch.optim.Optimizer; it gave {arguments.told(optimizer)}"
            )
        if keeps and state is not None:
            # A step writes into the state, and a later batch may still be refused.
            optimizer.state[local] = state if alone else copied(state)
        for group in optimizer.param_groups:
            group["lr"] *= in_round(task.config.lr_factor, self.round)
        steepest = 0.0
        for i in range(len(self.batches)):
            write(self.model, local.detach())
            batch = self.first if i == 0 else self.perturbed(i)
            context = LossContext(self.round, batch.k)
            with task.draws.seeded("training", self.seed("model", i)):
                local.grad = asked.gradient(
                    task.objective, self.model, batch.clean, batch.x, batch.y, context
                )
                slope = largest(local.grad)
                if not math.isfinite(slope):
                    return torch.full_like(parameters, torch.nan), state
                steepest = max(steepest, slope)
                optimizer.step()
        if task.own is not None:
            write(self.model, local.detach())
        row, after = local.detach() - parameters, optimizer.state[local]
        if not keeps:
            return row, None
        # With ordinary slopes these optimisers keep ordinary numbers, which need no check.
        known = steepest < ORDINARY and isinstance(task.config.optimizer, Sgd | Adam)
        looked = [row, *(() if known else after.values())]
        if all(math.isfinite(largest(value)) for value in looked):
            return row, after
        return row, None if alone else state  # one step has changed the state in place

    def perturbed(self, number: int) -> Batch:
        """Return a later batch, perturbed at the client's own parameters."""
        x, y = self.load(number)
        batch, objective = Batch(x, x, y, 0), self.task.objective
        k = asked.count(objective, len(y), self.round)
        if not k:
            return batch
        inputs = x[:k].clone()
        draw = asked.draws(objective, [inputs], [self.noise])
        seed = self.seed("model in inner maximisation", number)
        with evaluating(self.model), self.task.draws.seeded("inner maximisation", seed):
            found = asked.points(objective, self.model, inputs, y[:k], draw, self.task.batch)
        return batch.moved(found, objective)


def copied(state: OptimizerState) -> OptimizerState:
    """Return a copy of an optimiser's state, of its tensors too."""
    return {k: v.clone() if isinstance(v, Tensor) else deepcopy(v) for k, v in state.items()}


def largest(value: object) -> float:
    """Return the largest absolute entry, NaN where one is NaN; 0 where there are no entries.

    The extremes are finite exactly where all entries are, and finding them allocates nothing.
    """
    if not isinstance(value, Tensor) or not value.numel() or not value.is_floating_point():
        return 0.0
    low, high = (float(end) for end in torch.aminmax(value.detach()))
    return low if math.isnan(low) else max(-low, high)
