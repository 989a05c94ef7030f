"""How a run is computed on this machine: fixed at its start, stored with it, kept on resume."""

import math
import os
import platform
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Annotated, Any, Literal, TypeAlias

import torch
from annotated_types import Le
from pydantic import model_validator
from torch import nn

from fedrobust.compute import captured
from fedrobust.compute.frozen import Ascended, fastest
from fedrobust.compute.memory import activations, available_memory
from fedrobust.compute.network import differentiable, evaluating, frozen
from fedrobust.compute.precision import Precision, reduced
from fedrobust.compute.randomness import isolated
from fedrobust.compute.units import shared_by, workers
from fedrobust.config.component import component
from fedrobust.config.scalars import Count, Positive
from fedrobust.errors import ConfigError, PrecisionWarning

Gradients: TypeAlias = Literal["autograd", "compiled", "vmap"]
"""How the clients' gradients are computed: one after another, or many at once."""
SIZES = (64, 128, 256, 512, 1024)
OF_NO_BIT = ("threads", "backend", "address", "gpu_share", "block")
"""The fields of a plan that change no bit of a result: each resume may choose others."""
GPU_SIZES = (256, 1024, 4096, 16384)
_UNMEASURED = 256
"""The batch for a model without an input gradient, for which no inner maximisation is possible."""


@component
class Execution:
    """The execution plan: for the same plan, the same seed gives bit-identical results.

    A field that is left out is chosen when a run starts, and the saved config contains the choice:
    the ``device``, a GPU where there is one; ``batch``, the number of examples in a unit of work,
    which is measured to be fastest for the model; and the clients' ``gradients``. These are
    ``compiled`` loops where the loops support the model (small networks on a CPU); on a GPU
    ``vmap``, one backward pass for all clients of a unit, where the model and the optimiser allow
    it; else ``autograd``. ``processor`` is the kind of processor on which the run began.

    ``threads`` is the number of units that are computed at a time on this machine, all cores if it
    is left out. It changes no bit of a result, and each resume may choose another.

    With ``backend: ray`` the workers of a Ray cluster compute the clients' local training and the
    evaluations, with the same bits. ``address`` is that of the cluster, HOST:PORT, or ``auto``
    for the one to which this machine belongs (if left out, RAY_ADDRESS or else ``auto``). On GPUs
    each unit takes the share ``gpu_share`` of one. With ``block`` the updates stay with the workers
    and the server holds so many coordinates of all of them at a time, for rules that work in blocks
    of coordinates. Each resume may choose others, too.

    With ``precision: bfloat16`` the clients' linear layers and convolutions, including inner
    maximisations, run in bfloat16 by PyTorch's autocast. This is faster where the processor has
    instructions for it and many times slower elsewhere, which a ``PrecisionWarning`` reports.
    With ``precision: tf32``, which needs a GPU that has it, factors of products are rounded to 10
    bits. Parameters, updates and all evaluations stay float32, and compiled gradients float64.
    """

    device: Literal["cpu", "cuda"] | None = None
    threads: Annotated[Count, Le(1024)] | None = None  # no machine has more; each costs memory
    batch: Annotated[Count, Le(2**20)] | None = None
    gradients: Gradients | None = None
    precision: Precision = "float32"
    processor: str | None = None
    backend: Literal["local", "ray"] = "local"
    address: str | None = None
    gpu_share: Annotated[Positive, Le(1)] = 1.0
    block: Count | None = None

    @model_validator(mode="after")
    def _fits(self) -> "Execution":
        if self.block is not None and self.backend != "ray":
            raise ValueError(
                "block goes with backend: ray, which leaves updates with the workers; with "
                "backend: local they are all in memory, so leave block out"
            )
        return self

    def resolve(self, model: nn.Module, shape: tuple[int, ...], classes: int) -> "Execution":
        """Return the plan with all fields but ``gradients``, which depends on more than the model.

        Raises: ``ConfigError`` where the device does not exist, or does not support the precision.
        """
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ConfigError("execution.device: there is no CUDA device; use cpu or leave it out")
        device = self.device or default_device()
        if self.precision == "tf32" and not has_tf32(device):
            raise ConfigError(
                f"execution.precision: tf32 needs a GPU that has it, and the device is {device}; "
                "use float32"
            )
        if device == "cuda" and self.precision == "bfloat16" and not torch.cuda.is_bf16_supported():
            raise ConfigError("execution.precision: this GPU has no bfloat16; use float32")
        warn_emulated("execution.precision", self.precision, device)
        plan = replace(
            self,
            device=device,
            batch=self.batch or 1,
            processor=processor(device),
        )
        if self.batch is not None:
            return plan
        with plan.active(), reduced(device, self.precision):
            batch = fastest_batch(model.to(device), shape, classes)
        return replace(plan, batch=batch)

    @property
    def workers(self) -> int:
        """How many units are computed at a time on this machine."""
        return 1 if self.device == "cuda" else self.threads or workers()

    @contextmanager
    def active(self) -> Iterator[None]:
        """Inside this context, PyTorch computes in repeatable full float32, unit by unit."""
        precision = torch.get_float32_matmul_precision()
        strict = torch.are_deterministic_algorithms_enabled()
        torch.set_float32_matmul_precision("highest")
        if self.device == "cuda":
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS requires it
            torch.use_deterministic_algorithms(True)
        cudnn = torch.backends.cudnn.flags(
            enabled=True, benchmark=False, deterministic=True, allow_tf32=False
        )
        try:
            with cudnn, shared_by(self.workers):
                yield
        finally:
            torch.set_float32_matmul_precision(precision)
            if torch.are_deterministic_algorithms_enabled() != strict:  # the call is slow
                torch.use_deterministic_algorithms(strict)


