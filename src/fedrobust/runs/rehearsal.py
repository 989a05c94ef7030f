"""Try a user's objective and the evaluation before the first round, so that no round is lost."""

import torch
from torch import nn

from fedrobust.clients.local_training import LocalTraining
from fedrobust.compute.network import differentiable, evaluating
from fedrobust.compute.parameters import write
from fedrobust.config.fingerprint import foreign
from fedrobust.config.text import shortened
from fedrobust.data import Split
from fedrobust.errors import ConfigError, UndifferentiableError, UserError
from fedrobust.evaluation.accuracy import admissible
from fedrobust.experiment import Evaluation
from fedrobust.objectives import LossContext, asked
from fedrobust.perturb import Apgd, Fab, Perturbation, Pgd
from fedrobust.typing import Images, Labels, Vector

SIGNATURES = (
    "perturbed(examples, round), draw(x, generator), maximize(model, x, y, draw, *, batch) and, "
    "optionally, loss(model, x, perturbed, y, context)"
)


def rehearse(model: nn.Module, evaluation: Evaluation, split: Split, start: Vector) -> None:
    """Try the evaluation on two examples, so that it does not fail after rounds of training.

    Raises: ``ConfigError`` where it fails.
    """
    first = torch.arange(min(2, len(split)))
    x, y = split.images(first).to(start), split.y[first].to(start.device)
    write(model, start)
    attacks = {"evaluation.attack": evaluation.attack} | {
        f"evaluation.test_attacks.{name}": attack
        for name, attack in evaluation.test_attacks.items()
    }
    climbs = [name for name, attack in attacks.items() if isinstance(attack, Pgd | Apgd | Fab)]
    if evaluation.wasserstein is not None:
        climbs.append("evaluation.wasserstein")
    if climbs and not differentiable(model, x):
        raise UndifferentiableError(
            f"no gradient reaches the model's input, so {climbs[0]} finds nothing: "
            "evaluate with square, which needs none, and without wasserstein"
        )
    for name, attack in attacks.items():
        if foreign(attack):
            _try(name, attack, model, x, y)


def rehearse_objective(local: LocalTraining, start: Vector) -> None:
    """Try a user's own objective on a batch of the first client, in round 1.

    Raises: ``ConfigError`` where it fails, or where its loss is not finite.
    """
    objective, index = local.objective, local.clients[0][: local.config.batch_size]
    if not foreign(objective):
        return
    name = type(objective).__name__
    x, y = local.data.images(index).to(start), local.data.y[index].to(start.device)
    write(local.model, start)
    try:
        k, points = asked.count(objective, len(y), 1), x.clone()
        if k:
            draw = asked.draws(objective, [x[:k]], [torch.Generator().manual_seed(0)])
            with evaluating(local.model):
                points[:k] = asked.points(objective, local.model, x[:k], y[:k], draw, len(x))
        local.model.train()
        slope = asked.gradient(objective, local.model, x, points, y, LossContext(1, k))
    except UserError:
        raise
    except Exception as error:  # a user's own objective may fail in any way
        reason = shortened(f"{type(error).__name__}: {error}", 300)
        raise ConfigError(
            f"the objective {name} fails on a first batch: {reason}. Its methods are {SIGNATURES}"
        ) from error
    if not slope.isfinite().all():
        raise ConfigError(
            f"the loss of the objective {name} has no finite gradient on a first batch, at the "
            "initial parameters"
        )


def _try(name: str, attack: Perturbation, model: nn.Module, x: Images, y: Labels) -> None:
    """Play a user's own attack. Raises: ``ConfigError`` where it fails."""
    source = torch.Generator().manual_seed(0)
    try:
        with evaluating(model):
            moved = attack.maximize(
                model, x.clone(), y.clone(), lambda: attack.draw(x.clone(), source), batch=len(x)
            )
            admissible(moved, x, attack)
    except UserError:
        raise
    except Exception as error:  # a user's own attack may fail in any way
        reason = shortened(f"{type(error).__name__}: {error}", 300)
        raise ConfigError(f"{name} fails on two examples: {reason}") from error
