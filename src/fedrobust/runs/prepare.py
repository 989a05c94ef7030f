"""Turn an experiment into a federation that is ready to play: data, clients, network, plan."""

from dataclasses import dataclass, replace

import torch
from torch import nn

from fedrobust.clients.cohort import unsupported
from fedrobust.clients.local_training import LocalTraining
from fedrobust.compute.execution import Execution, Gradients
from fedrobust.compute.own_draws import own_draws
from fedrobust.compute.parameters import Layout, read
from fedrobust.compute.randomness import Streams, drawing, isolated
from fedrobust.config.fingerprint import foreign
from fedrobust.data import Dataset, Partition, Split
from fedrobust.digest import digest
from fedrobust.errors import ConfigError
from fedrobust.experiment import Experiment
from fedrobust.federation.attack import Attack, poisons
from fedrobust.federation.backends import LOCAL, Backend
from fedrobust.federation.one_step import backend_for
from fedrobust.federation.state import Federation
from fedrobust.models import Treated, built
from fedrobust.runs.doubts import doubts
from fedrobust.runs.examples import Examples, examples
from fedrobust.runs.placing import require_place
from fedrobust.runs.rehearsal import rehearse, rehearse_objective
from fedrobust.runs.round_memory import require_blocks, require_round, require_together
from fedrobust.runs.shared_data import SharedData, shared_data
from fedrobust.typing import Indices, Vector


@dataclass(frozen=True)
class Prepared:
    """Everything that a run needs. ``experiment`` has its execution plan filled in.

    ``held_out`` are the examples that choose the round, as indices into ``chooses``. ``test`` are
    the examples that are read once at the end, as indices into ``dataset.test``. Where each client
    has a model of its own, ``held_by`` and ``test_by`` are the clients whose models answer them.
    ``gamma`` is the price of the certificate, ∞ without one. ``digest`` identifies data and initial
    parameters. ``notes`` say what was done with the data and the model, and ``doubts`` what may be
    a mistake. ``surrogates`` are the networks whose adversarial examples the audits try, on the
    run's device.
    """

    experiment: Experiment
    dataset: Dataset
    partition: Partition
    federation: Federation
    backend: Backend
    layout: Layout
    start: Vector
    chooses: Split
    held_out: Indices
    test: Indices
    gamma: float
    streams: Streams
    notes: tuple[str, ...]
    doubts: tuple[str, ...]
    digest: str
    surrogates: tuple[nn.Module, ...] = ()
    held_by: Indices | None = None
    test_by: Indices | None = None

    @property
    def model(self) -> nn.Module:
        """The network in which training runs."""
        return self.federation.local.model

    @property
    def choosing(self) -> Examples:
        """The examples that choose the round, with their owners."""
        return Examples(self.chooses, self.held_out, self.held_by)

    @property
    def testing(self) -> Examples:
        """The examples that are read once at the end, with their owners."""
        return Examples(self.dataset.test, self.test, self.test_by)

    @property
    def plan(self) -> Execution:
        """The execution plan on this machine."""
        return self.experiment.execution


def prepare(
    experiment: Experiment, plan: Execution | None = None, *, elsewhere: Backend | None = None
) -> Prepared:
    """Load, split, partition, build and check, without training or writing anything.

    ``plan`` is the execution plan of a run that is resumed. ``elsewhere`` is the backend of a real
    federation, where that plays the experiment.

    Raises: ``ConfigError`` for settings that do not fit the data, ``DataError`` for the data,
    ``ResourceError`` for a run that this machine cannot hold.
    """
    require_place(experiment, elsewhere)
    streams = Streams(experiment.seed)
    data = shared_data(experiment, streams)
    found, start = _network(experiment, data.dataset, streams)
    model = found.model
    plan = _resolved(experiment, plan, data, model)
    require_blocks(experiment, plan, data.clients, start)
    require_round(experiment, plan, data, found, start)
    local, root = _local_training(experiment, plan, data, found)
    backend = elsewhere or _backend(local, plan, experiment.attack)
    reason = _apart(local, plan) if backend is LOCAL else ""
    local = replace(local, together=reason is None)
    if local.together:
        require_together(experiment, plan, local, data.clients)
    gradients: Gradients = "vmap" if local.together else "autograd"
    compiled = backend is not LOCAL and elsewhere is None
    plan = replace(plan, gradients="compiled" if compiled else gradients)
    experiment = replace(experiment, execution=plan)
    federation = _federation(experiment, local, root, data)
    held_out, test = examples(experiment, data, streams, owned=local.own is not None)
    chooses, start = held_out.split, start.to(local.device)
    with plan.active(), drawing(0):
        local.require_batches()
        if root is not None:
            root.require_batches("the server")
        rehearse_objective(local, start)
        rehearse(model, experiment.evaluation, chooses, start)
    if local.own is not None:
        local.own.load(model)  # a rehearsal may have changed BatchNorm's statistics
    return Prepared(
        experiment=experiment,
        dataset=data.dataset,
        partition=data.partition,
        federation=federation,
        backend=backend,
        layout=Layout.of(model),
        start=start,
        chooses=chooses,
        held_out=held_out.index,
        test=test.index,
        held_by=held_out.owner,
        test_by=test.owner,
        gamma=data.gamma,
        streams=streams,
        notes=(*data.notes, *found.notes),
        doubts=(*found.doubts, *doubts(experiment, len(chooses)), *_slowly(reason)),
        digest=_digest(data.dataset, start, model) + _digest_of_own(experiment, data.partition),
    )