def fastest_batch(model: nn.Module, shape: tuple[int, ...], classes: int) -> int:
    """Return the batch of :data:`SIZES`, or :data:`GPU_SIZES`, with the most gradients a second.

    A larger batch is taken only if it is 10 % faster: more units share better among workers. No
    batch is tried that would take over a second.
    """
    first = next(model.parameters())
    sizes, room = (GPU_SIZES, _room(model, shape)) if first.is_cuda else (SIZES, math.inf)
    best, best_rate = sizes[0], 0.0
    with frozen(model), evaluating(model), isolated():
        for size in sizes:
            if size > room:
                break
            x = torch.full((size, *shape), 0.5, dtype=first.dtype, device=first.device)
            y = torch.arange(size, device=first.device) % classes
            if not differentiable(model, x[:1]):
                return _UNMEASURED
            network = fastest(model, x)
            moving = network.enter(x)
            network.input_gradient(moving, y)
            seconds = min(_time(network, moving, y) for _ in range(3))
            if size / seconds > 1.1 * best_rate:
                best, best_rate = size, size / seconds
            if seconds > 0.5:
                break
    captured.forget(model)
    return best


def _room(model: nn.Module, shape: tuple[int, ...]) -> float:
    """Return how many examples' activations take half of the free memory of a GPU."""
    first = next(model.parameters())
    x = torch.full((2, *shape), 0.5, dtype=first.dtype, device=first.device)
    return available_memory("cuda") / 2 / max(activations(model, x), 1)


def _time(network: Ascended, x: torch.Tensor, y: torch.Tensor) -> float:
    start = time.perf_counter()
    gradient = network.input_gradient(x, y)
    float(gradient.sum())  # wait for a GPU
    return time.perf_counter() - start


def warn_emulated(key: str, precision: str, device: str) -> None:
    """Warn where ``key`` requests bfloat16 on a processor that only emulates it."""
    if precision == "bfloat16" and device == "cpu" and emulates_bfloat16():
        warnings.warn(
            f"{key}: this processor ({torch.backends.cpu.get_cpu_capability()}) has no "
            "instructions for bfloat16, so that rounds may take ten times as long as in float32; "
            "use float32",
            PrecisionWarning,
            stacklevel=3,
        )


def emulates_bfloat16() -> bool:
    """Whether this is an x86 processor without instructions for products of bfloat16.

    AVX-512 alone has none: there bfloat16 takes three times as long as float32.
    """
    if platform.machine() not in {"x86_64", "AMD64"}:
        return False
    known = _capabilities()
    if not known:
        return not torch.backends.cpu.get_cpu_capability().startswith("AVX512")
    return not (known.get("avx512_bf16") or known.get("amx_bf16"))


def processor(device: str) -> str:
    """Return the kind of processor, on which the rounding of PyTorch's libraries depends."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    name = _capabilities().get("cpu_name") or platform.machine()
    return f"{name} {torch.backends.cpu.get_cpu_capability()}"


def _capabilities() -> dict[str, Any]:
    """Return what PyTorch knows of this processor; nothing where it is too old to say."""
    ask = getattr(torch.cpu, "get_capabilities", dict)
    return dict(ask())


def has_tf32(device: str) -> bool:
    """Whether ``device`` is a GPU with TF32: NVIDIA's Ampere or newer."""
    return device == "cuda" and torch.cuda.get_device_capability()[0] >= 8


def default_device() -> Literal["cpu", "cuda"]:
    """Return ``cuda`` where there is a GPU, else ``cpu``."""
    return "cuda" if torch.cuda.is_available() else "cpu"
