"""What a machine must have in common with another one, for both to compute the same bits."""

import platform
import socket
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version

from fedrobust.compute.execution import processor
from fedrobust.errors import ResourceError


@dataclass(frozen=True)
class Machine:
    """The versions and the kind of processor of the machine ``host``."""

    host: str
    device: str
    processor: str
    fedrobust: str
    torch: str
    python: str

    @classmethod
    def here(cls, device: str) -> "Machine":
        """Return this machine, as a place to compute on ``device`` (cpu or cuda)."""
        return _here(device)

    def require_like(self, other: "Machine", *, mixed: bool) -> None:
        """Check that this machine computes what ``other`` does.

        With ``mixed``, the kinds of processors may differ.

        Raises: ``ResourceError`` that names both machines and what differs.
        """
        for what in ("fedrobust", "torch", "python"):
            mine, theirs = getattr(self, what), getattr(other, what)
            if mine != theirs:
                raise ResourceError(
                    f"the worker on {self.host} has {what} {mine}, and the run on {other.host} has "
                    f"{theirs}: install the same version on all machines"
                )
        if self.processor != other.processor and not mixed:
            raise ResourceError(of_another_kind(self.host, self.processor, other.processor))


def of_another_kind(host: str, there: str, here: str) -> str:
    """Return the message about a worker's processor that is not of the run's kind."""
    return (
        f"the worker on {host} has another kind of processor ({there}) than the run ({here}), so "
        "that results would differ in rounding from those of one machine; take it out of the "
        "cluster or, if that is all right, add --other-processor (other_processor=True)"
    )


@cache
def _here(device: str) -> Machine:
    python = platform.python_version_tuple()
    return Machine(
        host=socket.gethostname(),
        device=device,
        processor=processor(device),
        fedrobust=version("fedrobust"),
        torch=version("torch"),
        python=".".join(python[:2]),
    )
