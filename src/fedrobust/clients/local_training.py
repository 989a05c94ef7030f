"""Local training: from the broadcast parameters to one update row per client."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fedrobust.clients.client import Client
from fedrobust.clients.optimizers import Adam, Sgd
from fedrobust.clients.poisoning import Poisons, poisoned
from fedrobust.compute.network import evaluating, parameter_gradient
from fedrobust.compute.parameters import write
from fedrobust.compute.randomness import Streams, isolated, seed_globally
from fedrobust.config import arguments
from fedrobust.data import Split
from fedrobust.errors import ConfigError
from fedrobust.objectives import Objective
from fedrobust.perturb.perturbation import Draw
from fedrobust.typing import Images, Indices, Labels, Updates, Vector

POOL = 8192
"""At most this many examples of several clients share one inner maximisation."""

_ORDINARY = 1e15
"""A slope below this has a square that float32 can hold, and so have sums of many such squares."""

Store = dict[int, dict[str, Tensor]]
"""The optimiser state of each client that keeps one and has taken part, by client id."""


@dataclass(frozen=True)
class LocalTraining:
    """The local training of one round, the same for every client.

    ``model`` is a workspace whose parameters are overwritten. ``clients[i]`` are the indices of
    client i's examples in ``data``. ``batch`` is the batch of the inner maximisation. The inner
    maximisation sees the model in evaluation mode, because what a layer like dropout draws belongs
    to one client's training. With ``low_precision``, autocast runs what it can in bfloat16.
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

        In their first batch all clients have the same parameters. So the inner maximisation of all
        of them runs in batches of the size that suits the machine, not of the clients' batch size.
        """
        rows = parameters.new_empty(len(chosen), len(parameters))
        per_group = max(1, POOL // self.config.batch_size)
        self.model.train()
        # Without its cache, which would keep the weights from the client's start.
        low = torch.autocast(
            self.device.type, torch.bfloat16, enabled=self.low_precision, cache_enabled=False
        )
        with isolated(), low:
            for start in range(0, len(chosen), per_group):
                group = [
                    _ClientRound(self, client, parameters, streams, round, poison.get(client))
                    for client in chosen[start : start + per_group]
                ]
                write(self.model, parameters)
                seed_globally(_seed(streams, "model in inner maximisation", round, chosen[start]))
                self._perturb_first(group, round)
                for i, turn in enumerate(group):
                    rows[start + i] = turn.train(parameters, store)
        return rows

    def _perturb_first(self, group: "list[_ClientRound]", round: int) -> None:
        """Replace, in every client's first batch, the inputs that the objective perturbs."""
        counts = [self.count(len(t.first[1]), round) for t in group]
        if not any(counts):
            return
        inputs = [t.first[0][:k] for t, k in zip(group, counts, strict=True)]
        labels = [t.first[1][:k] for t, k in zip(group, counts, strict=True)]

        def draw() -> Tensor | None:
            starts = [
                self.objective.draw(x.clone(), t.noise) for x, t in zip(inputs, group, strict=True)
            ]
            given = [start for start in starts if start is not None]
            return torch.cat(given) if given else None

        x, y = torch.cat(inputs), torch.cat(labels)
        with evaluating(self.model):
            perturbed = self.perturbed(x, y, draw)
        for turn, k, piece in zip(group, counts, torch.split(perturbed, counts), strict=True):
            turn.first[0][:k] = piece

    def count(self, examples: int, round: int) -> int:
        """Return how many examples are perturbed. Raises: ``ConfigError`` for an invalid number."""
        found = self.objective.perturbed(examples, round)
        if isinstance(found, bool) or not isinstance(found, int) or not 0 <= found <= examples:
            raise ConfigError(
                f"perturbed of the objective {type(self.objective).__name__} must give a whole "
                f"number from 0 to {examples}; it gave {arguments.told(found)}"
            )
        return found

    def perturbed(self, x: Images, y: Labels, draw: Draw) -> Images:
        """Return the objective's points for x. Raises: ``ConfigError`` where these are unlike x."""
        # Copies, since a user's objective may work in place, and y is still needed for training.
        found = self.objective.maximize(self.model, x.clone(), y.clone(), draw, batch=self.batch)
        plain = isinstance(found, Tensor) and not arguments.unfit(found)
        if not plain or found.shape != x.shape or not found.is_floating_point():
            raise ConfigError(
                f"maximize of the objective {type(self.objective).__name__} must give a "
                f"floating-point tensor {list(x.shape)}; it gave {arguments.told(found)}"
            )
        return found.detach()


