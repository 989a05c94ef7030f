"""Measure a run's model on its held-out examples and on its test examples."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import numpy as np
import torch

from fedrobust.compute.network import answers, batched_logits, evaluating
from fedrobust.compute.randomness import drawing
from fedrobust.evaluation.accuracy import Scores, admissible, no_points, score
from fedrobust.evaluation.auditing.in_training import Auditing
from fedrobust.federation.attack import Truth, account, initial_state
from fedrobust.perturb import Perturbation, Pgd
from fedrobust.perturb.geometry import per_example
from fedrobust.records.plain import attack_report
from fedrobust.runs.examples import Examples
from fedrobust.runs.prepare import Prepared
from fedrobust.runs.weights import Weights
from fedrobust.typing import Indices, Json

EVALUATION = "evaluation.attack"
"""The name of the evaluation's own attack beside the further attacks on the test split."""
STRIP = 8
"""How many clean and adversarial images a report shows."""


def on_held_out(run: Prepared, weights: Weights, round: int) -> Json:
    """Return the scores that choose a round, with scores by user where the data has users."""
    scores = _scores(run, weights, run.choosing, "evaluation", round)
    content: Json = {
        "accuracy": scores.accuracy,
        "robust_accuracy": scores.robust_accuracy,
        "loss": _finite(scores.mean_loss),
        "examples": len(run.choosing.index),
        "split": run.experiment.evaluation.split,
    } | _odd(scores)
    check = run.experiment.evaluation.wasserstein
    if check is not None:
        x, y = _examples(run, run.choosing)
        content["wasserstein"] = check.certify(run.model, x, y, run.gamma, run.plan.batch or 1)
    if run.choosing.split.user is not None:
        users = run.choosing.split.user[run.choosing.index]
        groups = {int(u): (users == u).nonzero()[:, 0] for u in torch.unique(users)}
        content["per_user"] = by_group(scores, groups)
    return content


def on_test(run: Prepared, weights: Weights, round: int) -> Json:
    """Return the scores on the test split, and the scores of each client on its own part of it.

    ``clients`` holds the mean over the clients weighted by their test examples, as FAT reports it.
    ``training_wasserstein`` is the certificate on training examples, whose distribution DRFL means.
    """
    scores = _scores(run, weights, run.testing, "test", round)
    parts = _parts(run)
    content: Json = {
        "round": round,
        "accuracy": scores.accuracy,
        "robust_accuracy": scores.robust_accuracy,
        "loss": _finite(scores.mean_loss),
        "examples": len(run.testing.index),
    } | _odd(scores)
    content |= _under(run, weights, round)
    check = run.experiment.evaluation.wasserstein
    if check is not None:
        x, y = _examples(run, run.testing)
        batch = run.plan.batch or 1
        content["wasserstein"] = check.certify(run.model, x, y, run.gamma, batch, classes=True)
        some = run.testing.some(check.samples, run.streams)
        content["shift"] = check.shift(run.model, *_examples(run, some), batch)
        x, y = _examples(run, _of_training(run, check.samples or len(run.testing.index)))
        content["training_wasserstein"] = check.certify(run.model, x, y, run.gamma, batch)
    if parts:
        everyone = torch.cat(list(parts.values()))
        content["clients"] = {
            "examples": len(everyone),
            "accuracy": scores.correct[everyone].double().mean().item(),
            "robust_accuracy": scores.robust[everyone].double().mean().item(),
        }
        content["per_client"] = by_group(scores, parts)
    return content


def audit_held_out(run: Prepared, round: int) -> Json:
    """Return the audit, if one is due, of the model that :func:`on_held_out` has just scored."""
    evaluation = run.experiment.evaluation
    asked = evaluation.audit
    if asked is None or not (round == run.experiment.rounds or evaluation.audit_due(round)):
        return {}
    return _audited(run, asked, run.choosing.some(asked.samples, run.streams))


