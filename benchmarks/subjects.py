"""Train models to attack from recipes; three are for MNIST: natural, robust, and distilled.

All are ``mnist-cnn-small`` from He's initialisation, trained by Adam from fixed seeds on 55,000
training examples. The other 5,000 training examples measure their accuracy. The test split is not
used.
"""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fedrobust.compute.randomness import Streams
from fedrobust.data import FashionMnist, Mnist
from fedrobust.data.split import Split
from fedrobust.evaluation import accuracy, robust_accuracy
from fedrobust.models import MnistCnnSmall, build_model
from fedrobust.objectives import ERM, Adversarial, Objective
from fedrobust.perturb import Pgd

MNIST = Mnist()
EPS = 0.3
JUDGE = Pgd(eps=EPS, step_size=0.01, steps=40)
Watch = Callable[[str], object]


@dataclass(frozen=True)
class Recipe:
    """How one network is trained. With a ``temperature``, the teacher is trained in the same way.

    The teacher gives the soft labels. ``attack`` perturbs every batch. Its radius and step size
    grow from 0 over the first ``ramp`` steps; otherwise the network stays at a constant answer.
    """

    seed: int
    steps: int
    lr: float
    batch: int = 128
    attack: Pgd | None = None
    ramp: int = 0
    temperature: float = 1.0
    data: Mnist | FashionMnist = MNIST


RECIPES = {
    "natural": Recipe(seed=1, steps=2000, lr=0.001),
    "adversarial": Recipe(
        seed=2,
        steps=4000,
        lr=0.001,
        batch=64,
        attack=Pgd(eps=EPS, step_size=0.05, steps=10),
        ramp=1500,
    ),
    "distilled": Recipe(seed=3, steps=3000, lr=0.003, temperature=100.0),
}


def trained(
    name: str, recipe: Recipe, work: Path, watch: Watch = print
) -> tuple[nn.Module, dict[str, Any]]:
    """Return the model ``name`` and how it was made. Read it from ``work``, or else train it."""
    weights, story = work / f"{name}.safetensors", work / f"{name}.json"
    train, held_out = splits(recipe.data)
    told = asdict(recipe)
    if weights.exists() and story.exists():
        found = json.loads(story.read_text())
        if found["recipe"] == told:
            model = network(recipe.seed)
            model.load_state_dict(load_file(weights))
            return model.eval(), found
    began = time.monotonic()
    soft = None
    if recipe.temperature > 1:  # Papernot et al.: teacher and student at the same temperature
        teacher = fitted(recipe, recipe.seed + 100, train, None, watch)
        soft = labels_of(teacher, train, recipe.temperature)
    model = fitted(recipe, recipe.seed, train, soft, watch)
    seconds = time.monotonic() - began
    x, y = held_out.images(torch.arange(1000)), held_out.y[:1000]
    found = {
        "recipe": told,
        "seconds": round(seconds),
        "validation": {
            "examples": len(y),
            "accuracy": accuracy(model, x, y),
            "robust accuracy": robust_accuracy(model, x, y, attack=JUDGE),
        },
    }
    work.mkdir(parents=True, exist_ok=True)
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, weights)
    story.write_text(json.dumps(found, indent=1) + "\n")
    return model, found


def splits(data: Mnist | FashionMnist) -> tuple[Split, Split]:
    """Return the training examples without the 5,000 held-out examples, and these."""
    return data.load().hold_out(Streams(0).generator("held out"))


def tested(examples: int) -> tuple[Tensor, Tensor]:
    """Return this many test images and their labels, drawn with a fixed seed."""
    test = MNIST.load().test
    index = torch.randperm(len(test), generator=Streams(0).generator("tested"))[:examples]
    return test.images(index), test.y[index]


def network(seed: int) -> nn.Module:
    """Return the initial network, in the contiguous memory format that other toolboxes expect."""
    start = Streams(seed).generator("model")
    model = build_model(MnistCnnSmall(init="he"), (1, 28, 28), 10, start)
    return model.to(memory_format=torch.contiguous_format)


def fitted(recipe: Recipe, seed: int, train: Split, soft: Tensor | None, watch: Watch) -> nn.Module:
    """Train a network on batches drawn with replacement, on ``soft`` labels where given."""
    model, streams = network(seed), Streams(seed)
    optimizer = torch.optim.Adam(model.parameters(), recipe.lr)
    batches, noise = streams.generator("batches"), streams.generator("noise")
    for step in range(recipe.steps):
        index = torch.randint(len(train), (recipe.batch,), generator=batches)
        x, y = train.images(index), train.y[index]
        objective = objective_at(step, recipe)
        x = objective.maximize(model, x, y, lambda o=objective, x=x: o.draw(x, noise))
        optimizer.zero_grad()
        target = y if soft is None else soft[index]
        loss = F.cross_entropy(model(x) / recipe.temperature, target)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if step % 250 == 249:
            watch(f"step {step + 1} of {recipe.steps}: loss {loss.item():.3f}")
    return model.eval()


def objective_at(step: int, recipe: Recipe) -> Objective:
    """Return the objective of a step, counted from 0."""
    if recipe.attack is None:
        return ERM()
    share, full = min(1.0, (step + 1) / max(recipe.ramp, 1)), recipe.attack
    attack = replace(full, eps=share * full.eps, step_size=share * full.step_size)
    return Adversarial(ratio=1.0, attack=attack)


def labels_of(teacher: nn.Module, train: Split, temperature: float) -> Tensor:
    """Return the teacher's probabilities at ``temperature`` [N, classes]."""
    with torch.no_grad():
        parts = torch.arange(len(train)).split(1024)
        logits = torch.cat([teacher(train.images(part)) for part in parts])
    return (logits / temperature).softmax(dim=1)
