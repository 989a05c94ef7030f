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

from fedrobust.compute.network import differentiable, evaluating, frozen, input_gradient
from fedrobust.compute.randomness import isolated
from fedrobust.config.component import component
from fedrobust.config.scalars import Count
from fedrobust.errors import ConfigError, PrecisionWarning

SIZES = (64, 128, 256, 512, 1024)
_UNMEASURED = 256
"""The batch of a model without an input gradient, which no inner maximisation climbs."""


@component
class Execution:
    """The execution plan: for the same plan, the same seed gives bit-identical results.

    What is left out is chosen when a run starts: a GPU where there is one, all cores, the ``batch``
    of the inner maximisation that is fastest for the model (measured), and clients' ``gradients``:
    ``compiled`` loops where they serve, for small networks on a CPU, else ``autograd``. The saved
    config holds the choice.

    With ``precision: bfloat16`` clients' linear layers and convolutions, inner maximisations
    included, run in bfloat16, by PyTorch's autocast: faster where the processor has instructions
    for it, many times slower elsewhere, which a ``PrecisionWarning`` says. Parameters, updates and
    all evaluations stay float32, and compiled gradients float64.
    """

    device: Literal["cpu", "cuda"] | None = None
    threads: Annotated[Count, Le(1024)] | None = None  # no machine has more; each costs memory
    batch: Annotated[Count, Le(2**20)] | None = None
    gradients: Literal["autograd", "compiled"] | None = None
    precision: Literal["float32", "bfloat16"] = "float32"

    def resolve(self, model: nn.Module, shape: tuple[int, ...], classes: int) -> "Execution":
        """The plan with all but ``gradients``, which depends on more than the model.

        Raises: ``ConfigError`` where there is no such device, or it has no such precision.
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
        """Within, PyTorch uses the plan's threads and repeatable arithmetic in full float32."""
        threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
        strict = torch.are_deterministic_algorithms_enabled()
        torch.set_num_threads(self.threads or threads)
        torch.set_float32_matmul_precision("highest")
        if self.device == "cuda":
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what cuBLAS asks for
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
    """The batch of :data:`SIZES` with the most input gradients a second; a tie takes the smaller.

    A larger batch must be 5 % faster to be taken, and none is tried that would take over a second.
    """
    first = next(model.parameters())
    best, best_rate = SIZES[0], 0.0
    with frozen(model), evaluating(model), isolated():
        for size in SIZES:
            x = torch.full((size, *shape), 0.5, dtype=first.dtype, device=first.device)
            y = torch.arange(size, device=first.device) % classes
            if not differentiable(model, x[:1]):
                return _UNMEASURED
            input_gradient(model, x, y)
            seconds = min(_time(model, x, y) for _ in range(3))
            if size / seconds > 1.05 * best_rate:
                best, best_rate = size, size / seconds
            if seconds > 0.5:
                break
    return best


def _time(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> float:
    start = time.perf_counter()
    gradient = input_gradient(model, x, y)
    float(gradient.sum())  # waits for a GPU
    return time.perf_counter() - start


def warn_emulated(key: str, precision: str, device: str) -> None:
    """Warn where ``key`` asks for bfloat16 of a processor that only emulates it."""
    if precision == "bfloat16" and device == "cpu" and emulates_bfloat16():
        warnings.warn(
            f"{key}: this processor ({torch.backends.cpu.get_cpu_capability()}) has no "
            "instructions for bfloat16, so that rounds may take ten times as long as in float32; "
            "use float32",
            PrecisionWarning,
            stacklevel=3,
        )


def emulates_bfloat16() -> bool:
    """Whether this is an x86 processor without AVX-512, which the libraries' bfloat16 needs."""
    kind = torch.backends.cpu.get_cpu_capability()
    return platform.machine() in {"x86_64", "AMD64"} and not kind.startswith("AVX512")


def default_device() -> Literal["cpu", "cuda"]:
    """A GPU where there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"
