"""The optimisers of local training: PyTorch's own, on the flat parameter vector."""

from inspect import unwrap
from typing import Annotated, Literal, Protocol, TypeAlias

import torch
from pydantic import model_validator
from torch import nn

from fedrobust.config.component import component
from fedrobust.config.kind import Kind
from fedrobust.config.scalars import Decay, Flag, NonNegative, Positive


# PyTorch keeps its compiler out of its optimisers by decorators which import it: that takes longer
# than to import the rest of PyTorch. Nothing is compiled here, so the methods go without them.
class _PlainSgd(torch.optim.SGD):
    add_param_group = unwrap(torch.optim.SGD.add_param_group)
    step = torch.no_grad()(unwrap(torch.optim.SGD.step))


class _PlainAdam(torch.optim.Adam):
    add_param_group = unwrap(torch.optim.Adam.add_param_group)
    step = torch.no_grad()(unwrap(torch.optim.Adam.step))


class OptimizerSpec(Protocol):
    """Something that builds a ``torch.optim.Optimizer``."""

    @property
    def lr(self) -> float:
        """The learning rate."""
        ...

    def build(self, parameter: nn.Parameter) -> torch.optim.Optimizer:
        """Return the optimiser of one flat parameter vector."""
        ...

    def slots(self) -> int:
        """The number of state vectors [d] that it keeps."""
        ...


OPTIMIZER = Kind("optimizer", has=("build", "slots"), holds={"lr": Positive})
AnyOptimizer: TypeAlias = Annotated[OptimizerSpec, OPTIMIZER]


@component
class Sgd:
    """SGD, with momentum if asked for: v ← μv + g, θ ← θ - η v (``torch.optim.SGD``)."""

    lr: Positive
    momentum: Decay = 0.0
    weight_decay: NonNegative = 0.0
    nesterov: Flag = False
    name: Literal["sgd"] = "sgd"

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> "Sgd":
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs a momentum above 0")
        return self

    def build(self, *parameters: nn.Parameter) -> torch.optim.Optimizer:
        """Return ``torch.optim.SGD`` for one client's vector, or for several clients' at once."""
        return _PlainSgd(
            parameters,
            lr=self.lr,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            nesterov=self.nesterov,
        )

    def slots(self) -> int:
        """One state vector for the momentum, if there is any."""
        return int(self.momentum > 0)


@component
class Adam:
    """Adam (Kingma & Ba 2015), as ``torch.optim.Adam``."""

    lr: Positive
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    eps: Positive = 1e-8
    weight_decay: NonNegative = 0.0
    name: Literal["adam"] = "adam"

    def build(self, *parameters: nn.Parameter) -> torch.optim.Optimizer:
        """Return ``torch.optim.Adam`` for one client's vector or several, in one fused kernel."""
        return _PlainAdam(
            parameters,
            lr=self.lr,
            betas=self.betas,
            eps=self.eps,
            weight_decay=self.weight_decay,
            fused=True,
        )

    def slots(self) -> int:
        """Two state vectors: the two moments."""
        return 2


OPTIMIZERS = OPTIMIZER.of(Sgd, Adam)
