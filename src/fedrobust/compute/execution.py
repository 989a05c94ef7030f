"""How a run is computed on this machine: fixed at its start, stored with it, kept on resume."""

import os
import platform
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Annotated, Literal

import torch
from annotated_types import Le
from torch import nn

from fedrobust.compute.frozen import Ascended, fastest
from fedrobust.compute.network import differentiable, evaluating, frozen
from fedrobust.compute.randomness import isolated
from fedrobust.config.component import component
from fedrobust.config.scalars import Count
from fedrobust.errors import ConfigError, PrecisionWarning

SIZES = (64, 128, 256, 512, 1024)
_UNMEASURED = 256
"""The batch for a model without an input gradient, for which no inner maximisation is possible."""


@component
class Execution:
    """The execution plan: for the same plan, the same seed gives bit-identical results.

    A field that is left out is chosen when a run starts: a GPU where there is one, all cores, the
    ``batch`` of the inner maximisation that is measured to be fastest for the model, and the
    clients' ``gradients``. These are ``compiled`` loops where the loops support the model (small
    networks on a CPU), else ``autograd``. The saved config contains the choice.

    With ``precision: bfloat16`` the clients' linear layers and convolutions, including inner
    maximisations, run in bfloat16 by PyTorch's autocast. This is faster where the processor has
    instructions for it and many times slower elsewhere, which a ``PrecisionWarning`` reports.
    Parameters, updates and all evaluations stay float32, and compiled gradients stay float64.
    """

    device: Literal["cpu", "cuda"] | None = None
    threads: Annotated[Count, Le(1024)] | None = None  # no machine has more; each costs memory
    batch: Annotated[Count, Le(2**20)] | None = None
    gradients: Literal["autograd", "compiled"] | None = None
    precision: Literal["float32", "bfloat16"] = "float32"

    def resolve(self, model: nn.Module, shape: tuple[int, ...], classes: int) -> "Execution":
        """Return the plan with all fields but ``gradients``, which depends on more than the model.

        Raises: ``ConfigError`` where the device does not exist, or does not support the precision.
        """
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ConfigError("execution.device: there is no CUDA device; use cpu or leave it out")
        device = self.device or default_device()
        if device == "cuda" and self.precision == "bfloat16" and not torch.cuda.is_bf16_supported():
            raise ConfigError("execution.precision: this GPU has no bfloat16; use float32")
        warn_emulated("execution.precision", self.precision, device)
        plan = replace(
            self,
            device=device,
            threads=self.threads or torch.get_num_threads(),
            batch=self.batch or 1,
        )
        if self.batch is not None:
            return plan
        low = torch.autocast(device, torch.bfloat16, enabled=self.precision == "bfloat16")
        with plan.active(), low:
            batch = fastest_batch(model.to(device), shape, classes)
        return replace(plan, batch=batch)

    @contextmanager
    def active(self) -> Iterator[None]:
        """Inside this context, PyTorch uses the plan's threads and repeatable full float32."""
        threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
        strict = torch.are_deterministic_algorithms_enabled()
        torch.set_num_threads(self.threads or threads)
        torch.set_float32_matmul_precision("highest")
        if self.device == "cuda":
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS requires it
            torch.use_deterministic_algorithms(True)
        cudnn = torch.backends.cudnn.flags(
            enabled=True, benchmark=False, deterministic=True, allow_tf32=False
        )
        try:
            with cudnn:
                yield
        finally:
            torch.set_num_threads(threads)
            torch.set_float32_matmul_precision(precision)
            if torch.are_deterministic_algorithms_enabled() != strict:  # the call is slow
                torch.use_deterministic_algorithms(strict)


def fastest_batch(model: nn.Module, shape: tuple[int, ...], classes: int) -> int:
    """Return the batch of :data:`SIZES` with the most input gradients a second.

    A larger batch is taken only if it is 5 % faster, so a tie takes the smaller one. No batch is
    tried that would take over a second.
    """
    first = next(model.parameters())
    best, best_rate = SIZES[0], 0.0
    with frozen(model), evaluating(model), isolated():
        for size in SIZES:
            x = torch.full((size, *shape), 0.5, dtype=first.dtype, device=first.device)
            y = torch.arange(size, device=first.device) % classes
            if not differentiable(model, x[:1]):
                return _UNMEASURED
            network = fastest(model, x)
            moving = network.enter(x)
            network.input_gradient(moving, y)
            seconds = min(_time(network, moving, y) for _ in range(3))
            if size / seconds > 1.05 * best_rate:
                best, best_rate = size, size / seconds
            if seconds > 0.5:
                break
    return best


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
    """Whether this is an x86 processor without AVX-512, which bfloat16 in the libraries needs."""
    kind = torch.backends.cpu.get_cpu_capability()
    return platform.machine() in {"x86_64", "AMD64"} and not kind.startswith("AVX512")


def default_device() -> Literal["cpu", "cuda"]:
    """Return ``cuda`` where there is a GPU, else ``cpu``."""
    return "cuda" if torch.cuda.is_available() else "cpu"
