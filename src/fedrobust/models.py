"""The networks of both papers, by name: from images in [0, 1] to logits."""

from copy import deepcopy
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

import torch
from torch import nn

from fedrobust.arguments import shortened, told
from fedrobust.component import component, one_of
from fedrobust.compute.network import evaluating, logits, require_logits
from fedrobust.elu_network import EluNetwork
from fedrobust.errors import ConfigError, ModelError
from fedrobust.streams import isolated, seed_globally


class ModelSpec(Protocol):
    """Something that builds a network for images of a shape and a number of classes."""

    def build(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        """A freshly initialised network."""
        ...


def build_model(
    spec: "ModelSpec | nn.Module",
    shape: tuple[int, ...],
    classes: int,
    generator: torch.Generator,
    *,
    trains: bool = True,
) -> nn.Module:
    """The network of ``spec`` for examples of ``shape``, initialised from ``generator``.

    A network that is already built is copied and keeps its parameters. Networks initialise from
    global generators, which are set here and left as they were.

    Raises: ``ConfigError`` where the network does not give one logit per class on such examples,
    and, if it ``trains``, where a federation cannot train it: see :func:`require_trainable`.
    """
    if not isinstance(spec, nn.Module) and not hasattr(spec, "build"):
        raise ConfigError(
            f"model must be a torch.nn.Module, or have build(shape, classes) that makes one; "
            f"{type(spec).__name__} is neither"
        )
    with isolated():
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
                found = logits(model, torch.rand(4, *shape, dtype=_dtype(model)))
        except ModelError as error:
            raise ModelError(f"{error}{_hint(shape)}") from error
    if found.shape[1] != classes:
        raise ConfigError(
            f"the model must give one logit for each of the {classes} classes; it gives "
            f"{found.shape[1]}"
        )
    if trains:
        require_trainable(model, shape)
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def _hint(shape: tuple[int, ...]) -> str:
    """What examples of this shape may be mistaken for."""
    if len(shape) == 2:
        return (
            f". Images of one channel are [N, 1, h, w]: pass x[:, None] where these are images of "
            f"{shape[0]} by {shape[1]} pixels"
        )
    if len(shape) == 3 and shape[2] in (1, 3, 4) and shape[0] > 4:
        return ". The channels seem to be last: pass x.permute(0, 3, 1, 2)"
    return ""


def require_trainable(model: nn.Module, shape: tuple[int, ...]) -> None:
    """Refuse a model that a federation cannot train, or whose figures would mean nothing.

    Raises: ``ConfigError`` for one that gives probabilities, whose answers depend on the rest of a
    batch, or whose buffers change in training.
    """
    with isolated():
        seed_globally(0)
        x = torch.rand(4, *shape, dtype=_dtype(model))
        require_logits(model, x)
        modes = [(module, module.training) for module in model.modules()]
        buffers = [buffer.clone() for buffer in model.buffers()]
        model.train()
        with torch.no_grad():
            logits(model, x)
        for module, training in modes:
            module.training = training
    for (name, after), before in zip(model.named_buffers(), buffers, strict=True):
        if not torch.equal(after.nan_to_num(), before.nan_to_num()):
            raise ConfigError(
                f"the model's buffer {name} changes in training outside the parameters, and a "
                f"federation aggregates parameters only. {_instead(model, name)}"
            )


def _instead(model: nn.Module, buffer: str) -> str:
    """What to use instead of the layer that holds a buffer."""
    owner = model.get_submodule(buffer.rpartition(".")[0])
    hooks = [type(hook).__name__ for hook in owner._forward_pre_hooks.values()]
    if isinstance(owner, nn.modules.batchnorm._BatchNorm):
        return "Use GroupNorm instead of BatchNorm"
    if any("SpectralNorm" in name for name in [type(owner).__name__, *hooks]):
        return "Leave spectral normalisation out, or bound the weights in another way"
    return f"Make what {type(owner).__name__} keeps a parameter, or leave it out"


def _dtype(model: nn.Module) -> torch.dtype:
    return next((p.dtype for p in model.parameters()), torch.float32)


def _after(body: nn.Sequential, shape: tuple[int, ...]) -> int:
    """How many features ``body`` gives for one example of ``shape``."""
    with torch.no_grad():
        return int(body(torch.zeros(1, *shape)).numel())


def _classifier(body: list[nn.Module], shape: tuple[int, ...], *widths: int) -> nn.Sequential:
    """``body``, flattened, then fully connected layers of ``widths`` with ReLU between them."""
    layers: list[nn.Module] = [*body, nn.Flatten()]
    features = _after(nn.Sequential(*layers), shape)
    for i, width in enumerate(widths):
        layers.append(nn.Linear(features, width))
        if i < len(widths) - 1:
            layers.append(nn.ReLU())
        features = width
    return nn.Sequential(*layers)


Init: TypeAlias = Literal["he", "pytorch"]
"""How a network starts: He et al. 2015 (normal, variance 2 over fan-in), or PyTorch's own."""


def _initialised(model: nn.Sequential, init: Init) -> nn.Sequential:
    """``model``, started as ``init`` says.

    From PyTorch's default, adversarial training at ε = 0.3 rests on a constant classifier for tens
    of rounds, and an attack can keep it there; from He's it leaves at once.
    """
    if init == "he":
        for module in model.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
    return model


@component
class MnistCnn:
    """The MNIST network of Madry et al. 2018: FAT's for MNIST and Fashion-MNIST.

    Convolutions 32 and 64 of 5 × 5, each with ReLU and 2 × 2 max pooling; 1,024 hidden units.
    3,274,634 parameters on MNIST.

    Differences from the paper: FAT names no network; this is the one its reference [19] trains. It
    gives no initialisation either, for which see ``init``.
    """

    init: Init = "he"
    name: Literal["mnist-cnn"] = "mnist-cnn"

    def build(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        """The network for images [c, h, w] = ``shape``."""
        body = [
            *(nn.Conv2d(shape[0], 32, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(32, 64, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        ]
        return _initialised(_classifier(body, shape, 1024, classes), self.init)


@component
class MnistCnnSmall:
    """A small MNIST network for machines without a GPU, after Wong & Kolter 2018.

    Convolutions 16 and 32 of 4 × 4, stride 2; 100 hidden units. 166,406 parameters on MNIST.
    """

    init: Init = "he"
    name: Literal["mnist-cnn-small"] = "mnist-cnn-small"

    def build(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        """The network for images [c, h, w] = ``shape``."""
        body = [
            *(nn.Conv2d(shape[0], 16, 4, stride=2, padding=1), nn.ReLU()),
            *(nn.Conv2d(16, 32, 4, stride=2, padding=1), nn.ReLU()),
        ]
        return _initialised(_classifier(body, shape, 100, classes), self.init)


@component
class DigitsCnn:
    """A network for the 8 × 8 digits: convolutions 16 and 32 of 3 × 3, 64 hidden units."""

    name: Literal["digits-cnn"] = "digits-cnn"

    def build(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        """The network for images [c, h, w] = ``shape``."""
        body = [
            *(nn.Conv2d(shape[0], 16, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU()),
        ]
        return _classifier(body, shape, 64, classes)


@component
class CifarCnn:
    """A CIFAR-10 network with GroupNorm, which a federation can aggregate.

    Three stages of two 3 × 3 convolutions (``width``, 2 and 4 times as many), each with GroupNorm
    in groups of 8 channels and ReLU; the second of a stage has stride 2; global average pooling.

    Differences from the paper: FAT names no CIFAR-10 network.
    """

    width: Literal[16, 32, 64, 128] = 64
    name: Literal["cifar-cnn"] = "cifar-cnn"

    def build(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        """The network for images [c, h, w] = ``shape``."""
        body: list[nn.Module] = []
        channels = shape[0]
        for width in (self.width, 2 * self.width, 4 * self.width):
            for stride in (1, 2):
                convolution = nn.Conv2d(channels, width, 3, stride=stride, padding=1, bias=False)
                body += [convolution, nn.GroupNorm(width // 8, width), nn.ReLU()]
                channels = width
        return _classifier([*body, nn.AdaptiveAvgPool2d(1)], shape, classes)


@component
class LeafCnn:
    """LEAF's FE-MNIST network (Caldas et al. 2018).

    Convolutions 32 and 64 of 5 × 5, each with ReLU and 2 × 2 max pooling; 2,048 hidden units.
    6,603,710 parameters for 62 classes.
    """

    name: Literal["leaf-cnn"] = "leaf-cnn"

    def build(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        """The network for images [c, h, w] = ``shape``."""
        body = [
            *(nn.Conv2d(shape[0], 32, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(32, 64, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        ]
        return _classifier(body, shape, 2048, classes)


@component
class EluCnn:
    """DRFL's MNIST network: smooth, for the Wasserstein certificate (Sinha et al. 2018).

    Convolutions 8 × 8 (``width``, stride 2), 6 × 6 (2 × ``width``, stride 2) and 5 × 5
    (2 × ``width``) with ELU, then one linear layer. With width 64 the third convolution holds the
    409,728 numbers that DRFL takes as the state of its learned attack.

    Differences from the paper: it gives neither padding nor channel counts; both are those of the
    code of Sinha et al. (padding 3 in the first layer, none after). ``width: 16`` is the
    quarter-width variant for 2-core machines.
    """

    width: Literal[16, 32, 64] = 64
    name: Literal["elu-cnn"] = "elu-cnn"

    def build(self, shape: tuple[int, ...], classes: int) -> EluNetwork:
        """The network for images [c, h, w] = ``shape``."""
        network = EluNetwork.build(shape[0], self.width)
        network.append(nn.Linear(_after(nn.Sequential(*network), shape), classes))
        return network


@component
class RingMlp:
    """DRFL's network for the ring: layers 2 → 4 → 2 → 2 with ELU. 28 parameters."""

    name: Literal["ring-mlp"] = "ring-mlp"

    def build(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        """The network for points [features] = ``shape``."""
        features = shape[0]
        return nn.Sequential(
            *(nn.Linear(features, 4), nn.ELU()), *(nn.Linear(4, 2), nn.ELU()), nn.Linear(2, classes)
        )


MODELS: tuple[type, ...] = (
    DigitsCnn,
    MnistCnn,
    MnistCnnSmall,
    CifarCnn,
    LeafCnn,
    EluCnn,
    RingMlp,
)
if TYPE_CHECKING:
    AnyModel: TypeAlias = ModelSpec | nn.Module
else:
    AnyModel: Any = one_of("model", *MODELS, has=("build",), or_is=(nn.Module, "a torch.nn.Module"))
