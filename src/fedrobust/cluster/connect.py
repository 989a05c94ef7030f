"""Connect to a Ray cluster, or say within a bounded time why that is not possible."""

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fedrobust.config.text import shortened
from fedrobust.errors import ConfigError, ResourceError

SECONDS = 30.0
"""The most seconds that a cluster may take to answer."""
_KNOCK = 5.0
"""The most seconds in which a machine must accept a connection."""
_STATISTICS = "RAY_USAGE_STATS_ENABLED"
_TRIAL = """
import os, sys, logging, warnings
warnings.simplefilter("ignore")
import ray
try:
    ray.init(address=sys.argv[1], log_to_driver=False, logging_level=logging.CRITICAL)
except BaseException as error:
    print(f"{type(error).__name__}: {error}")
    sys.stdout.flush()
    os._exit(1)
ray.shutdown()
"""
"""A process of its own tries the connection: Ray itself may take minutes, and may end a process."""


@contextmanager
def connected(
    address: str | None = None, *, otherwise: str = "use --on processes"
) -> Iterator[None]:
    """Within the context, this process is connected to a Ray cluster.

    ``address`` is HOST:PORT, ``ray://HOST:PORT``, or ``auto`` for a cluster that this machine is
    part of. None stands for the variable RAY_ADDRESS, or else for ``auto``. A process that is
    connected already stays so, also afterwards, unless ``address`` is given. No cluster is started,
    Ray's usage statistics are off unless the user turned them on, and Ray's own lines are not
    shown. ``otherwise`` is what a message advises a user without a cluster to do.

    Raises: ``ConfigError`` where Ray is not installed, or where the address is not one;
    ``ResourceError`` where no cluster runs or answers there, or where its versions differ.
    """
    ray = _ray()
    if ray.is_initialized():
        if address is not None:
            raise ConfigError(
                "this process is connected to a Ray cluster already: leave out the address, or "
                "call ray.shutdown() first"
            )
        yield
        return
    chosen = address or os.environ.get("RAY_ADDRESS") or "auto"
    os.environ.setdefault(_STATISTICS, "0")
    _knock(chosen, otherwise)
    _try(chosen, otherwise)
    # Ray puts the working directory on the search path of the workers, before what is installed.
    # The files in it may come from anybody.
    with _own_signals(), _quiet(), chdir(Path(Path.cwd().anchor)):
        ray.init(address=chosen, log_to_driver=False, logging_level=logging.ERROR)
    try:
        yield
    finally:
        with _own_signals(), _quiet():
            ray.shutdown()


@contextmanager
def _quiet() -> Iterator[None]:
    """Within the context, nobody is told what will change in Ray."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield


def _ray() -> Any:
    """Return the module. Raises: ``ConfigError`` where it is not installed."""
    if find_spec("ray") is None:
        raise ConfigError("Ray is not installed: pip install 'fedrobust[ray]'")
    os.environ.setdefault(_STATISTICS, "0")  # read by Ray when it is imported
    import ray

    return ray


def _knock(address: str, otherwise: str) -> None:
    """Check that a machine accepts connections at ``address``; ``auto`` has no machine to ask.

    Raises: ``ConfigError``, ``ResourceError``.
    """
    if address == "auto":
        return
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not (host and colon and port.isdecimal() and 0 < int(port) < 65536):
        raise ConfigError(
            f"{shortened(address, 80)!r} is no address of a Ray cluster: write HOST:PORT, such as "
            "10.0.0.5:6379, or auto for the cluster that this machine is part of"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_KNOCK).close()
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise _unreachable(address, why, otherwise) from error


def _try(address: str, otherwise: str) -> None:
    """Connect in a process of its own. Raises: ``ResourceError`` with the reason if that fails."""
    command = [sys.executable, "-P", "-c", _TRIAL, address]
    try:
        ended = subprocess.run(
            command, capture_output=True, text=True, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise _unreachable(address, f"no answer in {SECONDS:.0f} seconds", otherwise) from error
    if ended.returncode == 0:
        return
    if address == "auto" and "Could not find any running Ray instance" in ended.stdout:
        raise ResourceError(
            "no Ray cluster runs on this machine: start one with `ray start --head`, give the "
            f"address of another, or {otherwise}"
        )
    raise _unreachable(address, " ".join((ended.stdout or ended.stderr).split()), otherwise)


def _unreachable(address: str, why: str, otherwise: str) -> ResourceError:
    return ResourceError(
        f"no Ray cluster can be used at {shortened(address, 80)} ({shortened(why, 300)}): check "
        f"the address with `ray status`, or {otherwise}"
    )


@contextmanager
def _own_signals() -> Iterator[None]:
    """Within the context Ray may handle SIGTERM; afterwards it is handled as before."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before if before is not None else signal.SIG_DFL)
