"""How much memory there is, and whether it is enough."""

from pathlib import Path

import psutil
import torch

from fedrobust.errors import ResourceError


def available_memory(device: str) -> int:
    """Return the free bytes of the GPU, or of this machine within the limit of a container."""
    if device == "cuda":
        return int(torch.cuda.mem_get_info()[0])
    free = int(psutil.virtual_memory().available)
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.exists() and used.exists() and (most := limit.read_text().strip()).isdigit():
        free = min(free, int(most) - int(used.read_text()))
    return free


def require_memory(needed: int, device: str, what: str) -> None:
    """Refuse a run that does not fit, before the first round. Raises: ``ResourceError``."""
    available = available_memory(device)
    if needed > available:
        raise ResourceError(
            f"this run needs about {needed / 2**30:.1f} GiB and {available / 2**30:.1f} GiB are "
            f"free: {what}. Use fewer clients a round, a smaller model, or keep_optimizer: false"
        )
