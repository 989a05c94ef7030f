"""Backends that train clients faster than one after another."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass

import torch

from fedrobust.clients.compiled_mlp import CompiledMlp
from fedrobust.clients.gradients import Compiled, GradientEngine, gradient_engine
from fedrobust.clients.local_training import LocalTraining
from fedrobust.clients.optimizers import Sgd
from fedrobust.clients.poisoning import Poisons
from fedrobust.compute.global_draws import drawless, draws
from fedrobust.compute.randomness import Streams
from fedrobust.federation.backends import LOCAL, Backend
from fedrobust.federation.state import Federation, FederationState
from fedrobust.objectives import ERM, WassersteinDRO
from fedrobust.typing import Indices, Updates


@dataclass(frozen=True)
class OneStep:
    """For clients that take one plain SGD step: computes all of them in one call.

    Each client draws the same batch as in local training, so the updates agree up to rounding. With
    ``replacement`` one generator draws all batches, with replacement, from each client's examples.
    This is equally good where the examples are a sample themselves, and several times faster.
    """

    engine: GradientEngine
    replacement: bool = False

    def local_updates(
        self,
        federation: Federation,
        state: FederationState,
        clients: Sequence[int],
        rng: Streams,
        poison: dict[int, Poisons],
    ) -> Updates:
        """Return Δ = −η · mean gradient at the perturbed examples [n, d]."""
        local, theta, number = federation.local, state.parameters, state.round + 1
        if not clients:
            return theta.new_empty(0, len(theta))
        index, sizes = self._picks(local, clients, rng, number)
        x, y = local.data.images(index).to(theta), local.data.y[index].to(theta.device)
        x = self.engine.perturbed(theta, x, y, local.objective, number)
        if len(set(sizes)) == 1:
            rows = self.engine.gradients(theta, x, y, len(sizes))
        else:
            parts = zip(torch.split(x, sizes), torch.split(y, sizes), strict=True)
            rows = torch.cat([self.engine.gradients(theta, *part, 1) for part in parts])
        return (-local.config.rate(number) * rows).to(theta)

    def _picks(
        self, local: LocalTraining, clients: Sequence[int], rng: Streams, number: int
    ) -> tuple[Indices, list[int]]:
        """Return the batches of all clients, as indices into the training data, and their sizes."""
        if not self.replacement:
            draws = [rng.generator("batches", number, client) for client in clients]
            held = [local.clients[client] for client in clients]
            picks = [local.config.schedule(*pair)[0] for pair in zip(held, draws, strict=True)]
            return torch.cat(picks), [len(pick) for pick in picks]
        size, chosen = local.config.batch_size, torch.tensor(clients)[:, None]
        shares = torch.rand((len(chosen), size), generator=rng.generator("batches", number))
        places = (shares * local.counts[chosen]).long()
        if local.table is not None and size <= local.table.shape[1]:
            return local.table[chosen, places].flatten(), [size] * len(chosen)
        held = [local.clients[client] for client in clients]
        picks = [part[place[: len(part)]] for part, place in zip(held, places, strict=True)]
        return torch.cat(picks), [len(pick) for pick in picks]


def takes_one_step(local: LocalTraining) -> bool:
    """Whether a client's round is one plain SGD step, on clean or on transported examples."""
    config, optimizer = local.config, local.config.optimizer
    plain = isinstance(optimizer, Sgd) and optimizer == Sgd(optimizer.lr)
    alone = config.batches == 1 and not config.keep_optimizer
    known = type(local.objective) in (ERM, WassersteinDRO)  # a subclass may do anything else
    return plain and alone and known and not _draws(local)


def _draws(local: LocalTraining) -> bool:
    """Whether the network draws random numbers in training, which one step would leave out."""
    if drawless(local.model):
        return False
    model, x = deepcopy(local.model).train(), local.data.images(torch.arange(len(local.data))[:2])
    return draws(model, x.to(next(model.parameters()))) in ("perhaps", "from its own")


def backend_for(local: LocalTraining, *, poisons: bool = False) -> Backend:
    """Return the fastest backend that supports this local training.

    Compiled loops serve small ELU networks on a CPU whose clients take one plain SGD step each, on
    examples that no attack has poisoned.
    """
    if poisons or CompiledMlp.of(local.model) is None or not takes_one_step(local):
        return LOCAL
    found = gradient_engine(local.model)
    return OneStep(found) if isinstance(found, Compiled) else LOCAL
