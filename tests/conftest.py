"""What several test files need."""

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from demo import PLAIN, demo_config

from fedrobust.config.component import from_config
from fedrobust.experiment import Experiment

_MEMORY = Path("/dev/shm")
_ROOM = 2_000_000_000
"""Bytes that must be free there; all tests together leave far less."""


def _memory_is_a_disk() -> bool:
    """Whether folders can be made in memory, with room, and programs be started from there."""
    if not (_MEMORY.is_dir() and os.access(_MEMORY, os.W_OK)):
        return False
    runs_programs = not os.statvfs(_MEMORY).f_flag & os.ST_NOEXEC
    return runs_programs and shutil.disk_usage(_MEMORY).free > _ROOM


def pytest_configure() -> None:
    """Let SIGINT interrupt, and keep the folders of the tests in memory where there is room.

    A run waits for the disk at each save; on a disk that is half of the time of its tests. No test
    needs more than that: what is tested is the death of processes, which lose nothing there either.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # As a job in the background of a script: processes of the tests would ignore it too.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if _memory_is_a_disk():
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(_MEMORY))


@pytest.fixture
def tiny() -> Callable[..., Experiment]:
    """Makes an experiment of :func:`demo_config` with changes."""
    return lambda **changes: from_config(Experiment, demo_config(**changes))


@pytest.fixture
def plain() -> Callable[..., Experiment]:
    """As :func:`tiny`, in half of the time: without adversarial training."""
    return lambda **changes: from_config(Experiment, demo_config(**PLAIN | changes))


@pytest.fixture(autouse=True)
def _same_threads() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def quick_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages are made with figures that are drawn, but neither laid out nor written: that is most of
    the time of a page, and no matter of a test that reads its text.
    """
    from undrawn import made

    from fedrobust.report import page

    monkeypatch.setattr(page, "render", made)
