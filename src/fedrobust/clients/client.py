"""The settings of a client's training: its batches and its optimiser."""

import torch
from pydantic import model_validator

from fedrobust.clients.optimizers import Adam, AnyOptimizer, Sgd, changed_groups
from fedrobust.config.by_round import ByRound, Phase, in_round
from fedrobust.config.component import component
from fedrobust.config.scalars import Count, Flag
from fedrobust.typing import Indices


@component
class Client:
    """How a client trains: ``batches`` minibatches or ``epochs`` passes over its data, each round.

    In each round a client shuffles its data anew. If it needs more batches than one pass has, it
    continues with another shuffle. ``keep_optimizer`` keeps the optimiser's state from round to
    round, as FAT does with Adam; otherwise every round starts with a new optimiser. ``lr_factor``
    multiplies the optimiser's learning rate. It is above 0 and up to 1, or a schedule by round:
    ``[{value: 1.0, until: 750}, {value: 0.1}]`` lowers the rate from round 751 on.
    """

    batch_size: Count = 64
    batches: Count | None = None
    epochs: Count | None = None
    optimizer: AnyOptimizer = Sgd(lr=0.1)
    keep_optimizer: Flag = False
    lr_factor: ByRound = 1.0

    @model_validator(mode="after")
    def _one_length(self) -> "Client":
        if (self.batches is None) == (self.epochs is None):
            raise ValueError("give either batches or epochs, the length of local training")
        return self

    @model_validator(mode="after")
    def _keeps_all(self) -> "Client":
        if not self.keep_optimizer or isinstance(self.optimizer, Sgd | Adam):
            return self
        if changed := changed_groups(self.optimizer):
            raise ValueError(
                f"keep_optimizer keeps the state of the parameters, and this optimiser also keeps "
                f"{', '.join(changed)} in its param_groups: set keep_optimizer to false"
            )
        return self

    @model_validator(mode="after")
    def _moves(self) -> "Client":
        factors = self.lr_factor if isinstance(self.lr_factor, tuple) else (Phase(self.lr_factor),)
        if not all(phase.value > 0 for phase in factors):
            raise ValueError("lr_factor must be above 0: with a learning rate of 0 nobody trains")
        return self

    def rate(self, round: int) -> float:
        """Return the learning rate in ``round``, which counts from 1."""
        return self.optimizer.lr * in_round(self.lr_factor, round)

    def smallest_batch(self, examples: int) -> int:
        """Return the size of the smallest batch that a client with so many examples trains on."""
        whole, rest = divmod(examples, self.batch_size)
        reached = self.epochs is not None or (self.batches or 0) > whole
        return rest if rest and reached else min(examples, self.batch_size)

    def schedule(self, examples: Indices, generator: torch.Generator) -> list[Indices]:
        """Return the batches of one round, as indices into the training data."""
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
