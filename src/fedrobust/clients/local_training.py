"""Local training: from the broadcast parameters to one update row per client."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import torch
from torch import Tensor, nn

from fedrobust.clients.client import Client
from fedrobust.clients.optimizers import Adam, Sgd
from fedrobust.clients.poisoning import Poisons, poisoned
from fedrobust.compute.global_draws import GlobalDraws, drawless
from fedrobust.compute.network import evaluating, parameter_gradient
from fedrobust.compute.parameters import write
from fedrobust.compute.randomness import Streams, isolated
from fedrobust.compute.units import computed
from fedrobust.config import arguments
from fedrobust.config.by_round import in_round
from fedrobust.config.fingerprint import foreign
from fedrobust.data import Split
from fedrobust.errors import ConfigError
from fedrobust.objectives import Objective, asked
from fedrobust.typing import Images, Indices, Labels, Updates, Vector

_ORDINARY = 1e15
"""A slope below this has a square that float32 can hold, and so have sums of many such squares."""

OptimizerState: TypeAlias = dict[str, Tensor]
Store: TypeAlias = dict[int, OptimizerState]
"""The optimiser state of each client that keeps one and has taken part, by client id."""


@dataclass(frozen=True)
class LocalTraining:
    """The local training of one round, the same for every client.

    ``model`` is a workspace whose parameters are overwritten. ``clients[i]`` are the indices of
    client i's examples in ``data``. A unit of work is a group of neighbouring clients whose first
    batches have at most ``batch`` examples to perturb together, or one client. In their first batch
    all clients have the same parameters, so one inner maximisation serves a unit. It sees the model
    in evaluation mode, because what a layer like dropout draws belongs to one client's training.
    With ``low_precision``, autocast runs what it can in bfloat16.
    """

    model: nn.Module
    data: Split
    classes: int
    clients: Sequence[Indices]
    objective: Objective
    config: Client
    batch: int
    device: torch.device
    low_precision: bool = False

    def updates(
        self,
        parameters: Vector,
        store: Store,
        chosen: Sequence[int],
        streams: Streams,
        round: int,
        poison: Mapping[int, Poisons] = {},
    ) -> Updates:
        """Return local minus global parameters of the ``chosen`` clients [n, d]; update ``store``.

        Neither the other clients of its unit nor the number of workers changes what a client draws.
        """
        # Each worker fills in the rows of its clients, so that the updates are in memory once.
        rows = parameters.new_empty(len(chosen), len(parameters))
        place = {client: i for i, client in enumerate(chosen)}

        def work(model: nn.Module, unit: Sequence[int]) -> list[OptimizerState | None]:
            # Without autocast's cache, which would keep the weights from the client's start.
            low = torch.autocast(
                self.device.type, torch.bfloat16, enabled=self.low_precision, cache_enabled=False
            )
            with low:
                turns = [
                    _Turn(self, model, parameters.dtype, client, streams, round, poison.get(client))
                    for client in unit
                ]
                write(model, parameters)
                self._perturb_first(model, turns, round)
                kept = []
                for turn in turns:
                    rows[place[turn.client]], state = turn.train(parameters, store.get(turn.client))
                    kept.append(state)
                return kept

        self.model.train()
        with isolated(), self.draws.round():
            units = self.units(chosen, round)
            done = computed(self.model, units, work, writes=True)
        for client, state in zip(chosen, (state for unit in done for state in unit), strict=True):
            if state is not None:
                store[client] = state
            else:
                store.pop(client, None)
        return rows

    @cached_property
    def draws(self) -> GlobalDraws:
        """Who may draw from the global generators: the parts that are not fedrobust's own."""
        own = foreign(self.objective)
        quiet = {
            "inner maximisation": not own and drawless(self.model),
            "training": not foreign(self.config.optimizer) and drawless(self.model),
        }
        return GlobalDraws({part for part, never in quiet.items() if never})

    def units(self, chosen: Sequence[int], round: int) -> list[Sequence[int]]:
        """Return the units of a round: neighbouring clients of ``chosen`` whose batches fit."""
        units, filled = list[list[int]](), self.batch
        for client in chosen:
            size = min(len(self.clients[client]), self.config.batch_size)
            size = asked.count(self.objective, size, round) or size
            if filled + size > self.batch:
                units.append([])
                filled = 0
            units[-1].append(client)
            filled += size
        return list(units)

    def _perturb_first(self, model: nn.Module, turns: "list[_Turn]", round: int) -> None:
        """Replace, in every client's first batch, the inputs that the objective perturbs."""
        counts = [asked.count(self.objective, len(turn.first[1]), round) for turn in turns]
        if not any(counts):
            return
        inputs = [turn.first[0][:k] for turn, k in zip(turns, counts, strict=True)]
        labels = [turn.first[1][:k] for turn, k in zip(turns, counts, strict=True)]
        draw = asked.draws(self.objective, inputs, [turn.noise for turn in turns])
        x, y = torch.cat(inputs), torch.cat(labels)
        seed = turns[0].seed("model in inner maximisation")
        with evaluating(model), self.draws.seeded("inner maximisation", seed):
            moved = asked.points(self.objective, model, x, y, draw, self.batch)
        for turn, k, piece in zip(turns, counts, torch.split(moved, counts), strict=True):
            turn.first[0][:k] = piece