def _network(experiment: Experiment, dataset: Dataset, streams: Streams) -> tuple[Treated, Vector]:
    """Return the network, and the initial parameters of every run with this seed."""
    draw = streams.generator("initial parameters")
    shape, classes = dataset.shape, dataset.classes
    found = built(experiment.model, shape, classes, draw, batch_norm=experiment.batch_norm)
    with own_draws(foreign(experiment.server.projection), streams, "projection"):
        return found, experiment.server.inside(read(found.model))


def _resolved(
    experiment: Experiment, plan: Execution | None, data: SharedData, model: nn.Module
) -> Execution:
    """Return the plan for this machine. Raises: ``ConfigError`` where the ascent forbids it."""
    ascent = getattr(data.objective, "ascent", None)
    if experiment.execution.precision != "float32" and getattr(ascent, "searches", False):
        raise ConfigError(
            "objective.ascent: an ascent that searches its step, or ends by a tolerance, needs "
            "execution.precision float32"
        )
    plan = plan or experiment.execution
    return plan.resolve(model, data.dataset.shape, data.dataset.classes)


def _local_training(
    experiment: Experiment, plan: Execution, data: SharedData, found: Treated
) -> tuple[LocalTraining, LocalTraining | None]:
    """Return the training of the clients, and of the server where it holds data of its own."""
    device = torch.device(plan.device or "cpu")
    local = LocalTraining(
        model=found.model.to(device),
        data=data.train,
        classes=data.dataset.classes,
        clients=data.partition.train,
        objective=data.objective,
        config=experiment.client,
        batch=plan.batch or 1,
        device=device,
        precision=plan.precision,
        own=None if found.own is None else found.own.to(device),
    )
    if not len(data.root):
        return local, None
    return local, replace(local, data=data.root, clients=(torch.arange(len(data.root)),))


def _backend(local: LocalTraining, plan: Execution, attack: Attack | None) -> Backend:
    """Return the plan's backend, else the fastest. Raises: ``ConfigError`` if it does not fit."""
    if plan.gradients in ("autograd", "vmap"):
        return LOCAL
    found = backend_for(local, poisons=poisons(attack))
    if found is not LOCAL and plan.backend == "ray":
        raise ConfigError(
            "execution.backend: one call computes all clients of so small a network in less than a "
            "millisecond, and other machines would only slow it down: use backend local, or "
            "execution.gradients: autograd"
        )
    if plan.gradients == "compiled" and found is LOCAL:
        raise ConfigError(
            "execution.gradients: compiled needs a small network of linear layers and ELU on a "
            "CPU, the objective erm or wasserstein-dro, one batch of plain SGD a round, and no "
            "poisoned data; use autograd or leave it out"
        )
    return found


def _slowly(reason: str | None) -> list[str]:
    return [f"clients train one after another, which is slow on a GPU: {reason}"] if reason else []


def _apart(local: LocalTraining, plan: Execution) -> str | None:
    """Return why a unit's clients do not train as one batch; None where they do.

    The reason is empty where nobody asked for it. Raises: ``ConfigError`` where the plan asks for
    it, and they cannot.
    """
    if plan.gradients != "vmap" and (plan.gradients is not None or plan.device != "cuda"):
        return ""
    some = local.data.images(torch.arange(min(2, len(local.data))))
    some = some.to(next(local.model.parameters()))
    with plan.active(), isolated():
        reason = unsupported(local, local.model, some)
    if reason is not None and plan.gradients == "vmap":
        raise ConfigError(
            f"execution.gradients: vmap does not fit: {reason}; use autograd or leave it out"
        )
    return reason


def _federation(
    experiment: Experiment, local: LocalTraining, root: LocalTraining | None, data: SharedData
) -> Federation:
    """Return the federation in which the rounds are played."""
    return Federation(
        local=local,
        participation=experiment.participation,
        malicious=data.malicious,
        attack=experiment.attack if experiment.malicious else None,
        threat=experiment.threat,
        aggregator=experiment.aggregator,
        server=experiment.server,
        known=data.known,
        root=root,
        rounds=experiment.rounds,
    )


def _digest(dataset: Dataset, start: Vector, model: nn.Module) -> str:
    """Return 16 hexadecimal digits that identify the data and the initial parameters.

    Buffers and frozen parameters are among them, which are not in ``start``.
    """
    tensors = [t for split in (dataset.train, dataset.test) for t in (split.x, split.y, split.user)]
    fixed = (p for p in model.parameters() if not p.requires_grad)
    return digest(
        *(t for t in tensors if t is not None), start, *model.buffers(), *fixed, length=16
    )


def _digest_of_own(experiment: Experiment, partition: Partition) -> str:
    """Return 8 hexadecimal digits for a user's own partition; an empty text for fedrobust's."""
    if not foreign(experiment.partition):
        return ""
    return digest(
        *(p for part in (*partition.train, *partition.test) for p in (part, b"|")), length=8
    )
