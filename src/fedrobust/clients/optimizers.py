"""The optimisers of local training: PyTorch's own, on the flat parameter vector."""

from collections.abc import Mapping
from dataclasses import field
from importlib import import_module
from inspect import unwrap
from typing import Annotated, Any, Literal, Protocol, TypeAlias

import torch
from pydantic import field_validator, model_validator
from torch import Tensor, nn

from fedrobust.config.component import component
from fedrobust.config.kind import Kind
from fedrobust.config.scalars import Decay, Flag, NonNegative, Positive
from fedrobust.config.text import reason


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


def _of_torch(target: Any, name: str, given: Mapping[str, Any]) -> "TorchOptim | None":
    """Return the optimiser that names a class of PyTorch's kind; None for any other object."""
    if not isinstance(target, type) or not issubclass(target, torch.optim.Optimizer):
        return None
    settings = {key: value for key, value in given.items() if key not in ("lr", "settings")}
    if "lr" not in given:
        raise ValueError("lr is required")
    return TorchOptim(name, lr=given["lr"], settings={**settings, **given.get("settings", {})})


OPTIMIZER = Kind(
    "optimizer",
    has=("build", "slots"),
    holds={"lr": Positive},
    calls={"build": "parameter", "slots": ""},
    adapt=_of_torch,
)
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


@component
class TorchOptim:
    """Any optimiser class of PyTorch's kind: {name: "torch.optim:AdamW", lr: 1e-3, eps: 1e-6}.

    ``name`` is the class or module:Class, and ``settings`` are its arguments besides the learning
    rate; in a config they may stand beside ``lr``. It trains the flat vector of all parameters, so
    optimisers that treat a matrix by its shape are not the ones that they are elsewhere.

    Raises: ``ValueError`` where the class refuses the settings, or cannot step from a gradient
    alone, as L-BFGS cannot.
    """

    name: str
    lr: Positive
    settings: dict[str, Any] = field(default_factory=dict)

    @field_validator("name", mode="before")
    @classmethod
    def _path(cls, value: Any) -> Any:
        return f"{value.__module__}:{value.__qualname__}" if isinstance(value, type) else value

    @model_validator(mode="after")
    def _steps(self) -> "TorchOptim":
        self.slots()
        return self

    @property
    def torchs(self) -> bool:
        """Whether the class is PyTorch's own, which draws nothing; another may do anything."""
        return self.name.partition(".")[0] == "torch"

    def build(self, *parameters: nn.Parameter) -> torch.optim.Optimizer:
        """Return the optimiser of one client's vector."""
        module, _, name = self.name.partition(":")
        kind = getattr(import_module(module), name)
        found: torch.optim.Optimizer = kind(list(parameters), lr=self.lr, **self.settings)
        return found

    def slots(self) -> int:
        """Return how many vectors it keeps, counted after a step on three numbers."""
        try:
            trial, optimizer = _tried(self)
            optimizer.step()
        except Exception as error:  # a class that is not fedrobust's may fail in any way
            raise ValueError(f"{self.name} cannot step: {reason(error)}") from error
        kept = optimizer.state[trial].values()
        return sum(isinstance(value, Tensor) and value.shape == trial.shape for value in kept)


def changed_groups(spec: OptimizerSpec) -> list[str]:
    """Return which entries of its parameter groups an optimiser changes with every step.

    Nothing is said of one that does not step on three numbers: it may be made for a model.
    """
    try:
        _, optimizer = _tried(spec)
        optimizer.step()  # the first one may fill in constants
        before = [_entries(group) for group in optimizer.param_groups]
        optimizer.step()
    except Exception:  # a user's class may fail in any way; a client's training then says how
        return []
    after = map(_entries, optimizer.param_groups)
    return sorted({k for b, a in zip(before, after, strict=True) for k in a if a[k] != b.get(k)})


def _tried(spec: OptimizerSpec) -> tuple[nn.Parameter, torch.optim.Optimizer]:
    """Return three numbers with a gradient, and their optimiser."""
    trial = nn.Parameter(torch.zeros(3))
    trial.grad = torch.ones(3)
    return trial, spec.build(trial)


def _entries(group: Mapping[str, Any]) -> dict[str, str]:
    """Return the entries besides the parameters, as texts, since tensors have no plain equality."""
    return {key: repr(value) for key, value in group.items() if key != "params"}


OPTIMIZERS = OPTIMIZER.of(Sgd, Adam)
