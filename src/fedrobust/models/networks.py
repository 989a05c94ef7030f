"""The networks of both papers, by name: from images in [0, 1] to logits."""

from typing import Literal, TypeAlias

import torch
from torch import nn

from fedrobust.config.component import component
from fedrobust.models.elu_network import EluNetwork


def _after(body: nn.Sequential, shape: tuple[int, ...]) -> int:
    """Return how many features ``body`` gives for one example of ``shape``."""
    with torch.no_grad():
        return int(body(torch.zeros(1, *shape)).numel())


def _two_convolutions(shape: tuple[int, ...], width: int) -> list[nn.Module]:
    """Return convolutions ``width`` and 2 × ``width`` of 5 × 5, with ReLU and 2 × 2 max pooling."""
    return [
        *(nn.Conv2d(shape[0], width, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(width, 2 * width, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
    ]


def _classifier(body: list[nn.Module], shape: tuple[int, ...], *widths: int) -> nn.Sequential:
    """Return ``body``, flattened, then linear layers of ``widths`` with ReLU between them."""
    layers: list[nn.Module] = [*body, nn.Flatten()]
    features = _after(nn.Sequential(*layers), shape)
    for i, width in enumerate(widths):
        layers.append(nn.Linear(features, width))
        if i < len(widths) - 1:
            layers.append(nn.ReLU())
        features = width
    return nn.Sequential(*layers)


Init: TypeAlias = Literal["he", "pytorch", "madry", "glorot"]
"""The initialisation: He et al. 2015 (normal, variance 2 over fan-in), PyTorch's own, that of
Madry et al. 2018 (normal of deviation 0.1, cut at 0.2; all biases 0.1), or Glorot & Bengio 2010
(uniform, variance 2 over the sum of fan-in and fan-out; biases 0), which is TensorFlow's own."""


def _initialised(model: nn.Sequential, init: Init) -> nn.Sequential:
    """Return ``model``, initialised as ``init`` says.

    With PyTorch's default, adversarial training at ε = 0.3 stays at a constant classifier for tens
    of rounds, and an attack can keep it there. With He's initialisation it leaves at once.
    """
    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    for layer in layers if init != "pytorch" else []:
        if init == "he":
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        elif init == "madry":
            nn.init.trunc_normal_(layer.weight, std=0.1, a=-0.2, b=0.2)
        else:
            nn.init.xavier_uniform_(layer.weight)
        if layer.bias is not None:
            nn.init.constant_(layer.bias, 0.1 if init == "madry" else 0.0)
    return model


@component
class MnistCnn:
    """The MNIST network of Madry et al. 2018: FAT's network for MNIST and Fashion-MNIST.

    Convolutions 32 and 64 of 5 × 5, each with ReLU and 2 × 2 max pooling; 1,024 hidden units.
    3,274,634 parameters on MNIST. ``width`` is the number of channels of the first convolution; the
    rest is in proportion. ``width: 8`` has 206,954 parameters.

    Differences from the paper: FAT names no network; this is the one that its reference [19]
    trains. FAT gives no initialisation either: see ``init``.
    """

    init: Init = "he"
    width: Literal[4, 8, 16, 32] = 32
    name: Literal["mnist-cnn"] = "mnist-cnn"

    def build(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        """Return the network for images [c, h, w] = ``shape``."""
        body = _two_convolutions(shape, self.width)
        return _initialised(_classifier(body, shape, 32 * self.width, classes), self.init)


@component
class MnistCnnSmall:
    """A small MNIST network for machines without a GPU, after Wong & Kolter 2018.

    Convolutions 16 and 32 of 4 × 4, stride 2; 100 hidden units. 166,406 parameters on MNIST.
    """

    init: Init = "he"
    name: Literal["mnist-cnn-small"] = "mnist-cnn-small"

    def build(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        """Return the network for images [c, h, w] = ``shape``."""
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
        """Return the network for images [c, h, w] = ``shape``."""
        body = [
            *(nn.Conv2d(shape[0], 16, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU()),
        ]
        return _classifier(body, shape, 64, classes)


@component
class CifarCnn:
    """A CIFAR-10 network with GroupNorm, which a federation can aggregate.

    Three stages of two 3 × 3 convolutions (``width``, 2 and 4 times as many), each with GroupNorm
    in groups of 8 channels and ReLU; the second convolution of each stage has stride 2; then global
    average pooling.

    Differences from the paper: FAT names no CIFAR-10 network.
    """

    width: Literal[16, 32, 64, 128] = 64
    name: Literal["cifar-cnn"] = "cifar-cnn"

    def build(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        """Return the network for images [c, h, w] = ``shape``."""
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
    6,603,710 parameters for 62 classes. ``width`` is the number of channels of the first
    convolution; the rest is in proportion. ``width: 16`` has 1,683,454 parameters. LEAF's code
    leaves the initialisation to TensorFlow, whose own is Glorot's.
    """

    init: Init = "glorot"
    width: Literal[8, 16, 32] = 32
    name: Literal["leaf-cnn"] = "leaf-cnn"

    def build(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        """Return the network for images [c, h, w] = ``shape``."""
        body = _two_convolutions(shape, self.width)
        return _initialised(_classifier(body, shape, 64 * self.width, classes), self.init)


@component
class EluCnn:
    """DRFL's MNIST network: smooth, for the Wasserstein certificate (Sinha et al. 2018).

    Convolutions 8 × 8 (``width``, stride 2), 6 × 6 (2 × ``width``, stride 2) and 5 × 5
    (2 × ``width``) with ELU, then one linear layer. With width 64 the third convolution holds the
    409,728 numbers that DRFL takes as the state of its learned attack.

    Differences from the paper: the paper gives neither padding nor channel counts; both are taken
    from the code of Sinha et al. (padding 3 in the first layer, none after). ``width: 16`` is the
    quarter-width variant for 2-core machines.
    """

    width: Literal[16, 32, 64] = 64
    name: Literal["elu-cnn"] = "elu-cnn"

    def build(self, shape: tuple[int, ...], classes: int) -> EluNetwork:
        """Return the network for images [c, h, w] = ``shape``."""
        network = EluNetwork.build(shape[0], self.width)
        network.append(nn.Linear(_after(nn.Sequential(*network), shape), classes))
        return network


@component
class RingMlp:
    """DRFL's network for the ring: layers 2 → 4 → 2 → 2 with ELU. 28 parameters."""

    name: Literal["ring-mlp"] = "ring-mlp"

    def build(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        """Return the network for points [features] = ``shape``."""
        features = shape[0]
        return nn.Sequential(
            *(nn.Linear(features, 4), nn.ELU()), *(nn.Linear(4, 2), nn.ELU()), nn.Linear(2, classes)
        )
