"""A backend on a Ray cluster: a unit of local training is a task, which any worker can do."""

import pickle
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch

from fedrobust.aggregators.checks import finite_rows
from fedrobust.clients.local_training import LocalTraining
from fedrobust.clients.poisoning import Poisons
from fedrobust.clients.turn import OptimizerState
from fedrobust.cluster.arrays import Sent, received, sent
from fedrobust.cluster.connect import connected
from fedrobust.cluster.machine import of_another_kind
from fedrobust.cluster.posted import Posted, cannot_be_sent, pickled
from fedrobust.cluster.probe import Node, alike
from fedrobust.cluster.workers import Workers, fetched, gather
from fedrobust.compute.execution import Execution, default_device, processor
from fedrobust.compute.randomness import Streams, isolated
from fedrobust.compute.units import shared_by
from fedrobust.data import Split
from fedrobust.errors import ConfigError, ResourceError
from fedrobust.federation.elsewhere import Elsewhere
from fedrobust.federation.ray_columns import Part, RayColumns, widths_of
from fedrobust.federation.state import Federation, FederationState
from fedrobust.typing import Updates, Vector

_MOST = 2**30
"""The bytes in the object store after which all that is kept of clients is fetched."""


@dataclass
class Ray:
    """Local training on the workers of a cluster, with the bits of :data:`LOCAL`.

    The data go to each machine once, the parameters once a round. What is kept of a client stays
    where it was computed until :meth:`settle`, which must be called before the connection ends and
    before another backend goes on. If a worker or a machine is lost, its tasks begin again on
    others. Where the plan has a ``block``, rows too stay there, in blocks of so many coordinates,
    until the server asks for a block.
    """

    workers: Workers
    _posted: tuple[LocalTraining, Posted] | None = None
    _held: list[Any] = field(default_factory=list)
    _bytes: int = 0

    def local_updates(
        self,
        federation: Federation,
        state: FederationState,
        clients: Sequence[int],
        rng: Streams,
        poison: dict[int, Poisons],
    ) -> Updates | RayColumns:
        """Train each unit of clients in a task of its own; rows are in the order of clients."""
        import ray

        if federation.graph:
            raise ConfigError("rounds on Ray have no autograd history: use the backend LOCAL")
        if self._bytes > _MOST:
            self.settle(state)
        local, parameters, number = federation.local, state.parameters, state.round + 1
        posted = self._post(local)
        theta = self._hold(ray.put(Sent.of(parameters)), parameters.nbytes)
        block = self.workers.plan.block
        widths = () if block is None else widths_of(len(parameters), block)
        rows = parameters.new_empty(0 if widths else len(clients), len(parameters))
        place = {client: i for i, client in enumerate(clients)}
        finite = [True] * len(clients)
        stays = local.config.keep_optimizer and local.own is None
        units, tasks = local.units(clients, number), list[list[Any]]()
        poisons = [_packed({c: poison[c] for c in unit if c in poison}) for unit in units]

        def started() -> Iterator[list[Any]]:
            for unit, bad in zip(units, poisons, strict=True):
                kept = [self._reference(state.store.get(client)) for client in unit]
                returns = 1 + len(widths) + (len(unit) if stays else 0)
                given = (unit, theta, rng, number, bad, stays, widths, *kept)
                tasks.append(posted.start(*given, returns=returns))
                yield tasks[-1]

        def take(i: int, answer: _Answer) -> None:
            for client, fit in zip(units[i], answer.finite, strict=True):
                finite[place[client]] = fit
            if answer.rows is not None:
                for client, row in zip(units[i], answer.rows.tensor(), strict=True):
                    rows[place[client]] = row
            for j, (client, kept) in enumerate(zip(units[i], answer.kept, strict=True)):
                if kept is None:
                    state.store.pop(client, None)
                elif stays:
                    state.store[client] = Elsewhere(tasks[i][1 + len(widths) + j])
                    self._bytes += answer.bytes
                else:
                    state.store[client] = received(kept, local.device)

        gather(posted, started(), take)
        if not widths:
            return rows
        parts = [
            Part(tuple(place[client] for client in unit), tuple(task[1 : 1 + len(widths)]))
            for unit, task in zip(units, tasks, strict=True)
        ]
        return RayColumns(parts, widths, finite, rows)

    def settle(self, state: FederationState) -> None:
        """Fetch what is kept of clients into ``state``: a checkpoint holds it.

        Ray computes a lost object again, from those that it was made of. So these are kept, and
        what was computed from them is at most as old as the last call.
        """
        away = {client: kept for client, kept in state.store.items() if isinstance(kept, Elsewhere)}
        found = fetched([kept.ref for kept in away.values()])
        for client, kept in zip(away, found, strict=True):
            state.store[client] = received(kept, state.parameters.device)
        self._held.clear()
        self._bytes = 0

    def _post(self, local: LocalTraining) -> Posted:
        if self._posted is None or self._posted[0] is not local:
            training = _Training.of(local, self.workers.plan)
            data = (training.x, training.y, training.clients)
            self._posted = local, self.workers.post(training, shared=data)
        return self._posted[1]

    def _reference(self, kept: OptimizerState | None) -> Any:
        """Return what is kept of a client as a reference; None for a client without any."""
        import ray

        if kept is None:
            return None
        if isinstance(kept, Elsewhere):
            return kept.ref
        size = sum(value.nbytes for value in kept.values() if isinstance(value, torch.Tensor))
        return self._hold(ray.put(sent(kept)), size)

    def _hold(self, ref: Any, size: int) -> Any:
        self._held.append(ref)
        self._bytes += size
        return ref


