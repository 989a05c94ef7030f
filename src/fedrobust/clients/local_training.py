"""Local training: from the broadcast parameters to one update row per client."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from fedrobust.clients import cohort
from fedrobust.clients.client import Client
from fedrobust.clients.poisoning import Poisons
from fedrobust.clients.turn import OptimizerState, Store, Trained, Turn
from fedrobust.compute.global_draws import GlobalDraws, drawless
from fedrobust.compute.network import evaluating, logits
from fedrobust.compute.parameters import write
from fedrobust.compute.precision import Precision, reduced
from fedrobust.compute.randomness import Streams, isolated
from fedrobust.compute.trial import require_logits
from fedrobust.compute.units import computed
from fedrobust.config import arguments
from fedrobust.config.fingerprint import foreign
from fedrobust.data import Split
from fedrobust.data.map_style import split_of
from fedrobust.errors import ConfigError, ModelError, ModelWarning
from fedrobust.models import BatchNorm, LocalTensors, treated_copy
from fedrobust.objectives import Objective, asked, own_loss
from fedrobust.typing import Indices, Updates, Vector


@dataclass(frozen=True)
class LocalTraining:
    """The local training of one round, the same for every client.

    ``model`` is a workspace whose parameters are overwritten. ``clients[i]`` are the indices of
    client i's examples in ``data``. A unit of work is a group of neighbouring clients whose first
    batches have at most ``batch`` examples to perturb together, or one client. In their first batch
    all clients have the same parameters, so one inner maximisation serves a unit. It sees the model
    in evaluation mode, because what a layer like dropout draws belongs to one client's training.
    Where they train ``together``, one backward pass gives the gradients of a unit's clients.

    Where tensors stay with each client (``own``), a client's model is its own even in its first
    batch. So each client is a unit alone, and its inner maximisations see its own tensors, as they
    are then, in evaluation mode.
    """

    model: nn.Module
    data: Split
    classes: int
    clients: Sequence[Indices]
    objective: Objective
    config: Client
    batch: int
    device: torch.device
    precision: Precision = "float32"
    together: bool = False
    own: LocalTensors | None = None

    @cached_property
    def counts(self) -> Tensor:
        """The number of examples of each client [clients]."""
        return torch.tensor([len(part) for part in self.clients])

    @cached_property
    def table(self) -> Indices | None:
        """The indices of all clients [clients, n]; None where they hold different numbers."""
        if len(set(self.counts.tolist())) != 1:
            return None
        return torch.stack(list(self.clients))

    @classmethod
    def of(
        cls,
        model: nn.Module,
        clients: Sequence[Any],
        objective: Objective,
        config: Client,
        batch: int,
        batch_norm: BatchNorm = "refuse",
    ) -> "LocalTraining":
        """Return the training of ``clients``, given as data, on a copy of ``model``, where it lies.

        Each client is a pair (x, y) of tensors, or a PyTorch data set. The copy's BatchNorm layers
        are treated as ``batch_norm`` says; a ``ModelWarning`` tells what may be a mistake.

        Raises: ``ConfigError`` for a model that cannot be trained on these data, ``DataError``.
        """
        if not isinstance(model, nn.Module):
            raise ConfigError(f"model must be a torch.nn.Module; got {arguments.told(model)}")
        splits = [split_of(each, f"client {i}") for i, each in enumerate(clients)]
        if not splits:
            raise ConfigError("a federation needs at least one client")
        if len(shapes := {tuple(split.x.shape[1:]) for split in splits}) > 1:
            raise ConfigError(f"the clients' examples have different shapes: {sorted(shapes)}")
        if len(kinds := {str(split.x.dtype) for split in splits}) > 1:
            raise ConfigError(
                f"the clients' examples have different types: {sorted(kinds)}. Bytes become pixels "
                "in [0, 1] and other numbers stay as they are, so give all clients one type"
            )
        data = Split(torch.cat([s.x for s in splits]), torch.cat([s.y for s in splits]))
        found = treated_copy(model, tuple(data.x.shape[1:]), batch_norm)
        for doubt in found.doubts:
            warnings.warn(doubt, ModelWarning, stacklevel=3)
        model = found.model
        parameter = next(p for p in model.parameters() if p.requires_grad)
        some = data.images(torch.arange(min(2, len(data)))).to(parameter)
        classes = require_logits(model, some)
        try:
            arguments.labels(data.y, len(data), classes)
        except ValueError as error:
            raise ConfigError(str(error)) from error
        ends = torch.tensor([len(split) for split in splits]).cumsum(0)[:-1]
        task = cls(
            model=model,
            data=data,
            classes=classes,
            clients=torch.arange(len(data)).tensor_split(ends.tolist()),
            objective=objective,
            config=config,
            batch=batch,
            device=parameter.device,
            own=found.own,
        )
        task.require_batches()
        return task

    def require_batches(self, who: str = "client {}") -> None:
        """Refuse a batch of one example where BatchNorm must normalise it in training.

        Raises: ``ConfigError``, which says ``who`` has it.
        """
        sizes = [self.config.smallest_batch(len(part)) for part in self.clients]
        if self.own is None or 1 not in sizes:
            return
        x = self.data.images(self.clients[sizes.index(1)][:1])
        self.model.train()
        try:
            with isolated(), torch.no_grad():
                logits(self.model, x.to(next(self.model.parameters())))
        except ModelError as error:
            raise ConfigError(
                f"{who.format(sizes.index(1))} would train on a batch of one example, which its "
                f"own BatchNorm cannot normalise: choose another client.batch_size ({error})"
            ) from error
        finally:
            self.own.load(self.model)

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
            found = self.trained(model, parameters, store, unit, streams, round, poison)
            kept = []
            for client, (row, state) in zip(unit, found, strict=True):
                rows[place[client]] = row
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

    def trained(
        self,
        model: nn.Module,
        parameters: Vector,
        store: Store,
        unit: Sequence[int],
        streams: Streams,
        round: int,
        poison: Mapping[int, Poisons] = {},
    ) -> Iterator[Trained]:
        """Yield the update [d] of each client of a ``unit``, and what is kept of the client.

        ``model`` is a worker's own, in training mode. ``store`` has what was kept of these clients.
        """
        with reduced(self.device.type, self.precision):
            turns = [
                Turn(self, model, parameters.dtype, client, streams, round, poison.get(client))
                for client in unit
            ]
            write(model, parameters)
            if self.own is not None:
                self.own.load(model, store.get(unit[0]))
            self._perturb_first(model, turns, round)
            if self.together:
                yield from cohort.trained(self, model, turns, parameters, store)
                return
            for turn in turns:
                yield turn.train(parameters, store.get(turn.client))

    @cached_property
    def draws(self) -> GlobalDraws:
        """Who may draw from the global generators: the parts that are not fedrobust's own."""
        own, optimizer = foreign(self.objective), self.config.optimizer
        strange = foreign(optimizer) or not getattr(optimizer, "torchs", True)
        quiet = {
            "inner maximisation": not own and drawless(self.model),
            "training": not own_loss(self.objective) and not strange and drawless(self.model),
        }
        return GlobalDraws({part for part, never in quiet.items() if never})

    def units(self, chosen: Sequence[int], round: int) -> list[Sequence[int]]:
        """Return the units of a round: neighbouring clients of ``chosen`` whose batches fit."""
        units, filled = list[list[int]](), self.batch
        for client in chosen:
            size = min(len(self.clients[client]), self.config.batch_size)
            if not self.together:  # else the gradients of all examples are one batch, too
                size = asked.count(self.objective, size, round) or size
            if filled + size > self.batch or self.own is not None:
                units.append([])
                filled = 0
            units[-1].append(client)
            filled += size
        return list(units)

    def _perturb_first(self, model: nn.Module, turns: list[Turn], round: int) -> None:
        """Replace, in every client's first batch, the inputs that the objective perturbs."""
        counts = [asked.count(self.objective, len(turn.first.y), round) for turn in turns]
        if not any(counts):
            return
        inputs = [turn.first.x[:k] for turn, k in zip(turns, counts, strict=True)]
        labels = [turn.first.y[:k] for turn, k in zip(turns, counts, strict=True)]
        draw = asked.draws(self.objective, inputs, [turn.noise for turn in turns])
        x, y = torch.cat(inputs), torch.cat(labels)
        seed = turns[0].seed("model in inner maximisation")
        with evaluating(model), self.draws.seeded("inner maximisation", seed):
            moved = asked.points(self.objective, model, x, y, draw, self.batch)
        for turn, piece in zip(turns, torch.split(moved, counts), strict=True):
            turn.first = turn.first.moved(piece, self.objective)
