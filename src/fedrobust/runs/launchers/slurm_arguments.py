"""The arguments of SLURM jobs, as a user writes them: ``--slurm-arg key=value``."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from fedrobust.config.text import quoted, suggestion
from fedrobust.errors import ConfigError

_Count = Annotated[int, Field(ge=1)]
_Text = Annotated[str, Field(min_length=1, pattern=r"^[^\n]+$")]
_KINDS: dict[str, Any] = {
    "cluster": Literal["slurm", "local"],
    "timeout_min": _Count,
    "cpus_per_task": _Count,
    "gpus_per_node": Annotated[int, Field(ge=0)],
    "mem_gb": Annotated[float, Field(gt=0, allow_inf_nan=False)],
    "slurm_partition": _Text,
    "slurm_account": _Text,
    "slurm_qos": _Text,
    "slurm_constraint": _Text,
    "slurm_exclude": _Text,
    "slurm_nodelist": _Text,
    "slurm_gres": _Text,
    "slurm_comment": _Text,
    "slurm_wckey": _Text,
    "slurm_signal_delay_s": _Count,
    "slurm_setup": _Text,
}
"""The arguments by name, each with the type of its value. The names are submitit's."""


def arguments(texts: Sequence[str]) -> dict[str, Any]:
    """Return the arguments that ``texts`` such as ``timeout_min=60`` set.

    Raises: ``ConfigError`` for an unknown argument, with those there are, and for a wrong value.
    """
    found = dict[str, Any]()
    for text in texts:
        key, equals, value = text.partition("=")
        if key not in _KINDS:
            more = (
                "; --jobs says how many run at a time" if key.endswith("array_parallelism") else ""
            )
            raise ConfigError(
                f"--slurm-arg {quoted(text)}: there is no {quoted(key)}"
                f"{suggestion(key, list(_KINDS))}{more}; there are {', '.join(_KINDS)}"
            )
        if not equals:
            raise ConfigError(f"--slurm-arg {quoted(text)}: write {key}=VALUE")
        if key in found:
            raise ConfigError(f"--slurm-arg {key} is given twice: give it once")
        try:
            found[key] = TypeAdapter(_KINDS[key]).validate_python(value)
        except ValidationError as error:
            why = error.errors()[0]["msg"]
            raise ConfigError(f"--slurm-arg {key}={quoted(value)}: {why}") from error
    return found
