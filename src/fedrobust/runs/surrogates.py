"""Train the auditor's own models, whose adversarial examples are tried on the audited model."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

from torch import nn

from fedrobust.clients.client import Client
from fedrobust.clients.optimizers import Adam
from fedrobust.compute.execution import OF_NO_BIT
from fedrobust.config.component import to_config
from fedrobust.data.dataset import loaded
from fedrobust.data.datasets import Npz
from fedrobust.data.partition import Iid
from fedrobust.digest import digest
from fedrobust.experiment import Evaluation, Experiment
from fedrobust.files import held
from fedrobust.models import BatchNorm
from fedrobust.objectives import ERM, Adversarial, Objective
from fedrobust.perturb import Pgd
from fedrobust.perturb.geometry import Norm
from fedrobust.progress import Progress

ROUNDS, STEPS = 200, 10

Train: TypeAlias = Callable[[Experiment, Path, Progress], nn.Module]
"""Play an experiment in a folder, from its last checkpoint if there is one; return its model."""


def surrogates(
    data: Any,
    network: Any,
    *,
    eps: float,
    norm: Norm,
    cache: Path,
    train: Train,
    progress: Progress,
    batch_norm: BatchNorm = "refuse",
) -> list[nn.Module]:
    """Train ``network`` on ``data`` twice: plainly, and adversarially in the ball of ``eps``.

    Both are ordinary runs of one client, 2,000 batches of 128 with Adam. They are kept in ``cache``
    under a digest of their config: an interrupted run goes on, and a finished run is read. Where
    another process trains the same network, this one waits for it.
    Adversarial training is Madry's: PGD of ten steps moves every example of a batch.

    ``train`` plays one of them. ``batch_norm`` treats the BatchNorm layers of ``network``.

    Raises: the ``UserError`` whose type fits the fault.
    """
    content = _content(data)
    pgd = Pgd(eps=eps, step_size=eps / 4, steps=10, norm=norm)
    kinds: dict[str, Objective] = {"natural": ERM(), "robust": Adversarial(attack=pgd, ratio=1.0)}
    found = []
    for name, objective in kinds.items():
        experiment = Experiment(
            name=f"surrogate-{name}",
            rounds=ROUNDS,
            data=data,
            partition=Iid(clients=1),
            model=network,
            batch_norm=batch_norm,
            objective=objective,
            client=Client(
                batch_size=128, batches=STEPS, optimizer=Adam(lr=1e-3), keep_optimizer=True
            ),
            evaluation=Evaluation(attack=pgd, every=ROUNDS, samples=200, test_samples=200),
        )
        config = to_config(experiment)
        # Networks from before there were these fields are found again.
        for key in set(OF_NO_BIT) - {"threads"}:
            del config["execution"][key]
        if batch_norm == "refuse":
            del config["batch_norm"]
        config["data"] |= content
        text = json.dumps(config, sort_keys=True)
        place = cache / f"{name}-{digest(text, length=16)}"
        with held(cache, "", wait=True):
            found.append(train(experiment, place, progress.part(name)))
    return found


def _content(data: Any) -> dict[str, str]:
    """Return what must be known of a user's own file besides its path, which may lead elsewhere.

    Raises: ``DataError``.
    """
    if not isinstance(data, Npz):
        return {}
    found = loaded(data)
    parts = [part for split in (found.train, found.test) for part in (split.x, split.y)]
    return {"content": digest(*(x for part in parts for x in (str(part.shape), part)), length=16)}
