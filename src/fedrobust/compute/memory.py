"""How much memory there is, and whether it suffices."""

from pathlib import Path

import psutil
import torch

from fedrobust.errors import ResourceError


def available_memory(device: str) -> int:
    """Free bytes: of the GPU, or of this machine, less where a container allows less."""
    if device == "cuda":
        return int(torch.cuda.mem_get_info()[0])
    free = int(psutil.virtual_memory().available)
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.exists() and used.exists() and (most := limit.read_text().strip()).isdigit():
        free = min(free, int(most) - int(used.read_text()))
    return free


def require_memory(needed: int, device: str, what: str) -> None:
    """Refuse before the first round what cannot fit. Raises: ``ResourceError`` with the figures."""
    available = available_memory(device)
    if needed > available:
        raise ResourceError(
            f"this run needs about {needed / 2**30:.1f} GiB and {available / 2**30:.1f} GiB are "
            f"free: {what}. Use fewer clients a round, a smaller model, or keep_optimizer: false"
        )