def audit_test(run: Prepared) -> Json:
    """Return the audit, if one is asked for, of the model that :func:`on_test` has just scored."""
    asked = run.experiment.evaluation.audit
    if asked is None:
        return {}
    some = run.testing.some(asked.test_samples or asked.samples, run.streams)
    return _audited(run, asked, some)


def _of_training(run: Prepared, count: int) -> Examples:
    """Return ``count`` training examples, drawn at random from all clients' data."""
    data = run.federation.local.data
    return Examples(data, torch.arange(len(data))).some(count, run.streams)


def _parts(run: Prepared) -> dict[int, Indices]:
    """Return the places of each client's own part among the test examples."""
    test = run.testing
    if test.owner is not None:
        return {client: part for client, part in test.by_owner().items() if client is not None}
    place = torch.full((len(test.split),), -1)
    place[test.index] = torch.arange(len(test.index))
    parts = {i: place[part][place[part] >= 0] for i, part in enumerate(run.partition.test)}
    return {i: part for i, part in parts.items() if len(part)}


def on_attack(run: Prepared, state: Any, what: Literal["report", "pictures"]) -> Json | None:
    """Return the attack's own report or pictures.

    If several attackers do not collude, return those of the first one, with the troubles of all.
    """
    federation = run.federation
    if federation.attack is None or state is None:
        return None
    bad = sorted(federation.malicious)
    if federation.threat.colluders:
        return _of_attackers(run, state, bad, what)
    states = [state[i] if i in state else initial_state(federation.attack) for i in bad]
    found = [_of_attackers(run, one, [i], what) for i, one in zip(bad, states, strict=True)]
    first = next(
        (content for client, content in zip(bad, found, strict=True) if client in state), found[0]
    )
    if what == "pictures" or first is None or len(bad) == 1:
        return first
    each = zip(bad, (content or {} for content in found), strict=True)
    told = [f"client {i}: {text}" for i, content in each for text in content.get("troubles", [])]
    return first | {"troubles": told} if told else first


def _of_attackers(
    run: Prepared, state: Any, clients: list[int], what: Literal["report", "pictures"]
) -> Json | None:
    """Return the report or the pictures of the attack of these clients."""
    attack, local = run.federation.attack, run.federation.local
    assert attack is not None
    had = {*clients, *run.federation.known}
    rest = [client for client in range(len(local.clients)) if client not in had]
    others, own = (
        local.data.take(torch.cat([*(local.clients[i] for i in held), torch.arange(0)]))
        for held in (rest, clients)
    )
    truth = Truth(others, own, local.classes)
    say: Callable[[], Json | None] = partial(account, attack, what, state, truth)
    return attack_report(say) if what == "report" else say()


def by_group(scores: Scores, groups: dict[int, Indices]) -> Json:
    """Return the number of examples and both accuracies of each group."""
    return {
        "examples": {str(g): len(index) for g, index in groups.items()},
        "accuracy": {str(g): scores.correct[i].double().mean().item() for g, i in groups.items()},
        "robust_accuracy": {
            str(g): scores.robust[i].double().mean().item() for g, i in groups.items()
        },
    }


def strip(run: Prepared, weights: Weights) -> dict[str, np.ndarray[Any, Any]] | None:
    """Return a few held-out images, clean and attacked, with the answers; None without images.

    Where each client has a model of its own, the first client answers images of its own.
    """
    if len(run.dataset.shape) != 3:
        return None
    client, places = next(iter(run.choosing.by_owner().items()))
    x, y = _examples(run, run.choosing, places[:STRIP])
    weights.into(run.model, run.federation.local.own, client)
    attack, generator = run.experiment.evaluation.attack, run.streams.generator("strip")
    batch = run.plan.batch or 1
    with evaluating(run.model), drawing(generator.initial_seed()):
        draw = partial(attack.draw, x.clone(), generator)
        moved = attack.maximize(run.model, x.clone(), y.clone(), draw, batch=batch)
        moved = torch.where(per_example(admissible(moved, x, attack), x), moved, x)
        chosen = [answers(batched_logits(run.model, images, batch)) for images in (x, moved)]
    content = {
        "clean": x,
        "adversarial": moved,
        "labels": y,
        "clean_answers": chosen[0],
        "adversarial_answers": chosen[1],
    }
    plain = {name: t.float() if t.is_floating_point() else t for name, t in content.items()}
    return {name: tensor.cpu().numpy() for name, tensor in plain.items()}


