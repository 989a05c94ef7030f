"""Clean and robust accuracy, example by example."""

import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fedrobust.compute.global_draws import draws
from fedrobust.compute.network import answers, batched_logits, cross_entropy, evaluating, right
from fedrobust.compute.randomness import Streams, drawing
from fedrobust.compute.trial import require_logits
from fedrobust.compute.units import computed, seeds, slices
from fedrobust.config import arguments
from fedrobust.config.fingerprint import foreign
from fedrobust.config.kind import name_of
from fedrobust.errors import ConfigError, PointWarning
from fedrobust.perturb import Perturbation
from fedrobust.perturb.geometry import allowed, per_example
from fedrobust.perturb.perturbation import Draw
from fedrobust.typing import Images, Labels, Mask


@dataclass(frozen=True)
class Scores:
    """The scores of a model on each of b examples. ``robust`` implies ``correct``.

    ``refused`` marks examples for which the attack returned a point that is not an adversarial
    example: not finite, outside its ball, or outside [0, 1]. They count as if the attack had found
    nothing.
    """

    correct: Mask
    robust: Mask
    loss: Tensor
    refused: Mask

    @property
    def accuracy(self) -> float:
        """The share of examples classified correctly."""
        return self.correct.double().mean().item()

    @property
    def robust_accuracy(self) -> float:
        """The share of examples classified correctly before and after every attack."""
        return self.robust.double().mean().item()

    @property
    def mean_loss(self) -> float:
        """The mean clean cross-entropy."""
        return self.loss.double().mean().item()

    def cpu(self) -> "Scores":
        """Return these scores as tensors on the CPU."""
        return Scores(self.correct.cpu(), self.robust.cpu(), self.loss.cpu(), self.refused.cpu())


def accuracy(model: nn.Module, x: Images, y: Labels, *, batch_size: int = 256) -> float:
    """Return the share of the examples (x, y) that ``model`` classifies correctly.

    x: [b, ...]; y: [b]. The model is put into evaluation mode and back. Its own random draws come
    from one seed.

    Raises: ``ValueError`` that names the argument which does not fit; ``ModelError``, which is a
    ``ValueError`` too, for a model that gives no logits, or whose answers depend on how examples
    are batched.
    """
    x, y = _fit(model, x, y, batch_size)
    with evaluating(model), drawing(0):
        return right(model, x, y, batch_size).double().mean().item()


def robust_accuracy(
    model: nn.Module,
    x: Images,
    y: Labels,
    *,
    attack: Perturbation,
    generator: torch.Generator | None = None,
    batch_size: int = 256,
) -> float:
    """Return the share of the examples (x, y) classified correctly both clean and under ``attack``.

    With restarts an example counts as robust only if every restart fails, so more restarts never
    raise the result. Misclassified clean examples are not robust, since the clean point is in the
    ball. A point that is not finite, or lies outside the ball or [0, 1], is not an adversarial
    example. The clean point counts in its place, and a ``PointWarning`` says how many there were.

    x: [b, ...] in [0, 1]; y: [b]. The model is put into evaluation mode and back. The random draws
    of the model and of the attack follow from the seed of ``generator``.

    Raises: ``ValueError`` that names the argument which does not fit; ``ModelError``, which is a
    ``ValueError`` too, for a model that gives no logits, or whose answers depend on how examples
    are batched.

    A model that sees one pixel in [0, 1] and answers 1 above ½; ε = 0.2 turns the middle one:

    >>> from torch import nn
    >>> from fedrobust.perturb import Pgd
    >>> model = nn.Linear(1, 2)
    >>> model.load_state_dict({"weight": torch.tensor([[-1.0], [1.0]]),
    ...                        "bias": torch.tensor([0.5, -0.5])})
    <All keys matched successfully>
    >>> x, y = torch.tensor([[0.1], [0.6], [0.9]]), torch.tensor([0, 1, 1])
    >>> pgd = Pgd(eps=0.2, step_size=0.1, steps=4)
    >>> round(robust_accuracy(model, x, y, attack=pgd), 2)
    0.67
    """
    x, y = _fit(model, x, y, batch_size)
    require_attack(attack)
    if generator is not None:
        arguments.generator(generator)
    source = generator if generator is not None else torch.Generator().manual_seed(0)
    scores = score(model, x, y, attack=attack, generator=source, batch_size=batch_size)
    if lost := int(scores.refused.sum()):
        warnings.warn(no_points(attack, lost, len(x)), PointWarning, stacklevel=2)
    return scores.robust_accuracy


def score(
    model: nn.Module,
    x: Images,
    y: Labels,
    *,
    attack: Perturbation,
    generator: torch.Generator,
    batch_size: int,
) -> Scores:
    """Return the scores of every example. Noise is drawn for all before any is skipped.

    ``batch_size`` examples are a unit of work (see :mod:`fedrobust.compute.units`).
    """
    seed = generator.initial_seed()

    def work(model: nn.Module, part: slice) -> Scores:
        return _score(model, x[part], y[part], attack, noise(attack, x, part, seed))

    with evaluating(model), drawing(seed):
        found = draws(model, x)
        if foreign(attack) and found != "from its own":
            found = "perhaps"
        units = slices(len(x), batch_size)
        parts = computed(model, units, work, seed=seeds(seed), draws=found, anywhere=True)
    columns = zip(*(vars(part).values() for part in parts), strict=True)
    return Scores(*(torch.cat(column) for column in columns))