class _Turn:
    """One client's local training in one round, on a worker's ``model``."""

    def __init__(
        self,
        task: LocalTraining,
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
        self.first = self._load(0)

    def seed(self, stream: str, *keys: int) -> int:
        """Return a seed for the global generators, from which a model or an attack may draw."""
        found = self._streams.generator(stream, self.round, self.client, *keys)
        return found.initial_seed() % 2**63

    def _load(self, number: int) -> tuple[Images, Labels]:
        """Return a batch that may be written to."""
        index, task = self.batches[number], self.task
        x, y = task.data.images(index), task.data.y[index]
        if self._poison is not None:
            with task.draws.seeded("poisoning", self.seed("poisoning", number)):
                x, y = poisoned(self._poison, x, y, task.classes)
        return x.to(task.device, self._dtype), y.to(task.device)

    def train(
        self, parameters: Vector, state: OptimizerState | None
    ) -> tuple[Vector, OptimizerState | None]:
        """Return the client's update [d], and the optimiser's state that is kept, if any.

        Afterwards the model holds arbitrary parameters. Where the update is not finite, the new
        state of the optimiser is not kept: the server refuses the update.
        """
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
            optimizer.state[local] = state if alone else _copied(state)
        for group in optimizer.param_groups:
            group["lr"] *= in_round(task.config.lr_factor, self.round)
        steepest = 0.0
        for i in range(len(self.batches)):
            write(self.model, local.detach())
            x, y = self.first if i == 0 else self._perturbed(i)
            with task.draws.seeded("training", self.seed("model", i)):
                local.grad = parameter_gradient(self.model, x, y)
                slope = _largest(local.grad)
                if not math.isfinite(slope):
                    return torch.full_like(parameters, torch.nan), state
                steepest = max(steepest, slope)
                optimizer.step()
        row, after = local.detach() - parameters, optimizer.state[local]
        if not keeps:
            return row, None
        # With ordinary slopes these optimisers keep ordinary numbers, which need no check.
        known = steepest < _ORDINARY and isinstance(task.config.optimizer, Sgd | Adam)
        looked = [row, *(() if known else after.values())]
        if all(math.isfinite(_largest(value)) for value in looked):
            return row, after
        return row, None if alone else state  # one step has changed the state in place

    def _perturbed(self, number: int) -> tuple[Images, Labels]:
        """Return a later batch, perturbed at the client's own parameters."""
        x, y = self._load(number)
        objective = self.task.objective
        if k := asked.count(objective, len(y), self.round):
            inputs = x[:k].clone()
            draw = asked.draws(objective, [inputs], [self.noise])
            seed = self.seed("model in inner maximisation", number)
            with evaluating(self.model), self.task.draws.seeded("inner maximisation", seed):
                x[:k] = asked.points(objective, self.model, inputs, y[:k], draw, self.task.batch)
        return x, y


def _copied(state: OptimizerState) -> OptimizerState:
    return {k: v.clone() if isinstance(v, Tensor) else v for k, v in state.items()}


def _largest(value: object) -> float:
    """Return the largest absolute entry, NaN where one is NaN; 0 where there are no entries.

    The extremes are finite exactly where all entries are, and finding them allocates nothing.
    """
    if not isinstance(value, Tensor) or not value.numel() or not value.is_floating_point():
        return 0.0
    low, high = (float(end) for end in torch.aminmax(value.detach()))
    return low if math.isnan(low) else max(-low, high)
