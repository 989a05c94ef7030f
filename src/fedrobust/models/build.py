"""Build a network from its spec, or take a user's own."""

import logging
import math
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import field
from inspect import signature
from operator import attrgetter
from typing import Annotated, Any, Protocol, TypeAlias

import torch
from torch import nn

from fedrobust.compute.memory import available_memory
from fedrobust.compute.memory_format import channels_last
from fedrobust.compute.network import evaluating, logits
from fedrobust.compute.randomness import isolated, seed_globally
from fedrobust.config import beside
from fedrobust.config.arguments import looks_channels_last, told
from fedrobust.config.component import component
from fedrobust.config.kind import Kind
from fedrobust.config.text import shortened
from fedrobust.errors import ConfigError, ModelError, ResourceError
from fedrobust.models.batch_norm import BatchNorm, Treated, treated
from fedrobust.models.trainable import dtype_of, require_trainable, some_inputs

_LOG = logging.getLogger(__name__)
_PLENTY = 2**14
"""From this many numbers in an example on, a network of the papers may fill the memory."""


class ModelSpec(Protocol):
    """Something that builds a network for a shape of images and a number of classes."""

    def build(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        """Return a freshly initialised network."""
        ...


@component
class NamedNetwork:
    """A network that a config names by its class, or by a function that makes it.

    ``name`` is module:Class, and ``settings`` are its arguments; in a config they stand beside the
    name. It is made anew for each run, so that the run's seed decides its initial parameters.
    """

    name: str
    settings: dict[str, Any] = field(default_factory=dict)

    def build(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        """Return the network, which says itself what it takes and gives."""
        module, _, path = self.name.partition(":")
        found: nn.Module = attrgetter(path)(beside.module(module))(**self.settings)
        return found


def _network(target: Any, name: str, given: Mapping[str, Any]) -> Any:
    """Return a spec where ``target`` is or makes a network, and else what ``target`` makes."""
    settings = {key: value for key, value in given.items() if key != "settings"}
    settings |= given.get("settings", {})
    if isinstance(target, type):
        if not issubclass(target, nn.Module):
            return None
        signature(target).bind(**settings)
        return NamedNetwork(name, settings)
    if "settings" in given:  # as a record has them
        return NamedNetwork(name, settings)
    with isolated():
        made = target(**given)
    return NamedNetwork(name, settings) if isinstance(made, nn.Module) else made


MODEL = Kind(
    "model",
    has=("build",),
    or_is=(nn.Module, "a torch.nn.Module"),
    calls={"build": "shape, classes"},
    adapt=_network,
)
AnyModel: TypeAlias = Annotated[ModelSpec | nn.Module, MODEL]

_RENUMBER = (
    ". Labels count from 0: if some numbers up to the largest label have no example, renumber "
    "them, numpy.unique(y, return_inverse=True)[1]"
)


def build_model(
    spec: "ModelSpec | nn.Module",
    shape: tuple[int, ...],
    classes: int,
    generator: torch.Generator,
    *,
    trains: bool = True,
    batch_norm: BatchNorm = "refuse",
) -> nn.Module:
    """Return the network that :func:`built` makes, without what is to be said of it."""
    return built(spec, shape, classes, generator, trains=trains, batch_norm=batch_norm).model


def built(
    spec: "ModelSpec | nn.Module",
    shape: tuple[int, ...],
    classes: int,
    generator: torch.Generator,
    *,
    trains: bool = True,
    batch_norm: BatchNorm = "refuse",
) -> Treated:
    """Return the network of ``spec`` for examples of ``shape``, initialised from ``generator``.

    A network that is already built is copied and keeps its parameters. Networks are initialised
    from global generators; these are seeded here and restored afterwards. Its BatchNorm layers are
    treated as ``batch_norm`` says.

    Raises: ``ConfigError`` where the network does not give one logit per class on such examples,
    or, if it ``trains``, where a federation cannot train it (see :func:`require_trainable`);
    ``ResourceError`` where this machine cannot hold it.
    """
    if not isinstance(spec, nn.Module) and not hasattr(spec, "build"):
        raise ConfigError(
            f"model must be a torch.nn.Module, or have build(shape, classes) that makes one; "
            f"{type(spec).__name__} is neither"
        )
    with isolated():
        own = isinstance(spec, NamedNetwork) or not _ours(spec)
        if not isinstance(spec, nn.Module) and (math.prod(shape) > _PLENTY or (own and not trains)):
            _require_fits(spec, shape, classes)
        seed_globally(generator.initial_seed() % 2**63)
        try:
            model = deepcopy(spec) if isinstance(spec, nn.Module) else spec.build(shape, classes)
        except Exception as error:  # a user's network may fail in any way
            reason = shortened(f"{type(error).__name__}: {error}", 300)
            raise ConfigError(
                f"the model does not fit examples of shape {shape}: {reason}{_hint(shape)}"
            ) from error
        if not isinstance(model, nn.Module):
            raise ConfigError(
                f"model: build(shape, classes) must give a torch.nn.Module; it gave {told(model)}"
            )
        model = model.cpu()
        try:
            with evaluating(model), torch.no_grad():
                answer = logits(model, torch.rand(4, *shape, dtype=dtype_of(model)))
        except ModelError as error:
            raise ModelError(f"{error}{_hint(shape)}") from error
    if answer.shape[1] != classes:
        raise ConfigError(
            f"the model must give one logit for each of the {classes} classes; it gives "
            f"{answer.shape[1]}{_RENUMBER if answer.shape[1] < classes else ''}"
        )
    found = treated(model, batch_norm)
    if trains:
        require_trainable(found.model, shape, found.own)
    with isolated():
        channels_last(found.model, torch.rand(2, *shape, dtype=dtype_of(found.model)))
    return found


def _ours(spec: object) -> bool:
    return type(spec).__module__.startswith(f"{__package__}.")


def treated_copy(model: nn.Module, shape: tuple[int, ...], batch_norm: BatchNorm) -> Treated:
    """Return a copy of a user's network, with its BatchNorm layers treated, where it lies.

    Raises: ``ConfigError`` where a federation cannot train it (see :func:`require_trainable`).
    """
    with isolated(), evaluating(model), torch.no_grad():
        seed_globally(0)
        logits(model, some_inputs(model, shape))  # so that lazy layers are initialised
    found = treated(deepcopy(model), batch_norm)
    require_trainable(found.model, shape, found.own)
    return found


def _require_fits(spec: ModelSpec, shape: tuple[int, ...], classes: int) -> None:
    """Refuse a network that needs more memory than there is, without building it.

    The check uses PyTorch's meta device, which has shapes but no values. Raises: ``ResourceError``.
    """
    seen = 0

    def count(module: nn.Module, given: Any, found: Any) -> None:
        nonlocal seen
        seen += found.numel() if isinstance(found, torch.Tensor) else 0

    needed = 0
    try:
        with torch.device("meta"), torch.no_grad():
            model = spec.build(shape, classes)
            needed = 2 * sum(value.numel() for value in model.state_dict().values())
            for module in model.modules():
                if not any(True for _ in module.children()):
                    module.register_forward_hook(count)
            model(torch.zeros(4, *shape))
    except Exception as error:  # the build reports it; use what was counted so far
        _LOG.debug("the size of a model is not known: %s", error)
    needed, free = 4 * (needed + 2 * seen), available_memory("cpu")
    if needed > free:
        raise ResourceError(
            f"the model is too large for this machine on examples of shape {shape}: it needs about "
            f"{needed / 2**30:,.1f} GiB, and {free / 2**30:,.1f} GiB are free"
        )


def _hint(shape: tuple[int, ...]) -> str:
    """Return a hint on a likely mistake in examples of this shape."""
    if len(shape) == 2:
        return (
            f". Images of one channel are [N, 1, h, w]: pass x[:, None] if these are images of "
            f"{shape[0]} by {shape[1]} pixels"
        )
    if looks_channels_last((1, *shape)):
        return (
            ". The channels seem to be last: pass x.permute(0, 3, 1, 2), or "
            "np.transpose(x, (0, 3, 1, 2)) for an array"
        )
    return ""