_BLOCK = 64
"""The number of neighbouring examples whose noise comes from one generator."""


def noise(attack: Perturbation, x: Images, part: slice, seed: int) -> Draw:
    """Return a function that draws for the examples ``x[part]``, once for each restart.

    Each block of examples has a generator of its own. So what an example gets depends neither on
    the units that the examples are cut into, nor on who computes them.
    """
    first, last = part.start // _BLOCK, -(-part.stop // _BLOCK)
    streams = Streams(seed)
    sources = [streams.generator("noise", block) for block in range(first, last)]

    def draw() -> Tensor | None:
        found = []
        for block, source in enumerate(sources, start=first):
            some = x[block * _BLOCK : (block + 1) * _BLOCK]
            drawn = attack.draw(some.clone(), source)
            if drawn is None:
                return None
            if not isinstance(drawn, Tensor) or len(drawn) != len(some):
                raise ConfigError(
                    f"draw of the attack {name_of(type(attack))} must give a tensor with an entry "
                    f"for each of {len(some)} examples, or None; it gave {arguments.told(drawn)}"
                )
            found.append(drawn)
        return torch.cat(found)[part.start - first * _BLOCK :][: part.stop - part.start]

    return draw


def _score(model: nn.Module, x: Images, y: Labels, attack: Perturbation, drawn: Draw) -> Scores:
    """Return the scores of one unit of examples; ``drawn`` gives noise for all of them."""
    found = batched_logits(model, x, len(x))
    correct, losses = answers(found) == y, cross_entropy(found, y)
    open_ = correct.nonzero().squeeze(1)
    robust, refused = correct.clone(), torch.zeros_like(correct)
    if len(open_):

        def draw() -> Tensor | None:
            noise = drawn()
            return None if noise is None else noise[open_.to(noise.device)]

        at, labels = x[open_], y[open_]
        # Copies, since the points of an attack that works in place would be compared with
        # themselves.
        moved = attack.maximize(model, at.clone(), labels.clone(), draw, batch=len(at))
        fit = admissible(moved, at, attack)
        moved = torch.where(per_example(fit, at), moved, at)
        robust[open_], refused[open_] = right(model, moved, labels, len(at)), ~fit
    return Scores(correct, robust, losses, refused)


def admissible(found: Images, x: Images, attack: Perturbation) -> Mask:
    """Return which of the points that ``attack`` gave for x [b, ...] are adversarial examples.

    Such points are finite. They lie in the attack's ball, if the attack has ``eps`` and ``norm``,
    and in [0, 1], if its ``box`` is true. If it has no ``box``, they must lie in [0, 1] where x
    does.

    Raises: ``ConfigError`` where the points are not a tensor shaped like x.
    """
    if not isinstance(found, Tensor) or found.shape != x.shape or arguments.unfit(found):
        given = list(found.shape) if isinstance(found, Tensor) else arguments.told(found)
        raise ConfigError(
            f"the attack {name_of(type(attack))} must give one dense tensor {list(x.shape)}, a "
            f"point for each example; it gave {given}"
        )
    norm = getattr(attack, "norm", "linf")
    box = getattr(attack, "box", None)
    if box is None:
        box = bool((x >= 0).all() and (x <= 1).all())
    ball = _radius(attack) if norm in ("linf", "l2") else None
    return allowed(found.to(x), x, ball, "l2" if norm == "l2" else "linf", bool(box))


def _radius(attack: object) -> float | None:
    """Return an attack's ``eps``. Raises: ``ConfigError`` where it is not one number."""
    eps: Any = getattr(attack, "eps", None)
    try:
        return None if eps is None else float(eps)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(
            f"eps of the attack {name_of(type(attack))} must be one number, so that its points can "
            f"be checked; it is {arguments.told(eps)}"
        ) from error


def no_points(attack: object, lost: int, total: int) -> str:
    """Return the message about points of an attack that are not adversarial examples."""
    return (
        f"the attack {name_of(type(attack))} gave {lost} points for {total} examples that are no "
        "adversarial examples (not finite, or outside the ball or [0, 1]): they count as not found"
    )


def require_attack(attack: object) -> None:
    """Check that ``attack`` is a perturbation. Raises: ``ValueError``."""
    for method in ("draw", "maximize"):
        if isinstance(attack, type) or not callable(getattr(attack, method, None)):
            raise ValueError(
                f"attack must be a perturbation such as Pgd(eps=0.1, step_size=0.01, steps=40); "
                f"got {arguments.told(attack)}"
            )


def _fit(model: nn.Module, x: Images, y: Labels, batch_size: int) -> tuple[Images, Labels]:
    arguments.module(model)
    x = arguments.images(x)
    arguments.whole("batch_size", batch_size)
    return x, arguments.labels(y, len(x), require_logits(model, x))