def _packed(poison: dict[int, Poisons]) -> bytes | None:
    """Return what poisons the data of a unit's clients as bytes; None where nothing does.

    A worker finds a user's own module only after it has opened the work that names its folder.
    """
    return pickled(poison) if poison else None


@contextmanager
def on_ray(
    execution: Execution | str | None = None, *, other_processor: bool = False
) -> Iterator[Ray]:
    """Connect to a Ray cluster; yield the backend that trains there, for ``run_round``.

    ``execution`` is the plan, or only the ``address`` of the cluster as the plan has it. With
    ``other_processor`` the workers may have another kind of processor than this machine.

    Raises: ``ConfigError`` and ``ResourceError`` where there is no cluster, or it does not fit.
    """
    if not isinstance(execution, Execution):
        execution = Execution(backend="ray", address=execution)
    plan = replace(execution, device=execution.device or default_device())
    with connected(plan.address, otherwise="use execution.backend: local"):
        here, there = processor("cpu"), alike()
        _require_places(plan, [each.node for each in there])
        for each in there:
            if each.processor != here and not other_processor and plan.device == "cpu":
                raise ResourceError(of_another_kind(each.node.name, each.processor, here))
        yield Ray(Workers(plan, other_processor))


def _require_places(plan: Execution, there: Sequence[Node]) -> None:
    """Check that some node can do a task, which would wait for ever. Raises: ``ResourceError``."""
    if plan.device == "cuda" and not any(node.gpus for node in there):
        raise ResourceError(
            "no node of the Ray cluster offers a GPU: add one, or use execution.device: cpu"
        )
    if plan.device == "cpu" and not any(node.cpus for node in there):
        raise ResourceError("no node of the Ray cluster offers a core: start one with cores")


@dataclass(frozen=True)
class _Answer:
    """The rows of a unit's clients, whether each is ``finite``, and what is kept of each.

    ``rows`` is None where they are answers of their own, one for each block of coordinates. If what
    is kept stays in the object store, ``kept`` only says whether there is any, and ``bytes`` how
    much it is for one client.
    """

    rows: Sent | None
    finite: list[bool]
    kept: list[dict[str, Any] | None]
    bytes: int = 0


@dataclass(frozen=True)
class _Training:
    """Local training as it is sent to workers: ``local`` without its data, which lie beside it."""

    local: LocalTraining
    x: Sent
    y: Sent
    clients: Sent
    sizes: tuple[int, ...]
    plan: Execution

    @classmethod
    def of(cls, local: LocalTraining, plan: Execution) -> "_Training":
        """Return the training of all clients, from the CPU."""
        cpu = torch.device("cpu")
        try:
            model = deepcopy(local.model).to(cpu)
        except Exception as error:  # a user's module may refuse in any way
            raise cannot_be_sent(error) from error
        bare = replace(
            local,
            model=model,
            data=Split(torch.empty(0), torch.empty(0)),
            clients=(),
            own=None if local.own is None else local.own.to(cpu),
        )
        indices = torch.cat([torch.as_tensor(part) for part in local.clients])
        sizes = tuple(len(part) for part in local.clients)
        data = local.data
        return cls(bare, Sent.of(data.x), Sent.of(data.y), Sent.of(indices), sizes, plan)

    @cached_property
    def task(self) -> LocalTraining:
        """The training on this worker, on the data where they lie."""
        local = self.local
        found = replace(
            local,
            model=local.model.to(local.device).train(),
            data=Split(self.x.tensor(), self.y.tensor()),
            clients=torch.split(self.clients.tensor(), list(self.sizes)),
            own=None if local.own is None else local.own.to(local.device),
        )
        object.__setattr__(self, "local", None)
        return found

    def __call__(
        self,
        unit: Sequence[int],
        theta: Sent,
        streams: Streams,
        round: int,
        poison: bytes | None,
        stays: bool,
        widths: tuple[int, ...],
        *kept: dict[str, Any] | None,
    ) -> "_Answer | tuple[Any, ...]":
        """Train the clients of a unit; return their rows, and what is kept of each."""
        with self.plan.active(), shared_by(1):
            task = self.task
            parameters: Vector = theta.tensor().to(task.device, copy=True)
            store = {
                client: received(state, task.device)
                for client, state in zip(unit, kept, strict=True)
                if state is not None
            }
            bad = {} if poison is None else pickle.loads(poison)
            # A worker sees only some clients, so it never concludes that a part does not draw.
            with isolated():
                found = task.trained(task.model, parameters, store, unit, streams, round, bad)
                rows, states = zip(*found, strict=True)
            answers = [None if state is None else sent(state) for state in states]
            matrix = torch.stack(rows)
            finite = finite_rows(matrix)
            blocks = (
                [Sent.of(part) for part in torch.split(matrix, list(widths), dim=1)]
                if widths
                else []
            )
            whole = None if widths else Sent.of(matrix)
        if not stays:
            answer = _Answer(whole, finite, answers)
            return (answer, *blocks) if blocks else answer
        sizes = [
            sum(len(value.bytes) for value in answer.values() if isinstance(value, Sent))
            for answer in answers
            if answer
        ]
        told: list[dict[str, Any] | None] = [None if each is None else {} for each in answers]
        return _Answer(whole, finite, told, max(sizes, default=0)), *blocks, *answers
