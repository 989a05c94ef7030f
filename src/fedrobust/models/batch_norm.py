"""What becomes of a model's BatchNorm layers in a federation, which aggregates parameters only."""

from dataclasses import dataclass
from typing import Literal, NoReturn, TypeAlias

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parameter import is_lazy

from fedrobust.config.text import shortened
from fedrobust.errors import ConfigError, ModelError
from fedrobust.models.local_tensors import LocalTensors

BatchNorm: TypeAlias = Literal["refuse", "frozen", "to_group_norm", "local", "local_statistics"]
"""The treatments: see :func:`treated`."""
LOCAL = ("local", "local_statistics")
"""The treatments that give each client a model of its own."""

_GROUPS = (32, 16, 8, 4, 2)
_CHANNELS = 8
"""The least number of channels in a group, where there are several groups. A group of one channel
would be InstanceNorm, and without pixels all its values would be 0."""
_PLAIN = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


@dataclass(frozen=True)
class Treated:
    """A model and its treatment: ``notes`` say what was done, ``doubts`` what may be a mistake.

    ``own`` are the tensors that stay with each client.
    """

    model: nn.Module
    notes: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()
    own: LocalTensors | None = None


def treated(model: nn.Module, how: BatchNorm) -> Treated:
    """Return ``model`` with its BatchNorm layers treated; it is changed in place.

    - ``refuse``: nothing is done; :func:`~fedrobust.models.trainable.require_trainable` refuses a
      BatchNorm that updates its statistics.
    - ``frozen``: the layers stay in evaluation mode. They normalise by the statistics that they
      came with, in training too. γ and β are trained and aggregated like all parameters.
    - ``to_group_norm``: each layer becomes GroupNorm (Wu & He, "Group Normalization", ECCV 2018)
      with its γ, β and ε, in :func:`groups_of` its channels. Hsieh et al., "The Non-IID Data
      Quagmire of Decentralized Machine Learning", ICML 2020, advise this for federations.
    - ``local``: γ, β and the running statistics stay with each client, and are not aggregated. This
      is FedBN (Li et al., "FedBN: Federated Learning on Non-IID Features via Local Batch
      Normalization", ICLR 2021).
    - ``local_statistics``: only the running statistics stay with each client; γ and β are
      aggregated. This is SiloBN (Andreux et al., "Siloed Federated Learning for Multi-Centric
      Histopathology Datasets", MICCAI workshop DCL 2020).

    Raises: ``ConfigError`` for a layer that cannot be treated so.
    """
    layers = {name: m for name, m in model.named_modules() if isinstance(m, _BatchNorm)}
    if how == "refuse":
        return Treated(model)
    if not layers:
        return Treated(model, doubts=(f"batch_norm is {how}, but the model has no BatchNorm",))
    for name, layer in layers.items():
        if any(is_lazy(value) for value in (*layer.parameters(), *layer.buffers())):
            raise ConfigError(
                f"batch_norm: the layer {name!r} is not initialised yet: call the model once before"
            )
    if how == "to_group_norm":
        return _grouped(model, layers)
    _require_statistics(layers, how)
    return _frozen(model, layers) if how == "frozen" else _local(model, layers, how)


def groups_of(channels: int) -> int:
    """Return the largest of 32, 16, 8, 4 and 2 that cuts ``channels`` into equal groups of 8 or
    more; 1 where there is none.

    64 channels make 8 groups, and 256 or more make the 32 groups of Wu & He.
    """
    fit = (n for n in _GROUPS if channels % n == 0 and channels >= n * _CHANNELS)
    return next(fit, 1)


class _Frozen(nn.Module):
    """Mixed into a BatchNorm: it is always in evaluation mode."""

    def train(self, mode: bool = True) -> "_Frozen":
        """Stay in evaluation mode."""
        return super().train(False)


class FrozenBatchNorm1d(_Frozen, nn.BatchNorm1d):
    """``nn.BatchNorm1d`` in evaluation mode throughout."""


class FrozenBatchNorm2d(_Frozen, nn.BatchNorm2d):
    """``nn.BatchNorm2d`` in evaluation mode throughout."""


class FrozenBatchNorm3d(_Frozen, nn.BatchNorm3d):
    """``nn.BatchNorm3d`` in evaluation mode throughout."""


class FrozenSyncBatchNorm(_Frozen, nn.SyncBatchNorm):
    """``nn.SyncBatchNorm`` in evaluation mode throughout."""


_FROZEN = (FrozenBatchNorm1d, FrozenBatchNorm2d, FrozenBatchNorm3d, FrozenSyncBatchNorm)


def _frozen_class(kind: type[_BatchNorm]) -> type[nn.Module]:
    """Return the class of ``kind``, perhaps a user's own, that stays in evaluation mode."""
    if kind in _PLAIN:
        return _FROZEN[_PLAIN.index(kind)]
    return type(f"Frozen{kind.__name__}", (_Frozen, kind), {"__module__": kind.__module__})


