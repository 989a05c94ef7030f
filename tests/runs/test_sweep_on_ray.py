"""A sweep on a Ray cluster leaves the bits of one in processes, whatever is killed."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import filelock
import psutil
import pytest
from grids import ROUNDS, bits, players, rounds_kept, until, written_grid
from ray_cluster import add_node, ray_cluster

from fedrobust.config import beside
from fedrobust.errors import ResourceError
from fedrobust.progress import Progress
from fedrobust.runs.grid import load_sweep
from fedrobust.runs.launchers import on_ray
from fedrobust.runs.launchers.on_ray import Ray
from fedrobust.runs.sweep import run_sweep

pytest.importorskip("ray")
pytestmark = [pytest.mark.cluster, pytest.mark.slow]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with ray_cluster(1, head_cpus=1) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written_grid(tmp_path_factory.mktemp("grid"))


@pytest.fixture(scope="module")
def whole(config: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The bits of the sweep in processes, undisturbed."""
    out = tmp_path_factory.mktemp("whole") / "out"
    beside.look_in([config.parent])
    assert run_sweep(load_sweep(config), out) == {}
    return bits(out)


@pytest.fixture
def fresh(config: Path) -> Path:
    """The config, with no round of its cells noted."""
    for log in config.parent.glob("*.log"):
        log.unlink()
    beside.look_in([config.parent])
    return config


def test_a_killed_worker_and_a_lost_node_change_no_bit(
    cluster: Any, fresh: Path, whole: dict[str, str], tmp_path: Path
) -> None:
    """One cell's process is killed, and the node of the other is removed."""
    out, told = tmp_path / "out", list[tuple[str, int]]()
    progress = Progress(moved=lambda name, done, total: told.append((name, done)))
    sweep = load_sweep(fresh)
    with ThreadPoolExecutor(1) as pool:
        playing = pool.submit(run_sweep, sweep, out, on=Ray(cluster.address), progress=progress)
        begun = until(lambda: playing.done() or all(rounds_kept(out, n) >= 4 for n in "01"))
        assert not playing.done() or playing.result()
        assert begun
        last = {players(fresh, n)[-1]: n for n in "01"}
        worker = next(node for node in cluster.worker_nodes)
        on_worker = next(pid for pid in last if raylet(pid) in processes(worker))
        on_head = next(pid for pid in last if pid != on_worker)
        kept = {cell: rounds_kept(out, cell) for cell in "01"}
        os.kill(on_head, signal.SIGKILL)
        cluster.remove_node(worker, allow_graceful=False)
        failed = playing.result(timeout=120)
    add_node(cluster)
    assert failed == {}
    assert bits(out) == whole
    for cell in "01":
        first, *others = list(dict.fromkeys(players(fresh, cell)))
        assert others, "the process of the cell was not lost"
        again = sum(pid != first for pid in players(fresh, cell))
        assert again <= ROUNDS - kept[cell], "it began anew"
    assert not (out / "playing").exists()
    assert {done for name, done in told if name == "0"} > {0}


def raylet(pid: int) -> int:
    """The raylet that started a worker."""
    return psutil.Process(pid).ppid()


def processes(node: Any) -> set[int]:
    return {p.process.pid for kind in node.all_processes.values() for p in kind}


def begun(config: Path, out: Path, *more: str) -> "subprocess.Popen[str]":
    """The command, which has played and kept some rounds of the first cell."""
    line = [sys.executable, "-m", "fedrobust", "sweep", str(config), "--out", str(out), *more]
    kept = rounds_kept(out, "0")
    playing = subprocess.Popen(line, stderr=subprocess.PIPE, text=True)
    until(lambda: playing.poll() is not None or rounds_kept(out, "0") >= kept + 4)
    assert playing.poll() is None, playing.communicate()
    return playing


def test_a_sweep_goes_on_elsewhere_after_every_kind_of_end(
    cluster: Any, fresh: Path, whole: dict[str, str], tmp_path: Path
) -> None:
    """Begun in processes and killed; on Ray, interrupted; on Ray, killed; ended in processes."""
    out, on_ray = tmp_path / "out", ("--on", "ray", "--address", cluster.address)
    places = ((), on_ray, on_ray)
    ends = (signal.SIGKILL, signal.SIGINT, signal.SIGKILL)
    for place, end in zip(places, ends, strict=True):
        playing = begun(fresh, out, "--resume", *place, "--jobs", "1")
        playing.send_signal(end)
        _, said = playing.communicate(timeout=60)
        if end == signal.SIGINT:
            assert playing.returncode == 130
            assert re.search(r"stopped; go on with: .*fedrobust sweep .*--on ray.* --resume", said)
        patience = 1 if end == signal.SIGINT else 60  # an interrupted sweep has waited for it
        with filelock.FileLock(out / "cells" / "0" / ".lock", timeout=patience):
            pass
        assert rounds_kept(out, "0") < ROUNDS
    assert len(set(players(fresh, "0"))) == 3
    assert run_sweep(load_sweep(fresh), out, resume=True) == {}
    assert bits(out) == whole


def test_a_cell_that_ends_its_process_each_time_fails_in_the_end(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray alone would play it for ever."""
    monkeypatch.setattr(on_ray, "LOST", 2)
    (tmp_path / "dying.py").write_text(
        "import os, torch\n"
        "class Model(torch.nn.Linear):\n"
        "    def __init__(self):\n"
        f"        if os.getpid() != {os.getpid()}:\n"
        "            os._exit(1)\n"
        "        super().__init__(64, 10)\n"
        "    def forward(self, x):\n"
        "        return super().forward(x.flatten(1))\n"
    )
    config = written_grid(tmp_path, 1, model={"name": "dying:Model"})
    beside.look_in([tmp_path])
    failed = run_sweep(load_sweep(config), tmp_path / "out", on=Ray(cluster.address))
    assert "its process was lost 2 times in a row without a further round" in failed["0"]
    assert "was lost 2 times" in (tmp_path / "out" / "failed" / "0.txt").read_text()


def test_what_the_cluster_lacks_is_told_before_anything_is_written(
    cluster: Any, config: Path, tmp_path: Path
) -> None:
    sweep = load_sweep(config, ["execution.device=cuda"])
    with pytest.raises(ResourceError, match=r"2 cells have execution\.device: cuda, and no"):
        run_sweep(sweep, tmp_path / "out", on=Ray(cluster.address))
    assert not (tmp_path / "out").exists()
