"""How much memory a round of an experiment needs; it is checked before the first round."""

from dataclasses import dataclass

import torch

from fedrobust.aggregators.in_blocks import works_in_blocks
from fedrobust.clients.local_training import LocalTraining
from fedrobust.compute.execution import Execution
from fedrobust.compute.memory import activations, require_memory
from fedrobust.compute.parameters import read
from fedrobust.experiment import Experiment
from fedrobust.federation.attack import requirements
from fedrobust.federation.columns import require_columns
from fedrobust.federation.ray_columns import widths_of
from fedrobust.models import Treated
from fedrobust.runs.shared_data import SharedData
from fedrobust.typing import Vector

_SMALL, _INLINE = 100 * 2**10, 10 * 2**20


def memory_needed(
    experiment: Experiment, clients: int, vector: int, workers: int, share: float = 1.0
) -> int:
    """Return the bytes of a round's n updates and of the optimiser states that are kept.

    ``vector`` is the number of bytes of one parameter vector, and ``share`` the part of its
    coordinates that the server holds of all updates at a time. Each worker has a network of its
    own, and one client's vectors; what clients that train together need comes on top. Updates count
    twice: once as they arrive, and once for the copies of the attack and the rule. They count once
    more where the attack sees the benign updates. Of updates that stay with the workers, one block
    of coordinates counts, three times: as it arrives, as a matrix, and beside the malicious rows.
    These are whole. Optimiser states are kept for clients that have taken part.
    """
    n = experiment.participation.size(clients)
    rows: float = n * (3 if experiment.threat.benign else 2)
    if share < 1:
        rows = n * 3 * share + 3 * min(n, experiment.malicious)
    kept = min(clients, n * experiment.rounds) if experiment.client.keep_optimizer else 1
    states = kept * experiment.client.optimizer.slots()
    history = requirements(experiment.attack).history if experiment.attack is not None else 0
    return int(vector * (rows + states + 2 * history + 3 + 5 * workers))


def require_blocks(experiment: Experiment, plan: Execution, clients: int, start: Vector) -> None:
    """Check that rounds can be played in blocks of coordinates, where the plan asks for it.

    Raises: ``ConfigError`` for a rule or an attack that needs whole updates of all clients.
    """
    if plan.block is None:
        return
    widths_of(len(start), plan.block)
    require_columns(
        experiment.aggregator,
        _Shape(experiment.participation.size(clients), len(start), start.dtype),
        experiment.attack is not None and experiment.malicious > 0,
        experiment.threat,
    )


@dataclass(frozen=True)
class _Shape:
    n: int
    d: int
    dtype: torch.dtype


def _share(plan: Execution, vector: int, itemsize: int) -> float:
    """Return the part of the updates that the server holds at a time.

    Ray keeps answers of less than 100 KiB with the server, up to 10 MiB of each task.
    """
    if plan.block is None:
        return 1.0
    block = plan.block * itemsize
    return min(1.0, max(block, _INLINE if block < _SMALL else 0) / vector)


def require_round(
    experiment: Experiment, plan: Execution, data: SharedData, found: Treated, start: Vector
) -> None:
    """Check that a round's updates and units of work fit into memory. Raises: ``ResourceError``."""
    size = experiment.participation.size(data.clients)
    device, count = plan.device or "cpu", plan.workers
    vector = start.numel() * start.element_size()
    share = _share(plan, vector, start.element_size())
    needed = memory_needed(experiment, data.clients, vector, count, share)
    if found.own is not None:  # after the last round, and after the chosen one
        each = sum(value.nbytes for value in found.own.initial.values())
        needed += 2 * each * min(data.clients, size * experiment.rounds)
    what = f"{size} clients a round × {start.numel():,} parameters"
    cure = "fewer clients a round, a smaller model, or keep_optimizer: false"
    if plan.block is not None:
        what += f", of which {plan.block:,} at a time"
        cure = f"a smaller execution.block, {cure}"
    elif plan.backend == "ray" and works_in_blocks(type(experiment.aggregator)):
        cure = f"execution.block, {cure}"
    require_memory(needed, device, what, cure)
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
    share = _share(plan, vector, start.element_size())
    size = experiment.participation.size(clients)
    largest = max(map(len, local.units(range(size), 1)))
    images = local.data.images(torch.arange(min(2, len(local.data)))).to(start)
    each = vector * (4 + experiment.client.optimizer.slots())
    each += experiment.client.batch_size * activations(local.model, images)
    require_memory(
        memory_needed(experiment, clients, vector, count, share) + count * largest * each,
        plan.device or "cpu",
        f"{largest} clients of {start.numel():,} parameters train together, for each of {count} "
        "workers",
        "a smaller execution.batch, or execution.gradients: autograd",
    )