def _require_statistics(layers: dict[str, _BatchNorm], how: str) -> None:
    """Refuse layers that normalise by the batch in evaluations too. Raises: ``ConfigError``."""
    for name, layer in layers.items():
        if layer.running_mean is None or layer.running_var is None:
            raise ConfigError(
                f"batch_norm: {how} uses the running statistics, and the layer {name!r} keeps "
                "none (track_running_stats=False): use to_group_norm"
            )


def _local(model: nn.Module, layers: dict[str, _BatchNorm], how: BatchNorm) -> Treated:
    what = "weights, biases and statistics stay" if how == "local" else "statistics stay"
    note = (
        f"batch_norm: {how}: BatchNorm's {what} with each client. Each benign client is evaluated "
        f"with its own, on its own examples. The layers: {_listed(list(layers))}"
    )
    own = LocalTensors.of(model, layers, affine=how == "local")
    if own.parameters and not any(p.requires_grad for p in model.parameters()):
        raise ConfigError(
            f"batch_norm: {how}: the model trains no parameters but BatchNorm's, so that nothing "
            "is left to aggregate"
        )
    return Treated(model, (note,), own=own)


def _frozen(model: nn.Module, layers: dict[str, _BatchNorm]) -> Treated:
    empty = []
    for name, layer in layers.items():
        if not _measured(layer):
            empty.append(name)
        layer.__class__ = _frozen_class(type(layer))  # type: ignore[assignment]
        layer.eval()
    note = (
        f"batch_norm: frozen: BatchNorm stays in evaluation mode, with the statistics that the "
        f"model came with; its weights and biases are trained. The layers: {_listed(list(layers))}"
    )
    doubt = (
        "batch_norm: frozen: these layers came with initial statistics (mean 0, variance 1), so "
        "that they do not normalise: begin with a trained model, or use to_group_norm. The layers: "
        f"{_listed(empty)}"
    )
    return Treated(model, (note,), (doubt,) if empty else ())


def _grouped(model: nn.Module, layers: dict[str, _BatchNorm]) -> Treated:
    made, told, lost = dict[nn.Module, nn.Module](), [], []
    for name, layer in layers.items():
        _require_plain(name, layer)
        made[layer] = _group_norm(layer)
        told.append(f"{name or 'the model'} (groups: {groups_of(layer.num_features)})")
        if _measured(layer):
            lost.append(name)
    for parent in list(model.modules()):
        for name, child in list(parent._modules.items()):
            if child in made:
                parent._modules[name] = made[child]
    for name, layer in layers.items():
        _forbid(name, layer)
    note = f"batch_norm: to_group_norm: GroupNorm replaces BatchNorm. The layers: {_listed(told)}"
    doubt = (
        "batch_norm: to_group_norm: the statistics that these layers came with are dropped, so "
        "that the model's answers are no longer those that it came with. The layers: "
        f"{_listed(lost)}"
    )
    return Treated(made.get(model, model), (note,), (doubt,) if lost else ())


def _require_plain(name: str, layer: _BatchNorm) -> None:
    """Refuse a layer that does more than BatchNorm. Raises: ``ConfigError``."""
    why = ""
    if type(layer) not in _PLAIN:
        why = f"is a {type(layer).__name__}, which may do more than BatchNorm"
    elif layer._forward_hooks or layer._forward_pre_hooks or "forward" in vars(layer):
        why = "has hooks, or a forward of its own"
    elif isinstance(layer, nn.BatchNorm1d) and layer.num_features == 1:
        why = "has one channel: GroupNorm would make each of its values 0"
    if why:
        raise ConfigError(
            f"batch_norm: to_group_norm does not know how to replace the layer {name!r}: it {why}; "
            "replace it yourself, or use frozen"
        )


def _group_norm(layer: _BatchNorm) -> nn.GroupNorm:
    """Return GroupNorm with the γ, β and ε of ``layer``."""
    found = nn.GroupNorm(
        groups_of(layer.num_features), layer.num_features, layer.eps, affine=layer.affine
    )
    if layer.affine:
        found.weight, found.bias = layer.weight, layer.bias
    return found.train(layer.training)


def _forbid(name: str, layer: nn.Module) -> None:
    """Let a layer that was replaced refuse to be called: the model may hold it in a plain list."""

    def forward(*_: object) -> NoReturn:
        raise ModelError(
            f"batch_norm: to_group_norm replaced the layer {name!r}, but the model still calls the "
            "old one: call it by its attribute, and keep layers in a ModuleList"
        )

    layer.forward = forward


def _measured(layer: _BatchNorm) -> bool:
    """Whether the layer's statistics are others than the initial ones, mean 0 and variance 1."""
    mean, variance = layer.running_mean, layer.running_var
    return mean is not None and variance is not None and bool(mean.any() or (variance != 1).any())


def _listed(names: list[str]) -> str:
    return shortened(", ".join(name or "the model" for name in names), 300)
