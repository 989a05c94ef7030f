"""Where the units of a run are computed: here, on a Ray cluster, or by real clients."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from fedrobust.compute.execution import Execution
from fedrobust.compute.units import placed
from fedrobust.data import Remote
from fedrobust.errors import ConfigError
from fedrobust.experiment import Experiment
from fedrobust.federation.backends import Backend
from fedrobust.models import LOCAL as OWNED


@contextmanager
def placing(
    execution: Execution, other_processor: bool
) -> Iterator[Callable[[Execution], Backend | None]]:
    """Inside this context, units are computed where ``execution`` says.

    Yields a function that returns the backend for a run's whole plan; None where the run keeps its
    own. With ``other_processor`` workers may have another kind of processor than this machine.

    Raises: ``ConfigError`` and ``ResourceError`` where this place cannot be reached.
    """
    if execution.backend == "local":
        yield lambda plan: None
        return
    from fedrobust.federation.on_ray import on_ray

    with ExitStack() as stack:
        backend = stack.enter_context(on_ray(execution, other_processor=other_processor))

        def given(plan: Execution) -> Backend:
            backend.workers = replace(backend.workers, plan=plan)
            stack.enter_context(placed(backend.workers))
            return backend

        yield given


def require_place(experiment: Experiment, elsewhere: Backend | None) -> None:
    """Refuse what cannot be played here, or not elsewhere. Raises: ``ConfigError``."""
    if elsewhere is None and isinstance(experiment.partition, Remote):
        raise ConfigError(
            "partition: remote: the clients and their data are elsewhere, so no run here can play "
            "it. Start it with fedrobust.flower, or choose another partition"
        )
    if elsewhere is None:
        return
    for key, wrong, why in (
        ("malicious", experiment.malicious, "who attacks is not known to the server: leave it out"),
        (
            "execution.backend",
            experiment.execution.backend == "ray",
            "they train where they are: leave it out",
        ),
        ("batch_norm", experiment.batch_norm in OWNED, "choose to_group_norm or frozen"),
        (
            "execution.gradients",
            experiment.execution.gradients not in (None, "autograd"),
            "each client trains alone: leave it out",
        ),
    ):
        if wrong:
            value = _value(experiment, key)
            raise ConfigError(f"{key}: {value} does not fit real clients, elsewhere: {why}")


def _value(experiment: Experiment, key: str) -> object:
    found: object = experiment
    for part in key.split("."):
        found = getattr(found, part)
    return found
