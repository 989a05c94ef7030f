"""Choose a launcher by its name, as on the command line."""

from collections.abc import Sequence
from typing import Literal, get_args

from fedrobust.config.text import quoted, suggestion
from fedrobust.errors import ConfigError
from fedrobust.runs.launchers.launcher import Launcher
from fedrobust.runs.launchers.on_ray import Ray
from fedrobust.runs.launchers.processes import Processes
from fedrobust.runs.launchers.slurm import Slurm
from fedrobust.runs.launchers.slurm_arguments import arguments

Name = Literal["processes", "ray", "slurm"]
NAMES: tuple[Name, ...] = get_args(Name)


def chosen(name: str, address: str | None = None, slurm_args: Sequence[str] = ()) -> Launcher:
    """Return the launcher ``name``, with the address of a Ray cluster or the arguments of jobs.

    Raises: ``ConfigError`` for an unknown name, and for what another launcher takes.
    """
    if name not in NAMES:
        raise ConfigError(
            f"--on {quoted(name)}: there is no such launcher{suggestion(name, NAMES)}; there are "
            f"{', '.join(NAMES)}"
        )
    if address is not None and name != "ray":
        raise ConfigError("--address is the address of a Ray cluster: add --on ray")
    if slurm_args and name != "slurm":
        raise ConfigError("--slurm-arg is for SLURM jobs: add --on slurm")
    if name == "ray":
        return Ray(address)
    return Slurm(arguments(slurm_args)) if name == "slurm" else Processes()
