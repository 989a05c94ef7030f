"""Commands in processes of their own, each forked from one that has imported what a run needs.

A new Python takes seconds to import PyTorch. The process that is forked is the one whose forks play
the cells of sweeps: it has computed nothing.
"""

import os
import resource
import sys
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from fedrobust.runs.launchers.processes import _context


def begun(
    words: list[str], said: Path, threads: int = 1, largest: int | None = None, **variables: str
) -> BaseProcess:
    """``fedrobust`` with these words, begun, in the folder ``said``.

    What it prints goes to ``stdout.txt`` there, and its errors to ``stderr.txt``. PyTorch has so
    many ``threads`` from the start, as from OMP_NUM_THREADS. The kernel writes at most ``largest``
    bytes to one file.
    """
    told = (words, said, threads, largest, variables)
    process: Any = _context().Process(target=_call, args=told, daemon=True)
    process.start()
    return process  # type: ignore[no-any-return]


def _call(
    words: list[str], said: Path, threads: int, largest: int | None, variables: dict[str, str]
) -> None:
    os.chdir(said)
    os.environ.update(variables)
    for number, name in ((1, "stdout.txt"), (2, "stderr.txt")):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666), number)
    if largest is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
    import torch

    from fedrobust.cli import main

    torch.set_num_threads(threads)
    sys.argv = ["fedrobust", *words]
    main()