class _ClientRound:
    """One client's local training in one round."""

    def __init__(
        self,
        task: LocalTraining,
        client: int,
        parameters: Vector,
        streams: Streams,
        round: int,
        poison: Poisons | None,
    ) -> None:
        self.task, self.client, self.round, self.poison = task, client, round, poison
        self.dtype = parameters.dtype
        self.noise = streams.generator("inner maximisation", round, client)
        self.seed = _seed(streams, "model", round, client)
        if poison is not None:
            seed_globally(_seed(streams, "poisoning", round, client))
        shuffles = streams.generator("batches", round, client)
        self.batches = task.config.schedule(task.clients[client], shuffles)
        self.first = self._load(self.batches[0])

    def _load(self, index: Indices) -> tuple[Images, Labels]:
        """Return a batch that may be written to."""
        x, y = self.task.data.images(index), self.task.data.y[index]
        if self.poison is not None:
            x, y = poisoned(self.poison, x, y, self.task.classes)
        return x.to(self.task.device, self.dtype), y.to(self.task.device)

    def train(self, parameters: Vector, store: Store) -> Vector:
        """Return the client's update [d]; afterwards the model holds arbitrary parameters.

        The optimiser's state is not kept where the update is not finite: the server refuses it.
        """
        task, keeps = self.task, self.task.config.keep_optimizer
        local = nn.Parameter(parameters.clone())
        optimizer = task.config.optimizer.build(local)
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise ConfigError(
                f"build of the optimiser {type(task.config.optimizer).__name__} must give a "
                f"torch.optim.Optimizer; it gave {arguments.told(optimizer)}"
            )
        if keeps and (state := store.get(self.client)) is not None:
            # A step writes into the state, and a later batch may still be refused.
            optimizer.state[local] = _copied(state) if len(self.batches) > 1 else state
        seed_globally(self.seed)
        steepest = 0.0
        for i, index in enumerate(self.batches):
            write(task.model, local.detach())
            x, y = self.first if i == 0 else self._perturbed(index)
            local.grad = parameter_gradient(task.model, x, y)
            slope = _largest(local.grad)
            if not math.isfinite(slope):
                return torch.full_like(parameters, torch.nan)
            steepest = max(steepest, slope)
            optimizer.step()
        row, state = local.detach() - parameters, optimizer.state[local]
        # With ordinary slopes these optimisers keep ordinary numbers, which need no check.
        known = steepest < _ORDINARY and isinstance(task.config.optimizer, Sgd | Adam)
        looked = [row, *(() if known else state.values())]
        if keeps and all(math.isfinite(_largest(value)) for value in looked):
            store[self.client] = state
        elif keeps and len(self.batches) == 1:
            store.pop(self.client, None)  # the step has overflowed and has changed the stored state
        return row

    def _perturbed(self, index: Indices) -> tuple[Images, Labels]:
        """Return a later batch, perturbed at the client's own parameters."""
        x, y = self._load(index)
        objective = self.task.objective
        if k := self.task.count(len(y), self.round):
            inputs = x[:k].clone()
            with evaluating(self.task.model):
                x[:k] = self.task.perturbed(
                    inputs, y[:k], lambda: objective.draw(inputs.clone(), self.noise)
                )
        return x, y


def _copied(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k: v.clone() if isinstance(v, Tensor) else v for k, v in state.items()}


def _largest(value: object) -> float:
    """Return the largest absolute entry, NaN where one is NaN; 0 where there are no entries.

    The extremes are finite exactly where all entries are, and finding them allocates nothing.
    """
    if not isinstance(value, Tensor) or not value.numel() or not value.is_floating_point():
        return 0.0
    low, high = (float(end) for end in torch.aminmax(value.detach()))
    return low if math.isnan(low) else max(-low, high)


def _seed(streams: Streams, stream: str, *keys: int) -> int:
    """Return a seed for the global generators, from which a model or an attack may draw."""
    return streams.generator(stream, *keys).initial_seed() % 2**63
