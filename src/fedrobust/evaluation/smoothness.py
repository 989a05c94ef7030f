"""A proved bound on the curvature of a network's loss in its input, from its layers' norms."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedrobust.models.elu_network import EluNetwork

_LARGEST = 4096
"""Side of the largest matrix whose norm is computed exactly. Larger ones get a cheaper bound."""
_CHUNK = 256
_ENTRIES = 1 << 24
"""The most entries of inputs that are convolved at a time."""


def smoothness_bound(model: nn.Module, shape: tuple[int, ...]) -> float | None:
    """Return L with ‖∇ₓ l(x) − ∇ₓ l(x′)‖₂ ≤ L ‖x − x′‖₂ for all x, x′; None where none is proved.

    l is the cross-entropy of the model's logits. For g after f, with Lipschitz constants ℓ and
    smoothness constants β: ℓ(g∘f) = ℓ_g ℓ_f and β(g∘f) = β_g ℓ_f² + ℓ_g β_f. A linear layer or a
    convolution has ℓ = ‖W‖₂ and β = 0, ELU ℓ = 1 and β = 1 (α = 1), the cross-entropy ℓ = √2 and
    β = ½. ``shape`` is the shape of one example. The bound covers sequences of these layers and of
    layers that only reshape. Any other layer gives None, above all ReLU and max pooling, which are
    not smooth; so do weights that are not finite.

    Reference: Sinha, Namkoong, Duchi, "Certifying Some Distributional Robustness with Principled
    Adversarial Training", ICLR 2018, §2.1 and proposition 3.
    """
    layers = _layers(model)
    # This comes before any norm is computed, which takes minutes for large convolutions.
    if layers is None or not all(map(_understood, layers)):
        return None
    if not all(value.isfinite().all() for value in model.parameters()):
        return None
    lipschitz, smooth = 1.0, 0.0
    example = torch.zeros(1, *shape, dtype=torch.float64)
    for layer in layers:
        ell, beta = _bounds(layer, example)
        lipschitz, smooth = ell * lipschitz, beta * lipschitz**2 + ell * smooth
        example = _apply(layer, example)
    return 0.5 * lipschitz**2 + 2**0.5 * smooth


def _layers(model: nn.Module) -> list[nn.Module] | None:
    """Return the layers in order; None where something might change what they compute.

    A subclass may override ``forward``. A hook may change inputs, outputs and gradients, and the
    residuals are measured by gradients.
    """
    forward = (model._forward_hooks, model._forward_pre_hooks)
    backward = (model._backward_hooks, model._backward_pre_hooks)
    if any((*forward, *backward)) or "forward" in vars(model):
        return None
    if not isinstance(model, nn.Sequential) or type(model) not in (nn.Sequential, EluNetwork):
        return [model]
    parts = [_layers(part) for part in model]
    return None if None in parts else [layer for part in parts for layer in part or []]


def _understood(layer: nn.Module) -> bool:
    """Whether :func:`_bounds` has bounds for this kind of layer."""
    kind = type(layer)
    if kind is nn.ELU:
        return bool(layer.alpha == 1)
    if kind is nn.Dropout:
        return not layer.training
    if isinstance(layer, nn.Conv2d) and kind is nn.Conv2d:
        return layer.padding_mode == "zeros"
    return kind in (nn.Flatten, nn.Identity, nn.Linear)


def _bounds(layer: nn.Module, example: Tensor) -> tuple[float, float]:
    """Return ℓ and β of one layer at inputs shaped like ``example``."""
    if isinstance(layer, nn.ELU):
        return 1.0, 1.0
    if isinstance(layer, nn.Linear):
        return float(torch.linalg.matrix_norm(layer.weight.detach().double(), 2)), 0.0
    if isinstance(layer, nn.Conv2d):
        return _convolution_norm(layer, example), 0.0
    return 1.0, 0.0


def _apply(layer: nn.Module, example: Tensor) -> Tensor:
    with torch.no_grad():
        if isinstance(layer, nn.Conv2d):
            return _convolve(layer, example)
        if isinstance(layer, nn.Linear):
            return example.new_zeros(*example.shape[:-1], layer.out_features)
        result: Tensor = layer(example)
        return result


def _convolve(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """Apply the linear part of the layer."""
    weight = layer.weight.detach().double()
    return F.conv2d(
        x, weight.to(x.device), None, layer.stride, layer.padding, layer.dilation, layer.groups
    )


def _convolution_norm(layer: nn.Conv2d, example: Tensor) -> float:
    """Return ‖A‖₂ of the convolution as a matrix A, from AᵀA or AAᵀ, whichever is smaller.

    If both are too large, return the bound √(‖A‖₁‖A‖_∞). These norms are the largest sums of
    absolute weights that meet in one input and in one output.
    """
    size = example.numel()
    output = _convolve(layer, example)
    if min(size, output.numel()) > _LARGEST:
        weight = layer.weight.detach().double().abs()
        into = weight.sum(dim=(1, 2, 3)).max()
        out_of = weight.sum(dim=(0, 2, 3)).max()  # over all groups, which is no less
        return float((into * out_of).sqrt())
    if size <= output.numel():
        columns = torch.eye(size, dtype=torch.float64).view(size, *example.shape[1:])
        rows = [_convolve(layer, part).flatten(1) for part in torch.split(columns, _CHUNK)]
        gram = torch.cat(rows) @ torch.cat(rows).T
    else:
        columns = torch.eye(output.numel(), dtype=torch.float64).view(-1, *output.shape[1:])
        chunks = torch.split(columns, max(1, min(_CHUNK, _ENTRIES // size)))
        gram = torch.cat([_there_and_back(layer, example, part) for part in chunks])
    return float(torch.linalg.eigvalsh(gram)[-1].clamp(min=0).sqrt())


def _there_and_back(layer: nn.Conv2d, example: Tensor, outputs: Tensor) -> Tensor:
    """Return the rows of AAᵀ that ``outputs`` [k, ...] name, without all of A."""
    with torch.enable_grad():
        x = example.expand(len(outputs), *example.shape[1:]).detach().clone().requires_grad_()
        (back,) = torch.autograd.grad(_convolve(layer, x), x, outputs)
    return _convolve(layer, back).flatten(1)
