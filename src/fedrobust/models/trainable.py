"""Whether a federation can train a network, and advice where it cannot."""

from collections.abc import Iterator

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from fedrobust.compute.global_draws import draws
from fedrobust.compute.network import evaluating, logits
from fedrobust.compute.parameters import Layout
from fedrobust.compute.randomness import isolated, seed_globally
from fedrobust.compute.trial import require_logits
from fedrobust.errors import ConfigError
from fedrobust.models.local_tensors import LocalTensors


def require_trainable(
    model: nn.Module, shape: tuple[int, ...], own: LocalTensors | None = None
) -> None:
    """Refuse a model that a federation cannot train, or whose results would be meaningless.

    ``own`` are the tensors that stay with each client, and may change in training.

    Raises: ``ConfigError`` for a model that has nothing to train, that gives probabilities, whose
    answers depend on the rest of a batch, that keeps state of its own, or whose buffers change in
    training.
    """
    Layout.of(model)
    with isolated():
        seed_globally(0)
        x = some_inputs(model, shape)
        require_logits(model, x)
        modes = [(module, module.training) for module in model.modules()]
        before = {name: value.clone() for name, value in _held(model)}
        with evaluating(model):
            known = {draws(model, x)}
        model.train()
        with torch.no_grad():
            logits(model, x)
        known.add(draws(model, x))
        for module, training in modes:
            module.training = training
    kept = () if own is None else own.initial
    if own is not None:
        own.load(model)
    for name, after in _held(model):
        if name not in kept and not torch.equal(after.nan_to_num(), before[name].nan_to_num()):
            raise ConfigError(
                f"the model's buffer {name} changes in training outside the parameters, and a "
                f"federation aggregates parameters only. {_instead(model, name)}"
            )
    if "from its own" in known:
        raise ConfigError(
            "the model answers otherwise the next time, although PyTorch's seed is the same: it "
            "draws from a generator of its own, or counts. No checkpoint holds such state, and the "
            "clients share the model: draw from PyTorch's global generator (torch.rand)"
        )


def _held(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield everything in a model that training does not change: buffers, frozen parameters.

    A forward pass also changes no parameter that is trained.
    """
    yield from model.named_buffers()
    yield from ((name, value.detach()) for name, value in model.named_parameters())


def _instead(model: nn.Module, buffer: str) -> str:
    """Return what to use instead of the layer that holds a buffer."""
    owner = model.get_submodule(buffer.rpartition(".")[0])
    hooks = [type(hook).__name__ for hook in owner._forward_pre_hooks.values()]
    if isinstance(owner, _BatchNorm):
        return (
            "Use GroupNorm instead of BatchNorm, or set batch_norm: to_group_norm puts GroupNorm "
            "in its place, frozen never updates the statistics, local leaves BatchNorm to each "
            "client (FedBN)"
        )
    if isinstance(owner, _InstanceNorm):
        return f"Use {type(owner).__name__} with track_running_stats=False"
    if any("SpectralNorm" in name for name in [type(owner).__name__, *hooks]):
        return "Leave spectral normalisation out, or bound the weights in another way"
    return f"Turn the buffers of {type(owner).__name__} into parameters, or leave it out"


def some_inputs(model: nn.Module, shape: tuple[int, ...]) -> torch.Tensor:
    """Return four random examples of ``shape``, where the model lies."""
    device = next((p.device for p in model.parameters()), None)
    return torch.rand(4, *shape, dtype=dtype_of(model)).to(device)


def dtype_of(model: nn.Module) -> torch.dtype:
    """Return the type of the model's parameters."""
    return next((p.dtype for p in model.parameters()), torch.float32)
