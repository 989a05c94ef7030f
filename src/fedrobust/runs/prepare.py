"""From an experiment to a federation that is ready to play: data, clients, network, plan."""

import hashlib
import math
from dataclasses import dataclass, replace

import torch
from torch import nn

from fedrobust.config import arguments
from fedrobust.federation.attack import Attack, poisons, requirements
from fedrobust.federation.one_step import backend_for
from fedrobust.clients.local_training import LocalTraining
from fedrobust.data import Dataset, Partition, Split
from fedrobust.data.dataset import loaded
from fedrobust.data.sharing import shared_out
from fedrobust.errors import ConfigError
from fedrobust.compute.execution import Execution
from fedrobust.compute.memory import require_memory
from fedrobust.experiment import Experiment
from fedrobust.federation.backends import LOCAL, Backend
from fedrobust.federation.state import Federation
from fedrobust.compute.parameters import Layout, read
from fedrobust.models import build_model
from fedrobust.objectives import settled
from fedrobust.config.fingerprint import foreign
from fedrobust.compute.own_draws import own_draws
from fedrobust.runs.rehearsal import rehearse
from fedrobust.federation.server import rooted
from fedrobust.compute.randomness import Streams, drawing
from fedrobust.typing import Indices, Vector


@dataclass(frozen=True)
class Prepared:
    """Everything that a run needs. ``experiment`` has its execution plan filled in.

    ``held_out`` are the examples that choose the round, ``test`` those read once at the end, as
    indices into ``chooses`` and ``dataset.test``. ``gamma`` is the price of the certificate, ∞
    where none is asked for. ``digest`` identifies data and start.
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
    digest: str

    @property
    def model(self) -> nn.Module:
        """The network that training works in."""
        return self.federation.local.model

    @property
    def plan(self) -> Execution:
        """How it is computed here."""
        return self.experiment.execution


def prepare(experiment: Experiment, plan: Execution | None = None) -> Prepared:
    """Load, split, partition, build and check; nothing is trained and nothing is written.

    ``plan`` is the execution plan of a run that is resumed.

    Raises: ``ConfigError`` for settings that do not fit the data, ``DataError`` for the data,
    ``ResourceError`` for a run that this machine cannot hold.
    """
    streams = Streams(experiment.seed)
    with own_draws(foreign(experiment.data), streams, "data"):
        dataset = loaded(experiment.data)
    _require_pixels(experiment, dataset)
    train, validation = dataset.hold_out(streams.generator("validation"))
    objective = settled(experiment.objective, train)
    check = experiment.evaluation.wasserstein
    gamma = math.inf if check is None else check.price(objective, train)
    train, root = _root_set(train, experiment.server.root, streams.generator("root"))
    partition = shared_out(experiment.partition, train, dataset.test, streams)
    clients = len(partition.train)
    try:
        experiment.require_clients(clients)
    except ValueError as error:
        raise ConfigError(str(error)) from error

    model = build_model(
        experiment.model, dataset.shape, dataset.classes, streams.generator("initial parameters")
    )
    layout = Layout.of(model)
    with own_draws(foreign(experiment.server.projection), streams, "projection"):
        start = experiment.server.inside(read(model))
    ascent = getattr(objective, "ascent", None)
    if experiment.execution.precision == "bfloat16" and getattr(ascent, "searches", False):
        raise ConfigError(
            "objective.ascent: one that searches its step, or ends by a tolerance, needs "
            "execution.precision float32"
        )
    resolved = (plan or experiment.execution).resolve(model, dataset.shape, dataset.classes)
    device = torch.device(resolved.device or "cpu")
    require_memory(
        memory_needed(experiment, clients, layout.size * start.element_size()),
        device.type,
        f"{experiment.participation.size(clients)} clients a round × {layout.size:,} parameters",
    )

    order = torch.randperm(clients, generator=streams.generator("malicious clients")).tolist()
    malicious = frozenset(order[: experiment.malicious])
    if experiment.threat.classes is not None:
        draw = streams.generator("classes of malicious clients")
        partition = partition.limited(malicious, experiment.threat.classes, train.y, draw)
    local = LocalTraining(
        model=model.to(device),
        data=train,
        classes=dataset.classes,
        clients=partition.train,
        objective=objective,
        config=experiment.client,
        batch=resolved.batch or 1,
        device=device,
        low_precision=resolved.precision == "bfloat16",
    )
    backend = _backend(local, resolved, experiment.attack)
    resolved = replace(resolved, gradients="autograd" if backend is LOCAL else "compiled")
    experiment = replace(experiment, execution=resolved)
    known = order[experiment.malicious :][: experiment.threat.data]
    federation = Federation(
        local=local,
        participation=experiment.participation,
        malicious=malicious,
        attack=experiment.attack if experiment.malicious else None,
        threat=experiment.threat,
        aggregator=experiment.aggregator,
        server=experiment.server,
        known=tuple(sorted(known)),
        root=replace(local, data=root, clients=(torch.arange(len(root)),)) if len(root) else None,
    )
    if partition.users is not None and validation.user is not None:
        members = torch.isin(validation.user, torch.tensor(partition.users))
        validation = validation.take(members.nonzero()[:, 0])
    chooses = validation if experiment.evaluation.split == "validation" else train
    if len(chooses) == 0:
        raise ConfigError(
            "evaluation.split is validation, but no example of these clients is held out: "
            "raise data.validation"
        )
    evaluation = experiment.evaluation
    with resolved.active(), drawing(0):
        rehearse(model, evaluation, chooses, start.to(device))
    return Prepared(
        experiment=experiment,
        dataset=dataset,
        partition=partition,
        federation=federation,
        backend=backend,
        layout=layout,
        start=start.to(device),
        chooses=chooses,
        held_out=_some(len(chooses), evaluation.samples, streams.generator("held-out examples")),
        test=_some(len(dataset.test), evaluation.test_samples, streams.generator("test examples")),
        gamma=gamma,
        streams=streams,
        notes=(
            *dataset.notes,
            *partition.notes,
            *getattr(objective, "notes", ()),
            *_notes(experiment, len(chooses)),
        ),
        digest=_digest(dataset, start)
        + _parts(partition if foreign(experiment.partition) else None),
    )


def _backend(local: LocalTraining, plan: Execution, attack: Attack | None) -> Backend:
    """What the plan asks for, else the fastest. Raises: ``ConfigError`` where it does not serve."""
    if plan.gradients == "autograd":
        return LOCAL
    found = backend_for(local, poisons=poisons(attack))
    if plan.gradients == "compiled" and found is LOCAL:
        raise ConfigError(
            "execution.gradients: compiled serves small networks of linear layers and ELU on a "
            "CPU, objectives erm and wasserstein-dro, one batch of plain SGD a round, and no "
            "poisoned data; use autograd or leave it out"
        )
    return found


def _root_set(train: Split, wanted: int | None, generator: torch.Generator) -> tuple[Split, Split]:
    """What is left for the clients, and the ``wanted`` random examples that the server holds."""
    if wanted is not None and wanted >= len(train):
        raise ConfigError(
            f"server.root: {wanted:,} examples for the server leave none of {len(train):,} "
            "for the clients"
        )
    order = torch.randperm(len(train), generator=generator)
    root, rest = order[: wanted or 0].sort().values, order[wanted or 0 :].sort().values
    return (train.take(rest) if wanted else train), train.take(root)


def _notes(experiment: Experiment, held_out: int) -> list[str]:
    """What is allowed, but may not be what was meant."""
    notes = []
    f, malicious = getattr(experiment.aggregator, "f", None), experiment.malicious
    if isinstance(f, int) and malicious > f:
        notes.append(f"{malicious} clients are malicious, but the rule tolerates f = {f}")
    if experiment.server.root and not rooted(experiment.aggregator):
        notes.append("server.root is set, but the rule makes no use of the server's own update")
    if experiment.attack is not None and malicious == 0:
        notes.append("an attack is configured, but malicious is 0: nobody attacks")
    if experiment.attack is not None and malicious:
        begins = requirements(experiment.attack).first_round
        if begins > experiment.rounds:
            notes.append(
                f"the attack cannot act before round {begins}, and the run ends with round "
                f"{experiment.rounds}: nobody attacks"
            )
    wanted = experiment.evaluation.samples
    if wanted is not None and wanted > held_out:
        notes.append(f"evaluation.samples is {wanted:,}, but {held_out:,} examples are held out")
    return notes


def _require_pixels(experiment: Experiment, dataset: Dataset) -> None:
    """Raises: ``ConfigError`` where an attack would clip data that are no pixels to [0, 1]."""
    for path in ("objective", "evaluation"):
        attack = getattr(getattr(experiment, path), "attack", None)
        for x in (dataset.train.x, dataset.test.x):
            try:
                if getattr(attack, "box", False) and x.is_floating_point():
                    arguments.pixels(x)
            except ValueError as error:
                raise ConfigError(f"{path}.attack: {error}") from error


def memory_needed(experiment: Experiment, clients: int, vector: int) -> int:
    """The bytes of a round's n updates and of the optimiser states that are kept.

    ``vector`` are the bytes of one parameter vector. Updates count twice, once as they arrive and
    once for what the attack and the rule work with, and once more where the attack sees the benign
    ones. Optimiser states are kept for clients that have taken part.
    """
    n = experiment.participation.size(clients)
    rows = n * (3 if experiment.threat.benign else 2)
    kept = min(clients, n * experiment.rounds) if experiment.client.keep_optimizer else 1
    states = kept * experiment.client.optimizer.slots()
    history = requirements(experiment.attack).history if experiment.attack is not None else 0
    return vector * (rows + states + 2 * history + 8)


def _some(total: int, wanted: int | None, generator: torch.Generator) -> Indices:
    """``wanted`` of ``total`` examples at random, in rising order; all of them for None."""
    if wanted is None or wanted >= total:
        return torch.arange(total)
    return torch.randperm(total, generator=generator)[:wanted].sort().values


def _parts(own: Partition | None) -> str:
    """What a user's own partition gave, in 8 hexadecimal digits; nothing of fedrobust's."""
    if own is None:
        return ""
    digest = hashlib.sha256()
    for part in (*own.train, *own.test):
        digest.update(part.numpy().tobytes() + b"|")
    return digest.hexdigest()[:8]


def _digest(dataset: Dataset, start: Vector) -> str:
    """What the data and the initial parameters are, in 16 hexadecimal digits."""
    digest = hashlib.sha256()
    for split in (dataset.train, dataset.test):
        for tensor in (split.x, split.y, split.user):
            if tensor is not None:
                digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().data)
    digest.update(start.cpu().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]