def _odd(scores: Scores) -> Json:
    """Count the examples without a finite loss, and those with an invalid adversarial point."""
    counts = {
        "not_finite": int((~scores.loss.isfinite()).sum()),
        "refused_points": int(scores.refused.sum()),
    }
    return {name: count for name, count in counts.items() if count}


def odd(evaluations: list[Json], attack: object) -> list[str]:
    """Return the troubles about losses that are not finite and about invalid adversarial points."""
    found = []
    if blown := [line for line in evaluations if line.get("not_finite")]:
        first = blown[0]
        found.append(
            f"the model has no finite loss on {first['not_finite']} of {first['examples']} examples"
            f" in round {first['round']}, the first of {len(blown)} such evaluations"
        )
    if points := [line for line in evaluations if line.get("refused_points")]:
        first = points[0]
        told = no_points(attack, first["refused_points"], first["examples"])
        found.append(f"in round {first['round']}, the first of {len(points)} evaluations, {told}")
    return found


def _finite(value: float) -> float | None:
    """Return ``value``, or None where it is not finite, since JSON has no infinity."""
    return value if math.isfinite(value) else None


def _examples(
    run: Prepared, examples: Examples, places: Indices | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    device, split = run.start.device, examples.split
    index = examples.index if places is None else examples.index[places]
    return split.images(index).to(device, run.start.dtype), split.y[index].to(device)


def _under(run: Prepared, weights: Weights, round: int) -> Json:
    """Return the robust accuracy under each of the further attacks; empty where there is none."""
    evaluation = run.experiment.evaluation
    if not evaluation.test_attacks:
        return {}
    some = run.testing.some(evaluation.test_attack_samples, run.streams)
    found = {
        name: _scores(run, weights, some, "test", round, attack)
        for name, attack in {EVALUATION: evaluation.attack, **evaluation.test_attacks}.items()
    }
    shares = {name: scores.robust_accuracy for name, scores in found.items()}
    return {"under": {"examples": len(some.index), "robust_accuracy": shares}}


def _audited(run: Prepared, asked: Auditing, examples: Examples) -> Json:
    """Return the audit of the model with its current weights."""
    claim = run.experiment.evaluation.attack
    assert isinstance(claim, Pgd)
    x, y = _examples(run, examples)
    batch, seed = run.plan.batch or 1, run.experiment.seed
    return {"audit": asked.look(run.model, x, y, claim, batch, seed, run.surrogates)}


def _scores(
    run: Prepared,
    weights: Weights,
    examples: Examples,
    stream: str,
    round: int,
    attack: Perturbation | None = None,
) -> Scores:
    """Return the scores on ``examples``, under the evaluation's attack unless one is given.

    Where the examples have owners, each is answered by the model of its owner.
    """
    groups = examples.by_owner()
    found = []
    for client, places in groups.items():
        weights.into(run.model, run.federation.local.own, client)
        x, y = _examples(run, examples, places)
        keys = (round,) if client is None else (round, client)
        scores = score(
            run.model,
            x,
            y,
            attack=attack or run.experiment.evaluation.attack,
            generator=run.streams.generator(stream, *keys),
            batch_size=run.plan.batch or 1,
        )
        found.append(scores.cpu())
    if len(found) == 1:
        return found[0]
    order = torch.cat(list(groups.values())).argsort()
    columns = zip(*(vars(part).values() for part in found), strict=True)
    return Scores(*(torch.cat(column)[order] for column in columns))
