"""Local training: from the broadcast parameters to one update row per client."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from pydantic import model_validator
from torch import Tensor, nn

from fedrobust.attacks import Poisons
from fedrobust.component import Count, Flag, component
from fedrobust.data import Split
from fedrobust.evaluation.accuracy import evaluating
from fedrobust.flat import trainable, write
from fedrobust.objectives import Objective
from fedrobust.optimizers import AnyOptimizer, Sgd
from fedrobust.streams import Streams, isolated, seed_globally
from fedrobust.typing import Images, Indices, Labels, Updates, Vector

POOL = 8192
"""At most this many examples of several clients are held at once for one inner maximisation."""

Store = dict[int, dict[str, Tensor]]
"""The optimiser state of each client that keeps one and has taken part, by client id."""


@component
class Client:
    """How a client trains: ``batches`` minibatches or ``epochs`` passes over its data, each round.

    Each round a client shuffles its data anew; more batches than it has continue with another
    shuffle. ``keep_optimizer`` keeps the optimiser's state from round to round, as FAT does with
    Adam; without it, every round starts afresh.
    """

    batch_size: Count = 64
    batches: Count | None = None
    epochs: Count | None = None
    optimizer: AnyOptimizer = Sgd(lr=0.1)
    keep_optimizer: Flag = False

    @model_validator(mode="after")
    def _one_length(self) -> "Client":
        if (self.batches is None) == (self.epochs is None):
            raise ValueError("give either batches or epochs, the length of local training")
        return self

    def schedule(self, examples: Indices, generator: torch.Generator) -> list[Indices]:
        """The batches of one round, as indices into the training data."""
        if self.epochs is not None:
            shuffles = [_shuffled(examples, generator) for _ in range(self.epochs)]
            return [b for shuffle in shuffles for b in torch.split(shuffle, self.batch_size)]
        if not len(examples):
            raise ValueError("a client without examples cannot train")
        batches: list[Indices] = []
        while (missing := (self.batches or 0) - len(batches)) > 0:
            shuffle = _shuffled(examples, generator)
            starts = range(0, len(shuffle), self.batch_size)[:missing]
            batches += [shuffle[start : start + self.batch_size] for start in starts]
        return batches


def _shuffled(examples: Indices, generator: torch.Generator) -> Indices:
    return examples[torch.randperm(len(examples), generator=generator)]


@dataclass(frozen=True)
class LocalTraining:
    """The local training of one round, the same for every client.

    ``model`` is a workspace whose parameters are overwritten; ``clients[i]`` are the indices of
    client i's examples in ``data``; ``batch`` is the batch of the inner maximisation, which sees
    the model in evaluation mode: what a layer like dropout draws belongs to one client's training.
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
        """Local minus global parameters of the ``chosen`` clients [n, d], and ``store`` updated.

        In their first batch all clients hold the same parameters, so the inner maximisation of all
        of them runs in batches of the size that suits the machine, not of the size of a client's.
        """
        rows = parameters.new_empty(len(chosen), len(parameters))
        per_group = max(1, POOL // self.config.batch_size)
        self.model.train()
        # Without its cache, which would keep the weights that a client began with.
        low = torch.autocast(
            self.device.type, torch.bfloat16, enabled=self.low_precision, cache_enabled=False
        )
        with isolated(), low:
            for start in range(0, len(chosen), per_group):
                group = [
                    _Turn(self, client, parameters, streams, round, poison.get(client))
                    for client in chosen[start : start + per_group]
                ]
                write(self.model, parameters)
                self._perturb_first(group, round)
                for i, turn in enumerate(group):
                    rows[start + i] = turn.train(parameters, store) - parameters
        return rows

    def _perturb_first(self, group: "list[_Turn]", round: int) -> None:
        """Replace, in every client's first batch, the inputs that the objective perturbs."""
        counts = [self.objective.perturbed(len(t.first[1]), round) for t in group]
        if not any(counts):
            return
        inputs = [t.first[0][:k] for t, k in zip(group, counts, strict=True)]
        labels = [t.first[1][:k] for t, k in zip(group, counts, strict=True)]

        def draw() -> Tensor | None:
            starts = [self.objective.draw(x, t.noise) for x, t in zip(inputs, group, strict=True)]
            given = [start for start in starts if start is not None]
            return torch.cat(given) if given else None

        x, y = torch.cat(inputs), torch.cat(labels)
        with evaluating(self.model):
            perturbed = self.objective.maximise(self.model, x, y, draw, batch=self.batch)
        for turn, k, piece in zip(group, counts, torch.split(perturbed, counts), strict=True):
            turn.first[0][:k] = piece


class _Turn:
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
        self.seed = _seed(streams, round, client)
        shuffles = streams.generator("batches", round, client)
        self.batches = task.config.schedule(task.clients[client], shuffles)
        self.first = self._load(self.batches[0])

    def _load(self, index: Indices) -> tuple[Images, Labels]:
        """A batch that may be written to."""
        x, y = self.task.data.images(index), self.task.data.y[index]
        if self.poison is not None:
            x, y = self.poison.poison(x, y, self.task.classes)
        return x.to(self.task.device, self.dtype), y.to(self.task.device)

    def train(self, parameters: Vector, store: Store) -> Vector:
        """The client's parameters after its batches; the model may hold anything on return."""
        task = self.task
        local = nn.Parameter(parameters.clone())
        optimizer = task.config.optimizer.build(local)
        if task.config.keep_optimizer and self.client in store:
            optimizer.state[local] = store[self.client]
        seed_globally(self.seed)
        for i, index in enumerate(self.batches):
            write(task.model, local.detach())
            x, y = self.first if i == 0 else self._perturbed(index)
            local.grad = parameter_gradient(task.model, x, y)
            optimizer.step()
        if task.config.keep_optimizer:
            store[self.client] = optimizer.state[local]
        return local.detach()

    def _perturbed(self, index: Indices) -> tuple[Images, Labels]:
        """A later batch, perturbed at the client's own parameters."""
        x, y = self._load(index)
        objective = self.task.objective
        if k := objective.perturbed(len(y), self.round):
            inputs = x[:k].clone()
            with evaluating(self.task.model):
                x[:k] = objective.maximise(
                    self.task.model,
                    inputs,
                    y[:k],
                    lambda: objective.draw(inputs, self.noise),
                    batch=self.task.batch,
                )
        return x, y


def parameter_gradient(model: nn.Module, x: Images, y: Labels) -> Vector:
    """∇_θ of the mean cross-entropy over the batch [d]; 0 for a parameter that plays no part."""
    with torch.enable_grad():
        loss = F.cross_entropy(model(x), y)
        gradients = torch.autograd.grad(loss, trainable(model), materialize_grads=True)
    return torch.cat([g.reshape(-1) for g in gradients])


def _seed(streams: Streams, *keys: int) -> int:
    """Seeds what a model draws itself (dropout), for which PyTorch has only a global generator."""
    return streams.generator("model", *keys).initial_seed() % 2**63
