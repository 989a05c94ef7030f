"""How much memory a round of an experiment needs; it is checked before the first round."""

import torch

from fedrobust.clients.local_training import LocalTraining
from fedrobust.compute.execution import Execution
from fedrobust.compute.memory import activations, require_memory
from fedrobust.compute.parameters import read
from fedrobust.experiment import Experiment
from fedrobust.federation.attack import requirements
from fedrobust.models import Treated
from fedrobust.runs.shared_data import SharedData
from fedrobust.typing import Vector


def memory_needed(experiment: Experiment, clients: int, vector: int, workers: int) -> int:
    """Return the bytes of a round's n updates and of the optimiser states that are kept.

    ``vector`` is the number of bytes of one parameter vector. Each worker has a network of its own,
    and one client's vectors; what clients that train together need comes on top. Updates count
    twice: once as they arrive, and once for the copies of the attack and the rule. They count once
    more where the attack sees the benign updates. Optimiser states are kept for clients that have
    taken part.
    """
    n = experiment.participation.size(clients)
    rows = n * (3 if experiment.threat.benign else 2)
    kept = min(clients, n * experiment.rounds) if experiment.client.keep_optimizer else 1
    states = kept * experiment.client.optimizer.slots()
    history = requirements(experiment.attack).history if experiment.attack is not None else 0
    return vector * (rows + states + 2 * history + 3 + 5 * workers)


def require_round(
    experiment: Experiment, plan: Execution, data: SharedData, found: Treated, start: Vector
) -> None:
    """Check that a round's updates and units of work fit into memory. Raises: ``ResourceError``."""
    size = experiment.participation.size(data.clients)
    device, count = plan.device or "cpu", plan.workers
    needed = memory_needed(experiment, data.clients, start.numel() * start.element_size(), count)
    if found.own is not None:  # after the last round, and after the chosen one
        each = sum(value.nbytes for value in found.own.initial.values())
        needed += 2 * each * min(data.clients, size * experiment.rounds)
    what = f"{size} clients a round × {start.numel():,} parameters"
    require_memory(
        needed, device, what, "fewer clients a round, a smaller model, or keep_optimizer: false"
    )
    images = data.train.images(torch.arange(min(2, len(data.train)))).to(start)
    batch = min(plan.batch or 1, len(data.train))
    require_memory(
        needed + count * batch * activations(found.model, images),
        device,
        f"each of {count} workers computes a unit of {batch:,} examples beside the updates",
        "a smaller execution.batch, or fewer execution.threads",
    )


def require_together(
    experiment: Experiment, plan: Execution, local: LocalTraining, clients: int
) -> None:
    """Check that the largest unit of clients that train together fits beside the updates.

    Each client has its parameters, gradient and temporary vectors of a step, a copy of its
    optimiser's state, and the activations of its batch. Raises: ``ResourceError``.
    """
    start = read(local.model)
    vector, count = start.numel() * start.element_size(), plan.workers
    size = experiment.participation.size(clients)
    largest = max(map(len, local.units(range(size), 1)))
    images = local.data.images(torch.arange(min(2, len(local.data)))).to(start)
    each = vector * (4 + experiment.client.optimizer.slots())
    each += experiment.client.batch_size * activations(local.model, images)
    require_memory(
        memory_needed(experiment, clients, vector, count) + count * largest * each,
        plan.device or "cpu",
        f"{largest} clients of {start.numel():,} parameters train together, for each of {count} "
        "workers",
        "a smaller execution.batch, or execution.gradients: autograd",
    )
