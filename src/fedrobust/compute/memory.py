"""How much memory there is, and whether it is enough."""

from pathlib import Path

import psutil
import torch
from torch import Tensor, nn

from fedrobust.compute.network import evaluating, logits
from fedrobust.compute.randomness import isolated
from fedrobust.errors import ResourceError

_CONTAINER = Path("/sys/fs/cgroup")
"""Where Linux says what a container may use, and uses."""


def available_memory(device: str) -> int:
    """Return the free bytes of the GPU, or of this machine within the limit of a container."""
    if device == "cuda":
        return int(torch.cuda.mem_get_info()[0])
    free = int(psutil.virtual_memory().available)
    limit, used = _CONTAINER / "memory.max", _CONTAINER / "memory.current"
    if limit.exists() and used.exists() and (most := limit.read_text().strip()).isdigit():
        free = min(free, int(most) - int(used.read_text()) + _reclaimable())
    return free


def _reclaimable() -> int:
    """Return the bytes of files that the container counts as used, and gives up when asked."""
    told = _CONTAINER / "memory.stat"
    lines = (line.split() for line in told.read_text().splitlines()) if told.exists() else ()
    return next((int(value) for name, value in lines if name == "inactive_file"), 0)


def keep_freed_memory() -> None:
    """Let the C library keep the memory that tensors give back, up to 64 MiB, for the next ones.

    glibc returns freed memory to the system, and each use of it again costs a page fault for every
    4 KiB: up to a third of the time of a step on a small network. It keeps twice as much as the
    largest piece of up to 32 MiB that was ever freed, so one such piece is freed here; as nothing
    is written to it, this takes microseconds. See M_MMAP_THRESHOLD in mallopt(3).
    """
    torch.empty(31 * 2**20, dtype=torch.uint8)


def activations(model: nn.Module, x: Tensor) -> int:
    """Return the bytes that ``model`` keeps of one of the examples x for a backward pass."""
    kept = dict[int, int]()

    def keep(value: Tensor) -> Tensor:
        if not isinstance(value, nn.Parameter):
            kept[value.data_ptr()] = value.untyped_storage().nbytes()
        return value

    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    with torch.autograd.graph.saved_tensors_hooks(keep, keep), evaluating(model), isolated():
        logits(model, x.detach().requires_grad_()).sum()
    return sum(size for place, size in kept.items() if place not in own) // max(len(x), 1)


def require_memory(needed: int, device: str, what: str, cure: str) -> None:
    """Refuse a run that does not fit, before the first round. Raises: ``ResourceError``."""
    available = available_memory(device)
    if needed > available:
        raise ResourceError(
            f"this run needs about {needed / 2**30:.1f} GiB and {available / 2**30:.1f} GiB are "
            f"free: {what}. Use {cure}"
        )
