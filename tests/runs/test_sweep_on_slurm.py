"""A sweep of SLURM jobs: submitit's local jobs are controlled as SLURM controls its own."""

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from grids import ROUNDS, bits, players, rounds_kept, until, written_grid

from fedrobust.config import beside
from fedrobust.runs.grid import load_sweep
from fedrobust.runs.launchers.slurm import Slurm
from fedrobust.runs.sweep import run_sweep

pytest.importorskip("submitit")
pytestmark = [pytest.mark.cluster, pytest.mark.slow]

LOCAL = Slurm({"cluster": "local"})


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


def test_a_preempted_job_goes_on_from_its_checkpoint_and_a_lost_one_fails(
    fresh: Path, whole: dict[str, str], tmp_path: Path
) -> None:
    """One job gets the signal of a preemption; the other's process is killed."""
    out, sweep = tmp_path / "out", load_sweep(fresh)
    with ThreadPoolExecutor(1) as pool:
        playing = pool.submit(run_sweep, sweep, out, on=LOCAL, jobs=2)
        until(lambda: playing.done() or all(rounds_kept(out, n) >= 4 for n in "01"))
        assert not playing.done() or playing.result()
        kept = rounds_kept(out, "0")
        first, lost = players(fresh, "0")[-1], players(fresh, "1")[-1]
        os.kill(first, signal.SIGUSR2)
        os.kill(lost, signal.SIGKILL)
        failed = playing.result(timeout=120)
    assert list(failed) == ["1"]
    assert "before the cell did: see" in failed["1"]
    assert "_0_log.err" in failed["1"]
    others = [pid for pid in players(fresh, "0") if pid != first]
    assert len(set(others)) == 1
    assert len(others) <= ROUNDS - kept, "it began anew"
    assert not (out / "slurm" / "jobs.json").exists()
    assert not (out / "playing").exists()
    assert run_sweep(sweep, out, resume=True) == {}  # in processes, with the slurm folder there
    assert bits(out) == whole


def test_jobs_outlive_a_killed_sweep_which_finds_them_again(
    fresh: Path, whole: dict[str, str], tmp_path: Path
) -> None:
    """The command is killed; another waits for the same jobs; an interrupted one cancels them."""
    out = tmp_path / "out"
    line = [sys.executable, "-m", "fedrobust", "sweep", str(fresh), "--out", str(out), "--resume"]
    line += ["--on", "slurm", "--slurm-arg", "cluster=local", "--jobs", "2"]
    playing = subprocess.Popen(line)
    until(lambda: playing.poll() is not None or rounds_kept(out, "0") >= 2)
    assert playing.poll() is None
    playing.kill()
    playing.wait()
    jobs = json.loads((out / "slurm" / "jobs.json").read_text())["jobs"]
    assert all(psutil.pid_exists(int(id)) for id in jobs.values())
    assert run_sweep(load_sweep(fresh), out, resume=True, on=LOCAL) == {}
    assert [len(players(fresh, n)) for n in "01"] == [ROUNDS, ROUNDS], "played twice"
    assert len(list((out / "slurm").glob("*_submitted.pkl"))) == 2
    assert bits(out) == whole

    again = tmp_path / "again"
    line[line.index(str(out))] = str(again)
    playing = subprocess.Popen(line, stderr=subprocess.PIPE, text=True)
    until(lambda: playing.poll() is not None or rounds_kept(again, "0") >= 2)
    jobs = json.loads((again / "slurm" / "jobs.json").read_text())["jobs"]
    playing.send_signal(signal.SIGINT)
    _, said = playing.communicate(timeout=60)
    assert playing.returncode == 130, said
    assert not any(psutil.pid_exists(int(id)) for id in jobs.values())
    before = len(players(fresh, "0"))
    time.sleep(0.5)
    assert len(players(fresh, "0")) == before, "the job goes on"
